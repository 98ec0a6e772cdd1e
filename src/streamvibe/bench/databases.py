"""A database per cell on the embedded server, and what the server says about itself."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from streamvibe.config import Settings
from streamvibe.db import embedded
from streamvibe.db.migrate import migrate
from streamvibe.errors import ConfigurationError

PREFIX = "streamvibe_bench"
#: What a result is worth nothing without.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
SETTINGS = (
    "server_version",
    *DURABLE,
    "shared_buffers",
    "huge_pages_status",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_compression",
    "wal_level",
    "autovacuum",
    "data_checksums",
    "max_connections",
)


class Server:
    """The embedded server. STREAMVIBE_DATABASE_URL is not used: no cell may touch the user's queue."""

    def __init__(self) -> None:
        self.url = embedded.ensure_running(Settings().model_copy(update={"database_url": None})).url

    def settings(self) -> dict[str, str]:
        """The settings that results depend on. Raises ConfigurationError where commits are not durable."""
        with self._connect() as conn:
            rows = conn.execute(
                "SELECT name, pg_catalog.current_setting(name) FROM unnest(%s::text[]) name", [list(SETTINGS)]
            )
            found = {str(name): str(value) for name, value in rows}
        for name, value in DURABLE.items():
            if found[name] != value:
                raise ConfigurationError(
                    "The embedded server runs with a setting that makes results worthless",
                    field=name,
                    received=found[name],
                    fix=f"ALTER SYSTEM RESET {name}, and restart it: streamvibe db stop",
                )
        return found

    @contextlib.contextmanager
    def database(self, label: str, *, migrated: bool) -> Iterator[str]:
        """The URL of a new database, dropped at the end."""
        name = f"{PREFIX}_{os.getpid()}_{re.sub('[^a-z0-9]+', '_', label.lower())}"[:63]
        self._drop(name)
        with self._connect() as conn:
            conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        try:
            if migrated:
                migrate(url)
            yield url
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        with self._connect() as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url, autocommit=True)
