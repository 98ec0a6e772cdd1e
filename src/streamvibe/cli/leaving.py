"""The end of a process that was told to end, when something in it does not."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import TypeVar

from streamvibe.cli.output import print_hint

T = TypeVar("T")

EXIT_SECONDS = 10.0
#: A signal may reach any thread, and wakes only that one; the main thread, whose handlers they are, looks so often.
LOOK_SECONDS = 0.2


class Leaving:
    """Ends the process although a handler ignores being cancelled, or a request to a store hangs: asyncio.run(), and
    every thread, would be waited for without end. What is cut off is what a killed process leaves, and is done again.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def begin(self, status: int, remark: str | None = None, *, as_json: bool = False) -> None:
        """The process has EXIT_SECONDS from the first call to end by itself; then it says ``remark`` and is gone."""
        if self._timer is None:
            self._timer = threading.Timer(EXIT_SECONDS, _leave, (status, remark, as_json))
            self._timer.daemon = True
            self._timer.start()

    def done(self) -> None:
        """It does."""
        if self._timer is not None:
            self._timer.cancel()


def until_stopped(work: Callable[[threading.Event], T], remark: str, *, as_json: bool = False) -> T:
    """Do it in a thread, since a request to a store lets no signal in, until SIGTERM or SIGINT sets the event.

    When it does not end soon then, as while a store does not answer, the process says ``remark`` and is gone.
    """
    stopping, leaving = threading.Event(), Leaving()

    def stop(*_: object) -> None:
        leaving.begin(130, remark, as_json=as_json)
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(work, stopping)
            while not wait_for([done], LOOK_SECONDS).done:
                pass
            return done.result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        leaving.done()


def _leave(status: int, remark: str | None, as_json: bool) -> None:
    try:
        if remark is not None:
            print_hint(remark, as_json=as_json)
    finally:
        os._exit(status)
