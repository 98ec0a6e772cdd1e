"""What StreamVibe logs goes where the application wants it, and never to standard output."""

import logging
import subprocess
import sys

import pytest

from streamvibe.errors import DatabaseUnreachable
from streamvibe.eventlog import Outage, event_logger

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


def test_an_outage_is_told_at_once_then_rarely_then_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is noticed: one line when it begins, one every 30 seconds, one when it is over; no remedy."""
    caplog.set_level(logging.INFO)
    time = 100.0
    outage = Outage(event_logger("streamvibe.worker"), "claim", lambda: time)
    outage.ends()
    error = DatabaseUnreachable("It is gone", received="postgresql://x", fix="Start it")
    for _ in range(400):
        outage.goes_on("claim_waits_for_database", error)
        time += 0.1
    outage.ends()
    outage.ends()
    outage.goes_on("claim_waits_for_database", error)
    waits = 'claim_waits_for_database error="It is gone" away_seconds='
    assert [record.message for record in caplog.records] == [
        f"{waits}0",
        f"{waits}30",
        "database_back part=claim away_seconds=40",
        f"{waits}0",
    ]
