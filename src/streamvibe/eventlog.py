"""Event logs: constant names with fields, written through the standard library's ``logging``.

Nothing is configured here. Unless the application does, warnings and errors go to standard error and the rest
nowhere; nothing ever goes to standard output, which is the application's.
"""

import logging

import structlog
from structlog.typing import EventDict, WrappedLogger

_fields = structlog.processors.LogfmtRenderer()


def event_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a part of StreamVibe; ``name`` is its name in ``logging``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, _rendered],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def _rendered(logger: WrappedLogger, method: str, event: EventDict) -> str:
    name = str(event.pop("event"))
    return f"{name} {_fields(logger, method, event)}" if event else name
