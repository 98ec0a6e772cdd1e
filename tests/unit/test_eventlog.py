"""What StreamVibe logs goes where the application wants it, and never to standard output."""

import subprocess
import sys

LOG = """
import logging, sys
from streamvibe.eventlog import event_logger
{setup}
log = event_logger("streamvibe.worker")
log.info("worker_started", worker_id="w 1", concurrency=20)
log.warning("claim_waits", retry_in_seconds=0.5)
"""


def logged(setup: str) -> tuple[str, str]:
    """What a program of its own prints on standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", LOG.format(setup=setup)], capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_nothing_is_configured() -> None:
    """Without any configuration warnings go to standard error, information nowhere, and nothing to standard output."""
    assert logged("") == ("", "claim_waits retry_in_seconds=0.5\n")


def test_the_applications_configuration_applies() -> None:
    """Level, form and destination are those of logging; events are constant names followed by their fields."""
    out, err = logged(
        "logging.basicConfig(stream=sys.stdout, level='INFO', format='%(name)s %(levelname)s %(message)s')"
    )
    assert out.splitlines() == [
        'streamvibe.worker INFO worker_started worker_id="w 1" concurrency=20',
        "streamvibe.worker WARNING claim_waits retry_in_seconds=0.5",
    ]
    assert err == ""


def test_an_error_is_shown_once() -> None:
    """An event with an error carries its traceback, as logging has it."""
    code = (
        "from streamvibe.eventlog import event_logger\n"
        "log = event_logger('streamvibe.worker')\n"
        "try:\n    1 / 0\n"
        "except ZeroDivisionError as error:\n"
        "    log.exception('heartbeat_failed', worker_id='w1')\n"
        "    log.error('worker_broke', exc_info=error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line for line in lines if "_" in line] == ["heartbeat_failed worker_id=w1", "worker_broke"]
    assert lines.count("ZeroDivisionError: division by zero") == 2
