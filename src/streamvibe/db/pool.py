"""Connection pools with StreamVibe's defaults, asynchronous and not.

Every connection is in autocommit mode (each function call is one transaction; ``conn.transaction()`` groups
several), is named in ``pg_stat_activity``, and reads jsonb with orjson. UUIDs are ``uuid.UUID`` as psycopg has it.
"""

import asyncio
import random
import select
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import orjson
from psycopg import AsyncConnection, Connection, OperationalError
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from streamvibe.db.documents import JsonbBinaryLoader, JsonBinaryLoader, JsonLoader
from streamvibe.errors import translated
from streamvibe.masking import mask_url

APPLICATION_NAME = "streamvibe"
CONNECT_SECONDS = 5
PREPARE_THRESHOLD = 5
#: How long a pool pauses between tries to replace a connection that broke, at first and at most, and for how long it
#: tries before it waits to be asked for one.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, RECONNECT_SECONDS = 0.1, 2.0, 300.0


def configure(conn: Connection[Any] | AsyncConnection[Any]) -> None:
    """Make a connection read and write JSON as ours do; for connections that come from elsewhere."""
    for name in ("json", "jsonb"):
        conn.adapters.register_loader(name, JsonLoader)
    conn.adapters.register_loader("json", JsonBinaryLoader)
    conn.adapters.register_loader("jsonb", JsonbBinaryLoader)
    set_json_dumps(orjson.dumps, conn)


async def _configure_async(conn: AsyncConnection[Any]) -> None:
    configure(conn)


def _is_dead(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether the server has ended an idle connection: it has no other reason to speak. Costs no round trip."""
    poller = select.poll()
    poller.register(conn.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _options(application_name: str, prepare_threshold: int | None) -> dict[str, Any]:
    return {
        "autocommit": True,
        "application_name": application_name[:63],
        "prepare_threshold": prepare_threshold,
        "connect_timeout": CONNECT_SECONDS,
    }


def _pauses(is_wanted: Callable[[], bool]) -> Iterator[float]:
    """Until a connection is not wanted any more. At random, so that many processes do not come all at once."""
    until, pause = time.monotonic() + RECONNECT_SECONDS, FIRST_PAUSE_SECONDS
    while is_wanted() and time.monotonic() < until:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


class _AsyncReplacement(AsyncConnection[TupleRow]):
    """A connection of a pool, which is made as soon as the database is back.

    The pool itself would try again after ever longer pauses, up to minutes, with a warning each time.
    """

    @classmethod
    async def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, is_wanted: Callable[[], bool], **options: Any
    ) -> Self:
        for pause in _pauses(is_wanted):
            with suppress(OperationalError):
                return await super().connect(conninfo, **options)
            await asyncio.sleep(pause)
        return await super().connect(conninfo, **options)


class _Replacement(Connection[TupleRow]):
    """The same for code without an event loop."""

    @classmethod
    def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, is_wanted: Callable[[], bool], **options: Any
    ) -> Self:
        for pause in _pauses(is_wanted):
            with suppress(OperationalError):
                return super().connect(conninfo, **options)
            time.sleep(pause)
        return super().connect(conninfo, **options)


class _NewestFirst(deque[Any]):
    """The idle connections of a pool, which lends the one on the left: that which was given back last.

    Its session has its plans, and its process its memory, still in the processor's caches. psycopg_pool lends the one
    that has been idle longest.
    """

    append = deque.appendleft


class AsyncPool(AsyncConnectionPool[AsyncConnection[TupleRow]]):
    """A pool for asynchronous code: ``async with AsyncPool(dsn) as pool``.

    ``min_size`` and ``max_size`` are connections, ``timeout`` the seconds to wait for a free one.
    ``prepare_threshold``: how often a statement runs before it is prepared; None, never, is needed behind a
    pooler in transaction mode that does not track prepared statements.
    """

    def __init__(
        self,
        dsn: str,
        *,
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 30,
        application_name: str = APPLICATION_NAME,
        prepare_threshold: int | None = PREPARE_THRESHOLD,
    ) -> None:
        self._dsn, self._options = dsn, _options(application_name, prepare_threshold)
        self.url = mask_url(dsn)
        self._lent: set[AsyncConnection[TupleRow]] = set()
        super().__init__(
            dsn,
            connection_class=_AsyncReplacement,
            kwargs={**self._options, "is_wanted": lambda: not self.closed},
            configure=_configure_async,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            name=application_name,
            open=False,
        )
        self._pool = _NewestFirst()

    @asynccontextmanager
    async def connection(  # psycopg_pool named its parameter
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A connection for the length of a with block.

        Raises DatabaseUnreachable after ``timeout`` seconds without one; database errors inside the block
        become those of our tree.
        """
        with translated(self.url):
            async with super().connection(timeout) as conn:
                yield conn

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[TupleRow]:  # noqa: ASYNC109
        """A connection that lives. The pool's own ``check`` would pause a second and more after each dead one."""
        conn = await super().getconn(timeout)
        while _is_dead(conn):
            await conn.close()
            await super().putconn(conn)
            conn = await super().getconn(timeout)
        self._lent.add(conn)
        return conn

    async def putconn(self, conn: AsyncConnection[TupleRow]) -> None:
        """Give a connection back."""
        self._lent.discard(conn)
        await super().putconn(conn)

    @property
    def is_full(self) -> bool:
        """Whether all the connections that it may have are in use; else it waits in vain for one to be made."""
        return len(self._lent) >= self.max_size

    async def probe(self) -> None:
        """Make one connection outside the pool and close it: its error says why, which a pool's own never does.

        Raises DatabaseUnreachable.
        """
        with translated(self.url):
            await (await AsyncConnection.connect(self._dsn, **self._options)).close()

    def __repr__(self) -> str:
        return _shown(self)


class Pool(ConnectionPool[Connection[TupleRow]]):
    """The same for code without an event loop: ``with Pool(dsn) as pool``."""

    def __init__(
        self,
        dsn: str,
        *,
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 30,
        application_name: str = APPLICATION_NAME,
        prepare_threshold: int | None = PREPARE_THRESHOLD,
    ) -> None:
        self._dsn, self._options = dsn, _options(application_name, prepare_threshold)
        self.url = mask_url(dsn)
        self._lent: set[Connection[TupleRow]] = set()
        super().__init__(
            dsn,
            connection_class=_Replacement,
            kwargs={**self._options, "is_wanted": lambda: not self.closed},
            configure=configure,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            name=application_name,
            open=False,
        )
        self._pool = _NewestFirst()

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection[TupleRow]]:
        """A connection for the length of a with block; errors as in `AsyncPool.connection`."""
        with translated(self.url), super().connection(timeout) as conn:
            yield conn

    def getconn(self, timeout: float | None = None) -> Connection[TupleRow]:
        """A connection that lives; as in `AsyncPool.getconn`."""
        conn = super().getconn(timeout)
        while _is_dead(conn):
            conn.close()
            super().putconn(conn)
            conn = super().getconn(timeout)
        self._lent.add(conn)
        return conn

    def putconn(self, conn: Connection[TupleRow]) -> None:
        """Give a connection back."""
        self._lent.discard(conn)
        super().putconn(conn)

    @property
    def is_full(self) -> bool:
        """Whether all the connections that it may have are in use; as `AsyncPool.is_full`."""
        return len(self._lent) >= self.max_size

    def probe(self) -> None:
        """Make one connection outside the pool, as `AsyncPool.probe` does."""
        with translated(self.url):
            Connection.connect(self._dsn, **self._options).close()

    def __repr__(self) -> str:
        return _shown(self)


def _shown(pool: AsyncPool | Pool) -> str:
    return f"<{type(pool).__name__} {mask_url(str(pool.conninfo))} {pool.min_size}-{pool.max_size}>"
