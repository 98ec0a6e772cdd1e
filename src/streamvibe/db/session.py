"""One connection of a long-running process: opened when first used, and again after it broke."""

from collections.abc import Sequence
from typing import Any, Literal, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import Composed

from streamvibe.db.pool import CONNECT_SECONDS, configure
from streamvibe.errors import translated
from streamvibe.masking import mask_url

# A peer that vanished without a word is noticed within half a minute, not after the hours TCP would take.
_CONNECTION_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def connection_defaults(dsn: str) -> dict[str, Any]:
    """Time limits for a connection that nobody watches; what the connection string says wins."""
    given = conninfo_to_dict(dsn)
    return {name: value for name, value in _CONNECTION_DEFAULTS.items() if name not in given}


class Session:
    """Runs single statements on a connection of its own, each in its own transaction.

    Not for concurrent use: one loop, one session. A broken connection raises DatabaseUnreachable once; the next
    call opens a new one. ``limits``: a statement that each transaction begins with; what it sets for the transaction
    alone (``set_config(..., true)``) is nobody else's behind a transaction pooler.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application_name: str,
        prepare_threshold: int | None = 2,
        limits: LiteralString | None = None,
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._prepare_threshold = prepare_threshold
        self._limits = limits
        self._url = mask_url(dsn)
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def connection(self) -> psycopg.AsyncConnection[Any]:
        """The open connection (autocommit). Raises DatabaseUnreachable."""
        if self._connection is None or self._connection.closed:
            with translated(self._url):
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn,
                    autocommit=True,
                    prepare_threshold=self._prepare_threshold,
                    application_name=self._application_name,
                    **connection_defaults(self._dsn),
                )
            configure(connection)
            self._connection = connection
        return self._connection

    async def fetch(
        self,
        sql: str | Composed,
        params: Sequence[object] = (),
        *,
        limits: LiteralString | Literal["usual"] | None = "usual",
    ) -> list[tuple[Any, ...]]:
        """All rows of one statement. Raises the error tree; psycopg errors that it does not know pass through.

        ``limits``: others for this one. None: none, and so no transaction that stays open, and keeps what it has
        locked, when this process is stopped in the middle of it.
        """
        connection = await self.connection()
        try:
            with translated(self._url):
                first = self._limits if limits == "usual" else limits
                if first is None:
                    return await (await connection.execute(sql, params)).fetchall()
                async with connection.transaction():
                    await connection.execute(first)
                    return await (await connection.execute(sql, params)).fetchall()
        except psycopg.Error as error:
            if not isinstance(error, psycopg.DataError):
                # It may be this connection's: a plan prepared before a migration stays wrong until it is closed.
                await self.close()
            raise

    async def run_alone(self, command: str, *, lock_timeout: str) -> None:
        """Run a statement that cannot be part of a transaction, such as REINDEX ... CONCURRENTLY, as long as it takes.

        On a connection of its own, whose limits come with it: set later, behind a transaction pooler, they would be
        another client's. (Most poolers refuse such a connection.) Raises as ``fetch``.
        """
        given = conninfo_to_dict(self._dsn).get("options") or ""
        options = f"{given} -c lock_timeout={lock_timeout} -c statement_timeout=0".strip()
        with translated(self._url):
            connection = await psycopg.AsyncConnection.connect(
                self._dsn,
                autocommit=True,
                prepare_threshold=None,
                application_name=self._application_name,
                **connection_defaults(self._dsn) | {"options": options},
            )
            try:
                await connection.execute(command.encode())
            finally:
                await connection.close()

    async def close(self) -> None:
        """Close the connection; the session can be used again."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
