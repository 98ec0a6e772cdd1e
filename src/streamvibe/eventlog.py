"""Event logs: constant names with fields, written through the standard library's ``logging``.

Nothing is configured here. Unless the application does, warnings and errors go to standard error and the rest
nowhere; nothing ever goes to standard output, which is the application's.
"""

import logging
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


def _rendered(logger: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """The call of ``logging`` that an event becomes: its name and fields as text, and the error if there is one."""
    error = event.pop("exc_info", None)
    name = str(event.pop("event"))
    text = f"{name} {_fields(logger, method, event)}" if event else name
    return (text,), {"exc_info": error} if error else {}
