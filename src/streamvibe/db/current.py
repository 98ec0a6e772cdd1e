"""The database of the worker whose handler is running, for clients that are not told which one to use."""

from contextvars import ContextVar

#: Its connection string; None outside of handlers. Tasks and handlers' threads inherit it.
current_dsn: ContextVar[str | None] = ContextVar("streamvibe_dsn", default=None)


def configured_dsn() -> str:
    """The database of the settings, else the embedded one, which is started if need be."""
    # Imported here: who has a database of their own needs neither module, nor the megabytes that they bring along.
    from streamvibe.config import Settings
    from streamvibe.db.embedded import database_url

    return database_url(Settings())
