"""Event logs: constant names with fields, written through the standard library's ``logging``.

Nothing is configured here. Unless the application does, warnings and errors go to standard error and the rest
nowhere; nothing ever goes to standard output, which is the application's.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

_fields = structlog.processors.LogfmtRenderer()


def event_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a part of StreamVibe; ``name`` is its name in ``logging``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _rendered],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


class Outage:
    """What a part of the program says of a database that is away: at once, every 30 seconds, and when it is back."""

    EVERY_SECONDS = 30.0
    MOST_CHARACTERS = 200

    def __init__(
        self, log: structlog.stdlib.BoundLogger, part: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._part = part
        self._clock = clock
        self._since: float | None = None
        self._again_at = 0.0

    def goes_on(self, event: str, error: Exception, **fields: object) -> None:
        """It could not be reached just now."""
        now = self._clock()
        if self._since is None:
            self._since = self._again_at = now
        if now >= self._again_at:
            self._again_at = now + self.EVERY_SECONDS
            text = " ".join(str(getattr(error, "message", error)).split())[: self.MOST_CHARACTERS]
            self._log.warning(event, error=text, away_seconds=round(now - self._since), **fields)

    def ends(self) -> None:
        """It answered just now."""
        if self._since is not None:
            self._log.info("database_back", part=self._part, away_seconds=round(self._clock() - self._since))
            self._since = None


def _rendered(logger: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """The call of ``logging`` that an event becomes: its name and fields as text, and the error if there is one."""
    error = event.pop("exc_info", None)
    name = str(event.pop("event"))
    text = f"{name} {_fields(logger, method, event)}" if event else name
    return (text,), {"exc_info": error} if error else {}
