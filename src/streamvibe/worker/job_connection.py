"""The connection that transactional handlers write with, and how one handler's traces are kept from the next."""

import asyncio
import contextlib
import os
import socket
from functools import cached_property
from typing import Any, NoReturn, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from streamvibe.db.pool import configure
from streamvibe.db.session import connection_defaults
from streamvibe.errors import InvalidArgument

#: What a handler can leave behind in a session, undone. Its settings are those of a user's job, and the next job is
#: another user's. RESET ALL leaves out the role, and goes back to what the connection began with.
CLEAN = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DISCARD TEMP; SELECT pg_catalog.pg_advisory_unlock_all()"

#: The server goes on with the statement of a connection that is closed, and keeps its locks.
CANCEL_SECONDS = 5.0


class JobConnection(psycopg.AsyncConnection[Any]):
    """An autocommit connection whose transactions are begun and ended by the worker, in SQL."""

    @classmethod
    async def open(
        cls, dsn: str, *, application_name: str, prepare_threshold: int | None, longest_seconds: float
    ) -> Self:
        """Connect. ``longest_seconds``: after so long the server ends a statement, or a wait for the next one.

        So a worker that is stopped, or cut off, does not keep a transaction open for ever.
        """
        limit = f"{longest_seconds * 1000:.0f}"
        given = conninfo_to_dict(dsn).get("options") or os.environ.get("PGOPTIONS", "")
        connection = await cls.connect(
            dsn,
            autocommit=True,
            prepare_threshold=prepare_threshold,
            application_name=application_name,
            # In the options, so that RESET ALL goes back to them.
            options=f"{given} -c statement_timeout={limit} -c idle_in_transaction_session_timeout={limit}",
            **connection_defaults(dsn),
        )
        configure(connection)
        connection._kept = (connection.row_factory, connection.cursor_factory, connection.prepare_threshold)
        return connection

    _kept: tuple[Any, Any, int | None]
    _waits = 0

    @cached_property
    def _left(self) -> asyncio.Event:
        """Nothing waits for the server any more."""
        return asyncio.Event()

    async def send(self, text: str) -> Any:
        """Run statements without parameters in one round trip. Returns a row of the first that has any."""
        cursor = psycopg.AsyncCursor(self, row_factory=tuple_row)
        await cursor.execute(text.encode())
        while not cursor.description:
            if not cursor.nextset():
                return None
        return await cursor.fetchone()

    async def fetch(self, text: str, values: Any) -> list[tuple[Any, ...]]:
        """All rows of one of the worker's statements, whatever factories a handler has set."""
        cursor = psycopg.AsyncCursor(self, row_factory=tuple_row)
        return await (await cursor.execute(text.encode(), values)).fetchall()

    async def clean(self, first: str = "", then: str = "") -> None:
        """Undo what a handler left behind in the session, between these statements; one round trip."""
        self.row_factory, self.cursor_factory, self.prepare_threshold = self._kept
        await self.send(f"{first}{CLEAN}; {then}")

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the server; every statement, COPY and notification of the connection comes through here."""
        self._waits += 1
        try:
            return await super().wait(*args, **kwargs)
        finally:
            self._waits -= 1
            if self._waits == 0:
                self._left.set()

    async def end(self) -> None:
        """Close it; an open transaction is rolled back, also under a statement that a handler left running.

        Such a statement reads from libpq's connection until it ends, and from whatever lies in its memory afterwards:
        a crash, or the answers of another connection. So it ends first.
        """
        if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            with contextlib.suppress(psycopg.Error):
                await self.cancel_safe(timeout=CANCEL_SECONDS)
        if self._waits and not self.closed:
            # What waits gets an error, and so does every statement that would follow.
            with socket.socket(fileno=os.dup(self.fileno())) as connected, contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        while self._waits:
            self._left.clear()
            await self._left.wait()
        await super().close()

    # What would end the transaction under the worker

    async def commit(self) -> None:
        _refuse("commit()")

    async def rollback(self) -> None:
        _refuse("rollback()")

    async def close(self) -> None:
        _refuse("close()")

    async def set_autocommit(self, value: bool) -> None:
        _refuse("set_autocommit()")


def _refuse(received: str) -> NoReturn:
    raise InvalidArgument(
        "the transaction of a transactional job is the worker's to end",
        field="connection",
        received=received,
        fix="Return, and it is committed with the job's end; raise, and it is rolled back; "
        "connection.transaction() makes a savepoint.",
    )
