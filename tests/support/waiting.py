"""Waiting for what another session does: a condition is polled, with a deadline, and named when it fails."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """The first truthy value of `condition`; fails the test, naming `what`, after `seconds` without one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: did not happen within {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return value
