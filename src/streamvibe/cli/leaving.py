"""The end of a process that was told to end, when something in it does not."""

import os
import threading

from streamvibe.cli.output import print_hint

EXIT_SECONDS = 10.0


class Leaving:
    """Ends the process although a handler ignores being cancelled, or a request to a store hangs: asyncio.run(), and
    every thread, would be waited for without end. What is cut off is what a killed process leaves, and is done again.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def begin(self, status: int, remark: str | None = None) -> None:
        """The process has EXIT_SECONDS from the first call to end by itself; then it says ``remark`` and is gone."""
        if self._timer is None:
            self._timer = threading.Timer(EXIT_SECONDS, _leave, (status, remark))
            self._timer.daemon = True
            self._timer.start()

    def done(self) -> None:
        """It does."""
        if self._timer is not None:
            self._timer.cancel()


def _leave(status: int, remark: str | None) -> None:
    try:
        if remark is not None:
            print_hint(remark)
    finally:
        os._exit(status)
