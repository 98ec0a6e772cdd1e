"""Real databases for the tests of applications that use StreamVibe; nothing is faked.

With pytest the fixtures are there as soon as StreamVibe is installed:

    async def test_a_greeting(streamvibe_database):
        database = streamvibe_database
        async with database.client() as client:
            await client.register(greet)
            await client.request(greet, Greeting(name="Ada"), user_id=USER)
            [job] = await database.run_jobs_async([greet])
        assert job.result == {"text": "Hello, Ada!"}

``streamvibe_server`` (once per test run) is an embedded PostgreSQL in a temporary home, stopped and removed at the
end however the run ends. ``streamvibe_database`` (for each test) is a fresh, migrated database on it.
Without pytest: ``with TestServer() as server, server.new_database() as database``, or ``with TestDatabase() as
database`` for a server of its own.

pytest loads this module in every run, so it imports nothing of StreamVibe until a fixture is used.
"""

import asyncio
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

if TYPE_CHECKING:
    from psycopg import Connection

    from streamvibe.client import Client, SyncClient
    from streamvibe.jobtype import JobType
    from streamvibe.model import Job

__all__ = ["TestDatabase", "TestServer"]

_TEMPLATE = "streamvibe_template"
_STOP_SECONDS = 60
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_wal_size": "'256MB'"}
_MEMORY_FOLDER, _MEMORY_BYTES = Path("/dev/shm"), 2 << 30  # noqa: S108 - mkdtemp makes a private one in it


class TestServer:
    """An embedded PostgreSQL in a temporary home. Use it in a with block; it takes a second or two to start.

    Its data are not safe against a power cut, which makes it fast.
    """

    __test__ = False

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._watch: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        from streamvibe.db.embedded import ensure_running
        from streamvibe.db.migrate import migrate

        home = tempfile.mkdtemp(prefix="streamvibe-test-", dir=_memory_folder())
        # Stops the server and removes the home when our end of its input closes: also when we are killed.
        self._watch = subprocess.Popen(
            [sys.executable, "-m", "streamvibe.testing", home], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self._url = ensure_running(_settings(home)).url
            with self._connect() as admin:
                for name, value in _FAST.items():
                    admin.execute(f"ALTER SYSTEM SET {name} = {value}")
                admin.execute("SELECT pg_catalog.pg_reload_conf()")
                admin.execute(f"CREATE DATABASE {_TEMPLATE}")
                migrate(self.dsn(_TEMPLATE))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def dsn(self, database: str) -> str:
        """A connection string for a database of this server."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(self._url, dbname=database)

    def new_database(self) -> "TestDatabase":
        """A fresh, migrated database; use it in a with block, which drops it."""
        return TestDatabase(self)

    def _create(self) -> str:
        name = f"test_{next(self._numbers)}"
        with self._connect() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        return name

    def _drop(self, name: str) -> None:
        with self._connect() as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _connect(self) -> "Connection[Any]":
        import psycopg

        return psycopg.connect(self._url, autocommit=True)

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.communicate(timeout=_STOP_SECONDS)


class TestDatabase:
    """A migrated database of the test's own. Use it in a with block; without a ``server`` it starts one."""

    __test__ = False

    def __init__(self, server: TestServer | None = None) -> None:
        self._server = server or TestServer()
        self._owns_server = server is None
        self._name = ""
        self._clock_is_movable = False

    def __enter__(self) -> Self:
        if self._owns_server:
            self._server.__enter__()
        self._name = self._server._create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_server:
            self._server.__exit__(kind, error, trace)
        else:
            self._server._drop(self._name)

    @property
    def dsn(self) -> str:
        """A connection string for this database; its role may do everything."""
        return self._server.dsn(self._name)

    def client(self) -> "Client":
        """A new client; use it in an async with block."""
        from streamvibe.client import Client

        return Client(self.dsn)

    def sync_client(self) -> "SyncClient":
        """A new client for code without an event loop; use it in a with block."""
        from streamvibe.client import SyncClient

        return SyncClient(self.dsn)

    def run_jobs(self, job_types: Iterable["JobType[Any, Any]"]) -> "list[Job]":
        """Run all due jobs of these types here, in this process, and return them as they stand afterwards.

        What a worker does is done by a real one: jobs are claimed, handlers get their context, results are
        checked and written. Jobs that handlers request meanwhile are run too. A job that failed and is retried
        by itself stands as it waits; ``move_clock`` and run again. First comes what maintenance would have done
        by now: partitions, retries that are due, expiry.
        """
        if asyncio._get_running_loop() is not None:
            from streamvibe.errors import StreamVibeError

            raise StreamVibeError(
                "run_jobs waits, which no event loop allows that runs already",
                fix="Write `await database.run_jobs_async([...])` in a test that is async def",
            )
        return asyncio.run(self.run_jobs_async(job_types))

    async def run_jobs_async(self, job_types: Iterable["JobType[Any, Any]"]) -> "list[Job]":
        """The same for tests that are ``async def``."""
        from streamvibe.client import Client
        from streamvibe.worker import Worker

        worker = Worker(self.dsn, job_types, worker_id=f"test-{uuid4().hex}")
        started_at = await asyncio.to_thread(self._maintain)
        await worker.run_until_idle()
        ran = await asyncio.to_thread(self._ran_by, worker.worker_id, started_at)
        async with Client(self.dsn) as client:
            return [await client.get(job_id) for job_id in ran]

    def move_clock(self, by: timedelta) -> None:
        """Let time pass: every function's "now" moves ahead. Between runs; a running worker would be given up."""
        with self._connect() as conn:
            if not self._clock_is_movable:
                from streamvibe.db.migrate_files import SQL_ROOT

                conn.execute((SQL_ROOT / "testing" / "clock.sql").read_bytes())
                self._clock_is_movable = True
            conn.execute("UPDATE streamvibe.test_clock SET shift = shift + %s", [by])
            conn.execute("SELECT public.ensure_partitions()")

    def _maintain(self) -> object:
        with self._connect() as conn:
            for duty in ("ensure_partitions", "retry_failed_jobs", "expire_stale_jobs"):
                conn.execute(f"SELECT public.{duty}()")
            [now] = conn.execute("SELECT streamvibe.now()").fetchone() or [None]
            return now

    def _ran_by(self, worker_id: str, since: object) -> list[Any]:
        with self._connect() as conn:
            rows = conn.execute(
                # A job that waits for its next attempt has no worker any more, and one that failed fast never had.
                "SELECT id FROM public.job_queue WHERE updated_at >= %s AND (worker_id = %s "
                "OR worker_id IS NULL AND status IN ('pending', 'failed') AND retry_count > 0) "
                "ORDER BY id",
                [since, worker_id],
            )
            return [row[0] for row in rows]

    def _connect(self) -> "Connection[Any]":
        import psycopg

        return psycopg.connect(self.dsn, autocommit=True)


def _memory_folder() -> Path | None:
    """A file system in memory, if it has room: there a new database takes 15 ms instead of 400 ms."""
    if not os.access(_MEMORY_FOLDER, os.W_OK) or shutil.disk_usage(_MEMORY_FOLDER).free < _MEMORY_BYTES:
        return None
    return _MEMORY_FOLDER


def _settings(home: str) -> Any:
    from streamvibe.config import Settings

    return Settings(home=Path(home), database_url=None, embedded_ports=None)


def _stop_at_end_of_input(home: str) -> None:
    from streamvibe.db.embedded import stop

    sys.stdin.buffer.read()
    stop(_settings(home))
    shutil.rmtree(home)


if importlib.util.find_spec("pytest") is not None:
    import pytest

    __all__ += ["streamvibe_database", "streamvibe_server"]

    @pytest.fixture(scope="session")
    def streamvibe_server() -> Iterator[TestServer]:
        """An embedded PostgreSQL in a temporary home, for the whole test run."""
        with TestServer() as server:
            yield server

    @pytest.fixture
    def streamvibe_database(streamvibe_server: TestServer) -> Iterator[TestDatabase]:
        """A fresh database with StreamVibe's schema, for one test. Meanwhile it is STREAMVIBE_DATABASE_URL, so that
        a client or a program that is not told which database to use cannot reach another one.
        """
        with streamvibe_server.new_database() as database, pytest.MonkeyPatch.context() as patch:
            patch.setenv("STREAMVIBE_DATABASE_URL", database.dsn)
            yield database


if __name__ == "__main__":
    _stop_at_end_of_input(sys.argv[1])
