"""A database that the tests of one server share, emptied after each: its sessions have every function planned."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from psycopg import Connection
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server

OURS = (
    "claim",
    "worker",
    "account",
    "idempotency",
    "staging",
    "setting",
    "stat_delta",
    "stat",
    "stat_sketch",
    "dropped_leaf",
    "counter",
    "counter_note",
    "pause",
    "duty",
    "duty_run",
    "report",
    "leaving_job",
    "archive_file",
    "erasure",
)
# Leaves of the past are made by single tests.
DROP_OLD_LEAVES = """
DO $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN
        DELETE FROM streamvibe.partition WHERE upper_at <= pg_catalog.now() RETURNING partition_name
    LOOP
        EXECUTE pg_catalog.format('DROP TABLE streamvibe.%I', v_name);
    END LOOP;
END
$$
"""
EMPTY = (
    DROP_OLD_LEAVES,
    *(f"DELETE FROM public.{table}" for table in ("job_log", "job_queue")),
    *(f"DELETE FROM streamvibe.{table}" for table in OURS),
    "DELETE FROM streamvibe.job_type",
    "UPDATE streamvibe.leader SET leader_id = NULL, expires_at = '-infinity'",
    "UPDATE streamvibe.archiver SET holder = NULL, expires_at = '-infinity'",
    "INSERT INTO streamvibe.setting DEFAULT VALUES",
)


class Queue:
    """A migrated database, a superuser's session `conn`, and a session of the API's role for users."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect()
        self.service = database.as_service()
        self._api = database.connect("authenticated")
        self.clear()

    def as_user(self, user_id: UUID | None) -> Connection[Any]:
        """The API's session, signed in as this user from now on; None: nobody."""
        claims = "" if user_id is None else orjson.dumps({"sub": str(user_id)}).decode()
        self._api.execute("SELECT pg_catalog.set_config('request.jwt.claims', %s, false)", [claims])
        return self._api

    def advance(self, by: timedelta) -> None:
        """Move the clock; for the fixture `clocked` only."""
        self.conn.execute("UPDATE streamvibe.test_clock SET shift = shift + %s", [by])

    def clear(self) -> None:
        """Delete all rows, settings and job types; what a slow look remembered (low_water) was of other jobs."""
        for statement in EMPTY:
            self.conn.execute(statement.encode())
        for conn in (self.conn, self.service):
            conn.execute("SELECT pg_catalog.set_config('streamvibe.low_water', '', false)")


@pytest.fixture(scope="session")
def shared_queue(server: Server) -> Iterator[Queue]:
    """The database behind `queue`."""
    with new_database(server, TEMPLATE) as database:
        yield Queue(database)


@pytest.fixture(scope="session")
def shared_clocked_queue(server: Server) -> Iterator[Queue]:
    """The database behind `clocked`."""
    with new_database(server, TEMPLATE) as database:
        database.advance_clock(timedelta())
        yield Queue(database)


@pytest.fixture
def queue(shared_queue: Queue) -> Iterator[Queue]:
    """The shared database, empty."""
    with contextlib.ExitStack() as after:
        after.callback(shared_queue.clear)
        yield shared_queue


@pytest.fixture
def clocked(shared_clocked_queue: Queue) -> Iterator[Queue]:
    """The same with a clock that a test can move; it goes back afterwards."""
    with contextlib.ExitStack() as after:
        after.callback(shared_clocked_queue.clear)
        after.callback(shared_clocked_queue.conn.execute, b"UPDATE streamvibe.test_clock SET shift = '0'")
        yield shared_clocked_queue
