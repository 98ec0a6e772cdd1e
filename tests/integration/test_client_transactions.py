"""The clients inside callers' own transactions, without a partition, and without a database."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import IsolationLevel
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe import Client, Context, LimitReached, Outcome, SyncClient, job_type
from streamvibe.errors import (
    ConfigurationError,
    DatabaseUnreachable,
    IsolationNotSupported,
    PartitionMissing,
    UnknownJobType,
)
from streamvibe.model import NewJob

USER = UUID("018f0000-0000-7000-8000-000000000001")


def note(ctx: Context, params: dict[str, int]) -> None:
    """A handler that is never run."""


def count(database: Database) -> int:
    """How many jobs there are, as a session sees it that had no part in making them."""
    found = database.fetch_value("SELECT count(*) FROM job_queue")
    assert isinstance(found, int)
    return found


@pytest.fixture(autouse=True)
def note_type(database: Database) -> None:
    """A job type named note."""
    database.connect().execute("SELECT register_job_type('note')")


def use_everything(client: SyncClient, connection: psycopg.Connection) -> None:
    """Call each method that takes a connection."""
    asked = client.request("note", {"n": 1}, user_id=USER, connection=connection)
    client.create_many([NewJob(USER, "note", {"n": n}) for n in range(2, 4)], connection=connection)
    assert len(client.list(USER, connection=connection).items) == 3
    assert len(client.list_by_cursor(USER, connection=connection).items) == 3
    assert client.get(asked.job_id, connection=connection).params == {"n": 1}
    assert client.result(asked.job_id, connection=connection).result is None
    assert client.logs(asked.job_id, connection=connection).items == []
    assert client.cancel(asked.job_id, user_id=USER, connection=connection)[0].outcome == "cancelled"
    assert client.retry(asked.job_id, user_id=USER, connection=connection)[0].outcome == "not_failed"
    assert client.stats(connection=connection).total_jobs == 3
    client.set_user_limit(USER, 20, connection=connection)


async def use_everything_async(client: Client, connection: psycopg.AsyncConnection) -> None:
    """The same, asynchronously."""
    asked = await client.request("note", {"n": 1}, user_id=USER, connection=connection)
    await client.create_many([NewJob(USER, "note", {"n": n}) for n in range(2, 4)], connection=connection)
    assert len((await client.list(USER, connection=connection)).items) == 3
    assert len((await client.list_by_cursor(USER, connection=connection)).items) == 3
    assert (await client.get(asked.job_id, connection=connection)).params == {"n": 1}
    assert (await client.result(asked.job_id, connection=connection)).result is None
    assert (await client.logs(asked.job_id, connection=connection)).items == []
    assert (await client.cancel(asked.job_id, user_id=USER, connection=connection))[0].outcome == "cancelled"
    assert (await client.retry(asked.job_id, user_id=USER, connection=connection))[0].outcome == "not_failed"
    assert (await client.stats(connection=connection)).total_jobs == 3
    await client.set_user_limit(USER, 20, connection=connection)


def test_nothing_is_committed_on_the_callers_connection(database: Database) -> None:
    """What a call does with connection= is there only once the caller commits, and gone when they roll back."""
    client = SyncClient(f"postgresql:///nowhere?host={database.server.home}/none")
    connection = database.connect(autocommit=False)
    use_everything(client, connection)
    assert count(database) == 0
    connection.rollback()
    assert count(database) == 0
    use_everything(client, connection)
    connection.commit()
    assert count(database) == 3


async def test_nothing_is_committed_on_the_callers_asynchronous_connection(database: Database) -> None:
    """The same for asynchronous code."""
    client = Client(f"postgresql:///nowhere?host={database.server.home}/none")
    connection = await database.aconnect(autocommit=False)
    await use_everything_async(client, connection)
    assert count(database) == 0
    await connection.rollback()
    assert count(database) == 0
    await use_everything_async(client, connection)
    await connection.commit()
    assert count(database) == 3


def test_a_callers_autocommit_connection_and_row_factory_are_respected(database: Database) -> None:
    """Bulk creation is one transaction on an autocommit connection too, and rows of any shape are fine."""
    client = SyncClient(database.dsn)
    connection = database.connect(autocommit=True, row_factory=psycopg.rows.dict_row)
    outcomes = client.create_many([{"user_id": USER, "job_type": "note"}], connection=connection)
    assert [(made.ordinal, made.outcome) for made in outcomes] == [(1, "created")]
    assert client.get(outcomes[0].job_id or "", connection=connection).params == {}
    with pytest.raises(UnknownJobType):
        client.create_many([{"user_id": USER, "job_type": "nope"}], connection=connection)
    assert database.fetch_value("SELECT count(*) FROM streamvibe.staging") == 0


async def test_the_callers_kind_of_cursor_is_respected(database: Database) -> None:
    """Cursors that cannot read answers in binary work as well."""
    connection = database.connect(autocommit=False, cursor_factory=psycopg.ClientCursor)
    use_everything(SyncClient(), connection)
    connection.rollback()
    other = await database.aconnect(autocommit=False, cursor_factory=psycopg.AsyncClientCursor)
    await use_everything_async(Client(), other)


def test_the_callers_search_path_does_not_matter(database: Database) -> None:
    """Every call names its functions in full."""
    connection = database.connect(autocommit=True)
    connection.execute("SET search_path = ''")
    client = SyncClient(database.dsn)
    client.register(job_type("note")(note), connection=connection)
    use_everything(client, connection)


def test_a_refusal_can_be_survived_in_a_nested_transaction(database: Database) -> None:
    """A refused call inside connection.transaction() leaves the caller's own work as it was."""
    with SyncClient(database.dsn) as client:
        connection = database.connect(autocommit=False)
        client.set_user_limit(USER, 1)
        client.request("note", {"n": 1}, user_id=USER, connection=connection)
        with pytest.raises(LimitReached), connection.transaction():
            client.request("note", {"n": 2}, user_id=USER, connection=connection)
        connection.commit()
    assert count(database) == 1


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_frozen_snapshot_is_refused(database: Database, level: IsolationLevel) -> None:
    """Dedupe, cache and limit cannot be exact there; with all three off the call is taken."""
    client = SyncClient(database.dsn)
    connection = database.connect(autocommit=False)
    connection.isolation_level = level
    with pytest.raises(IsolationNotSupported) as caught:
        client.request("note", user_id=USER, connection=connection)
    assert caught.value.received == level.name.lower().replace("_", " ")
    connection.rollback()
    asked = client.request(
        "note",
        user_id=USER,
        force=True,
        dedupe_window=timedelta(0),
        enforce_limit=False,
        connection=connection,
    )
    connection.commit()
    assert (asked.outcome, count(database)) == (Outcome.CREATED, 1)


async def test_a_missing_partition_is_made_and_the_call_tried_again(
    client: Client, database: Database
) -> None:
    """A request and a bulk creation past the last partition succeed; nothing is made twice."""
    database.advance_clock(timedelta(days=100))
    made = await client.create_many(NewJob(USER, "note", {"n": n}) for n in range(3))
    database.advance_clock(timedelta(days=100))
    asked = await client.request("note", {"n": 9}, user_id=USER, enforce_limit=False)
    assert ([one.outcome for one in made], asked.outcome) == (["created"] * 3, Outcome.CREATED)
    assert count(database) == 4


async def test_a_callers_transaction_is_never_tried_again(client: Client, database: Database) -> None:
    """With connection= a missing partition is the caller's to handle: the error names the way out."""
    database.advance_clock(timedelta(days=100))
    with SyncClient(database.dsn) as plain:
        connection = database.connect(autocommit=False)
        with pytest.raises(PartitionMissing, match="ensure_partitions"):
            plain.request("note", user_id=USER, connection=connection)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
    assert count(database) == 0


def test_no_database_is_an_error_of_its_own_at_once(tmp_path: Path) -> None:
    """A database that cannot be reached raises DatabaseUnreachable with the reason, long before pool_timeout."""
    client = SyncClient(f"postgresql://app:hunter2@/app?host={tmp_path}", pool_timeout=300)
    with pytest.raises(DatabaseUnreachable, match="No such file or directory") as caught:
        client.stats()
    assert caught.value.exit_status == 3
    assert "hunter2" not in f"{caught.value} {client!r}"
    assert "postgresql://app:***@" in repr(client)


async def test_no_database_is_an_error_in_asynchronous_code(tmp_path: Path) -> None:
    """The same for asynchronous code."""
    with pytest.raises(DatabaseUnreachable, match="No such file or directory"):
        await Client(f"postgresql:///app?host={tmp_path}", pool_timeout=300).stats()


async def test_a_database_without_our_schema_says_what_to_run(empty_database: Database) -> None:
    """A missing function is reported as a missing migration."""
    async with Client(empty_database.dsn) as client:
        for call in (client.stats(), client.request("note", user_id=USER), client.get(uuid4())):
            with pytest.raises(ConfigurationError, match="streamvibe migrate"):
                await call


async def test_connections_that_died_in_the_pool_are_not_used(client: Client, database: Database) -> None:
    """After the server closed every idle connection, as in a restart, the next call works."""
    await asyncio.gather(*(client.stats() for _ in range(5)))
    killer = database.connect()
    killed = killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchall()
    assert killed
    wait_until(
        lambda: (
            killer.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
            == (0,)
        ),
        "the connections' end",
    )
    assert (await client.stats()).total_jobs == 0


async def test_a_full_pool_says_so(database18: Database) -> None:
    """Waiting in vain for a connection of one's own pool is told apart from a dead database."""
    async with Client(database18.dsn, max_size=1, pool_timeout=0.2) as client:
        await client.stats()
        locker = await database18.aconnect(autocommit=False)
        await locker.execute("LOCK TABLE public.job_queue IN ACCESS EXCLUSIVE MODE")
        blocked = asyncio.create_task(client.stats())
        await asyncio.to_thread(
            wait_until,
            lambda: database18.fetch_value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1,
            "the wait for the lock",
        )
        with pytest.raises(DatabaseUnreachable, match="max_size") as caught:
            await client.stats()
        assert caught.value.received == "1 connections, all in use for 0.2 s"
        await locker.rollback()
        assert (await blocked).total_jobs == 0


async def test_a_closed_client_opens_again(database18: Database) -> None:
    """close() gives the connections back; the next call makes new ones."""
    client = Client(database18.dsn)
    await client.stats()
    await client.close()
    assert (await client.stats()).total_jobs == 0
    await client.close()
    await client.close()
    plain = SyncClient(database18.dsn)
    plain.stats()
    plain.close()
    with plain:
        assert plain.stats().total_jobs == 0
