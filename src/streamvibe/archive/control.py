"""What the archive asks of the database, and whose turn it is to write."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg import Connection

from streamvibe.db.session import connection_defaults
from streamvibe.errors import NotLeader, StreamVibeError, translated
from streamvibe.masking import mask_url

#: Counting and reading a leaf takes minutes, during which nobody waits for it; a process that was stopped in the middle
#: of a transaction does not keep its locks.
_LIMITS = (
    "SELECT set_config('lock_timeout', '30s', true), set_config('statement_timeout', '2h', true),"
    " set_config('idle_in_transaction_session_timeout', '60s', true)"
)
_LEAD = "SELECT streamvibe.lead_archive(%s, %s)"
#: For how long the one that writes may be silent before another takes over.
LEASE = timedelta(seconds=30)


class Stopped(Exception):  # noqa: N818 - it says what happened
    """The process is told to end; what was begun is done again by the next run."""


class Control:
    """A connection, and the fence under which this process writes to the archive.

    Not for concurrent use. Methods raise the error tree; psycopg errors that it does not know pass through.
    """

    def __init__(
        self, dsn: str, *, lease: timedelta = LEASE, stopping: threading.Event | None = None
    ) -> None:
        self._dsn = dsn
        self._url = mask_url(dsn)
        self._lease = lease
        self._stopping = stopping or threading.Event()
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._renew_at = 0.0
        self.fence: int | None = None
        self._connection = self._connect()

    def _connect(self) -> Connection[Any]:
        with translated(self._url):
            return psycopg.connect(
                self._dsn,
                autocommit=True,
                prepare_threshold=None,
                application_name="streamvibe archive",
                **connection_defaults(self._dsn),
            )

    def close(self) -> None:
        """Let another process write, and close the connection."""
        if self.fence is not None:
            # Where that cannot be said, it waits for the lease to end.
            with contextlib.suppress(psycopg.Error):
                self._connection.execute("SELECT streamvibe.resign_archive(%s)", (self.fence,))
            self.fence = None
        self._connection.close()

    def call(self, sql: LiteralString, *params: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, in a transaction of its own."""
        with translated(self._url), self._connection.transaction():
            self._connection.execute(_LIMITS)
            return self._connection.execute(sql, params).fetchall()

    def value(self, sql: LiteralString, *params: object) -> Any:
        """The only value of one statement."""
        [[found]] = self.call(sql, *params)
        return found

    def lead(self) -> bool:
        """Whether this process may write now. Raises NotLeader where it did and does not any more."""
        # One statement without a transaction around it: a process that is stopped between two would keep the row.
        asked_at = time.monotonic()
        with translated(self._url):
            row = self._connection.execute(_LEAD, (self._holder, self._lease)).fetchone()
        fence = row[0] if row is not None else None
        if self.fence is not None and fence != self.fence:
            # A new turn, perhaps: nobody knows what happened in between, so it is given back.
            self.fence = None
            if fence is not None:
                self._connection.execute("SELECT streamvibe.resign_archive(%s)", (fence,))
            raise NotLeader(
                "Another process writes to the archive by now",
                fix="Nothing is lost: it goes on where this one was",
            )
        self.fence = fence
        self._renew_at = asked_at + self._lease.total_seconds() / 3
        return fence is not None

    def keep(self) -> None:
        """Stay the one that writes; call it often. Raises NotLeader, Stopped."""
        self.check_stop()
        if time.monotonic() >= self._renew_at:
            self.lead()

    def check_stop(self) -> None:
        """Raises Stopped."""
        if self._stopping.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleep. Raises Stopped."""
        self._stopping.wait(seconds)
        self.check_stop()

    @contextlib.contextmanager
    def kept_beside(self) -> Iterator[None]:
        """Stay the one that writes while something takes long that cannot call `keep`; a statement of this connection
        is cancelled when the process is told to end. Raises Stopped; NotLeader after it, where that failed.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._renew, args=(done,), name="streamvibe archive lease")
        thread.start()
        try:
            yield
        except psycopg.errors.QueryCanceled:
            self.check_stop()
            raise
        finally:
            done.set()
            thread.join()
        self.check_stop()
        self.lead()

    def _renew(self, done: threading.Event) -> None:
        # What fails here shows when the lease is over: lead() says so.
        with contextlib.suppress(StreamVibeError, psycopg.Error), contextlib.ExitStack() as stack:
            connection: Connection[Any] | None = None
            while not done.wait(0.2):
                if self._stopping.is_set():
                    self._connection.cancel_safe()
                    return
                if time.monotonic() >= self._renew_at:
                    if connection is None:
                        connection = stack.enter_context(contextlib.closing(self._connect()))
                    connection.execute(_LEAD, (self._holder, self._lease))
                    self._renew_at = time.monotonic() + self._lease.total_seconds() / 3

    @contextlib.contextmanager
    def rows(self, source: str, day: object) -> Iterator[Iterator[Sequence[Any]]]:
        """The rows of a source of one day, as the archive has them, sorted; they come one by one, however many.

        On a connection of its own: this one renews the lease meanwhile.
        """
        connection = self._connect()
        with contextlib.closing(connection), translated(self._url):
            # Nothing is written: closing the connection ends the transaction, also in the middle of the rows.
            connection.execute("BEGIN")
            connection.execute(_LIMITS)
            connection.execute("SELECT streamvibe.open_archive_rows(%s, %s)", (source, day))
            yield connection.cursor().stream("FETCH ALL FROM archive_rows", binary=True)
