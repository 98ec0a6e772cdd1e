"""The database of the worker whose handler is running, for clients that are not told which one to use."""

from contextvars import ContextVar

#: Its connection string; None outside of handlers. Tasks and handlers' threads inherit it.
current_dsn: ContextVar[str | None] = ContextVar("streamvibe_dsn", default=None)
