"""Requests made at the same time by one Client: each has its own answer, and waits for nobody else's user."""

import asyncio
from collections import Counter
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.support.databases import Database

from streamvibe import Client, Outcome
from streamvibe.errors import DatabaseUnreachable, InvalidArgument, LimitReached, UnknownJobType


def _count(database: Database) -> int:
    [count] = database.connect().execute("SELECT count(*) FROM job_queue").fetchone() or (0,)
    return int(count)


async def test_two_hundred_at_once(database: Database) -> None:
    """Of 200 identical requests one is created and 199 join it; of 200 different ones 10 are, and 190 are refused."""
    async with Client(database.dsn, max_size=4) as client:
        database.connect().execute("SELECT register_job_type('note')")
        user_id, other = uuid4(), uuid4()
        same = await asyncio.gather(
            *(client.request("note", {"n": 1}, user_id=user_id) for _ in range(200)),
        )
        assert Counter(asked.outcome for asked in same) == {Outcome.CREATED: 1, Outcome.JOINED: 199}
        assert len({asked.job_id for asked in same}) == 1
        different = await asyncio.gather(
            *(client.request("note", {"n": n}, user_id=other) for n in range(200)),
            return_exceptions=True,
        )
    refused = [asked for asked in different if isinstance(asked, LimitReached)]
    assert (len(different) - len(refused), len(refused)) == (10, 190)
    assert {(error.field, error.received) for error in refused} == {("user_id", str(other))}
    assert all(error.fix and "10" in error.fix for error in refused)
    assert _count(database) == 11


async def test_few_transactions(database: Database) -> None:
    """A hundred requests at once take a handful of transactions, each answer belonging to its own request."""
    conn = database.connect()
    conn.execute("SELECT register_job_type('note')")
    conn.execute("CREATE TABLE public.seen (transaction xid8)")
    _on_insert(conn, "INSERT INTO public.seen VALUES (pg_current_xact_id());")
    async with Client(database.dsn) as client:
        users = [uuid4() for _ in range(100)]
        asked = await asyncio.gather(
            *(client.request("note", {"n": n}, user_id=user) for n, user in enumerate(users))
        )
        for n, (one, user) in enumerate(zip(asked, users, strict=True)):
            job = await client.get(one.job_id)
            assert (job.user_id, job.params) == (user, {"n": n})
    [made] = conn.execute("SELECT count(DISTINCT transaction) FROM seen").fetchone() or (0,)
    assert 1 < made < 20


async def test_what_cannot_be_asked_for_spoils_nothing(database: Database) -> None:
    """Errors of all kinds reach those who made them, as they would alone."""
    async with Client(database.dsn) as client:
        database.connect().execute("SELECT register_job_type('note')")
        calls: list[Any] = [client.request("note", {"n": n}, user_id=uuid4()) for n in range(20)]
        calls += [
            client.request("typo", {}, user_id=uuid4()),
            client.request("note", {}, user_id=uuid4(), priority=11),
            client.request("note", {}, user_id=uuid4(), idempotency_key="k" * 300),
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
        [unknown, priority, key] = found[20:]
        assert isinstance(unknown, UnknownJobType) and unknown.received == "typo"
        assert isinstance(priority, InvalidArgument) and (priority.field, priority.received) == (
            "priority",
            "11",
        )
        assert isinstance(key, InvalidArgument) and key.field == "idempotency_key"
        alone = await asyncio.gather(client.request("typo", {}, user_id=uuid4()), return_exceptions=True)
        assert str(alone[0]) == str(unknown)
    assert _count(database) == 20


async def test_what_the_server_refuses_for_one_is_done_for_the_others(database: Database) -> None:
    """An error that undoes the common transaction reaches only the one that brings it about."""
    conn = database.connect()
    conn.execute("SELECT register_job_type('note')")
    _on_insert(conn, "IF NEW.params ? 'stop' THEN RAISE 'stopped'; END IF;")
    async with Client(database.dsn) as client:
        calls = [
            client.request("note", {"stop": 1} if n == 15 else {"n": n}, user_id=uuid4()) for n in range(30)
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, one in enumerate(found) if isinstance(one, BaseException)] == [15]
    assert isinstance(found[15], psycopg.errors.RaiseException)
    assert _count(database) == 29


async def test_nobody_waits_for_another_users_lock(database: Database) -> None:
    """While others' transactions hold the locks of five users, whose requests wait, everybody else's go on."""
    database.connect().execute("SELECT register_job_type('note')")
    locked = [uuid4() for _ in range(5)]
    async with Client(database.dsn) as client:
        with database.connect() as other, other.transaction():
            for user_id in locked:
                other.execute("SELECT request_job(%s, 'note', '{}')", [user_id])
            waiting = []
            for user_id in locked:
                # One after the other: each goes alone, as long as that is allowed.
                waiting.append(asyncio.ensure_future(client.request("note", {"n": 1}, user_id=user_id)))
                await asyncio.sleep(0.02)
            free = await asyncio.wait_for(
                asyncio.gather(*(client.request("note", {}, user_id=uuid4()) for _ in range(40))), 60
            )
            assert {asked.outcome for asked in free} == {Outcome.CREATED}
            assert not any(asked.done() for asked in waiting)
        assert {asked.outcome for asked in await asyncio.gather(*waiting)} == {Outcome.CREATED}


async def test_one_after_the_other(database: Database) -> None:
    """Who asks for one thing after the other asks without a task in between; one that waits then keeps nobody."""
    database.connect().execute("SELECT register_job_type('note')")
    held = database.connect()
    user = uuid4()
    async with Client(database.dsn, application_name="together") as client:
        for n in range(3):
            await client.request("note", {"n": n}, user_id=user)
        held.execute("BEGIN")
        held.execute("SELECT * FROM request_job(%s, 'note', '{\"n\": 4}')", [user])
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(client.request("note", {"n": 5}, user_id=user))
        await _until(database.connect(), 1)
        assert asyncio.all_tasks() - before == {waiting}
        for _ in range(3):
            made = await asyncio.gather(*(client.request("note", {}, user_id=uuid4()) for _ in range(20)))
            assert {asked.outcome for asked in made} == {Outcome.CREATED}
        assert not waiting.done()
        held.execute("ROLLBACK")
        assert (await waiting).outcome is Outcome.CREATED
        # Nothing of it is left that would keep the next from going at once.
        assert (await client.request("note", {}, user_id=user)).outcome is Outcome.CREATED


async def test_more_waiting_requests_than_connections(database: Database) -> None:
    """Forty requests of users whose locks are held take no connections that others need; later they are made."""
    database.connect().execute("SELECT register_job_type('note')")
    locked = [uuid4() for _ in range(4)]
    async with Client(database.dsn, max_size=4, pool_timeout=20) as client:
        with database.connect() as other, other.transaction():
            for user_id in locked:
                other.execute("SELECT request_job(%s, 'note', '{}')", [user_id])
            waiting = [
                asyncio.ensure_future(client.request("note", {"n": 1}, user_id=locked[n % 4]))
                for n in range(40)
            ]
            await asyncio.sleep(0.05)
            for _ in range(5):
                asked = await asyncio.wait_for(client.request("note", {}, user_id=uuid4()), 15)
                assert asked.outcome == Outcome.CREATED
            assert not any(asked.done() for asked in waiting)
        outcomes = Counter(asked.outcome for asked in await asyncio.gather(*waiting))
    assert outcomes == {Outcome.CREATED: 4, Outcome.JOINED: 36}


def test_one_client_in_two_event_loops(database18: Database) -> None:
    """Closed in one, it works in the next: also when the last request of the first was just answered."""
    database18.connect().execute("SELECT register_job_type('note')")
    client = Client(database18.dsn)
    locked = [uuid4() for _ in range(2)]

    async def first() -> None:
        async with client:
            await asyncio.gather(*(client.request("note", {}, user_id=uuid4()) for _ in range(9)))

    async def second(other: psycopg.Connection[Any]) -> None:
        async with client:
            with other.transaction():
                for user_id in locked:
                    other.execute("SELECT request_job(%s, 'note', '{}')", [user_id])
                waiting = [
                    asyncio.ensure_future(client.request("note", {"n": 1}, user_id=user)) for user in locked
                ]
                await asyncio.sleep(0.05)
                await asyncio.wait_for(client.request("note", {}, user_id=uuid4()), 20)
            await asyncio.gather(*waiting)

    asyncio.run(first())
    with database18.connect() as other:
        asyncio.run(second(other))
    assert _count(database18) == 14


async def test_a_user_who_is_not_the_service(database: Database) -> None:
    """A client that acts as a signed-in user, who may not ask for several at once, asks for one at a time."""
    database.connect().execute("SELECT register_job_type('note')")
    user_id = uuid4()
    claims = f'{{"sub":"{user_id}"}}'
    dsn = make_conninfo(database.dsn, options=f"-c role=authenticated -c request.jwt.claims={claims}")
    async with Client(dsn) as client:
        for _ in range(2):
            calls = [client.request("note", {"n": n % 5}, user_id=user_id) for n in range(20)]
            asked = await asyncio.gather(*calls)
    assert len({one.job_id for one in asked}) == _count(database) == 5


async def test_who_stops_waiting_does_not_ask(database: Database) -> None:
    """A request that is cancelled before its turn comes is not made; those beside it are."""
    database.connect().execute("SELECT register_job_type('note')")
    async with Client(database.dsn) as client:
        await client.request("note", {}, user_id=uuid4())
        tasks = [asyncio.ensure_future(client.request("note", {}, user_id=uuid4())) for _ in range(30)]
        await asyncio.sleep(0)
        tasks[20].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, one in enumerate(found) if isinstance(one, BaseException)] == [20]
    assert _count(database) == 30


async def test_who_gives_up_frees_the_connection(database: Database) -> None:
    """Requests that wait for a lock and are given up leave no statement behind that waits on."""
    conn = database.connect()
    conn.execute("SELECT register_job_type('note')")
    async with Client(database.dsn, application_name="together", max_size=3) as client:
        with database.connect() as other, other.transaction():
            other.execute("LOCK TABLE public.job_queue IN SHARE MODE")
            for _ in range(4):
                tasks = [asyncio.ensure_future(client.request("note", {}, user_id=uuid4())) for _ in range(6)]
                await _until(conn, 1)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await _until(conn, 0)
        assert (await client.request("note", {}, user_id=uuid4())).outcome == Outcome.CREATED
    assert _count(database) == 1


async def test_a_lost_connection_is_told_to_all_it_concerns(database: Database) -> None:
    """What was under way on a connection that dies raises DatabaseUnreachable; the next request works."""
    conn = database.connect()
    conn.execute("SELECT register_job_type('note')")
    async with Client(database.dsn, application_name="together") as client:
        await client.request("note", {}, user_id=uuid4())
        with database.connect() as other, other.transaction():
            # Reading goes on; asking waits for this transaction.
            other.execute("LOCK TABLE public.job_queue IN SHARE MODE")
            tasks = [asyncio.ensure_future(client.request("note", {}, user_id=uuid4())) for _ in range(10)]
            await _until(conn, 2)
            conn.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'together'"
            )
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in found} == {DatabaseUnreachable}
        assert (await client.request("note", {}, user_id=uuid4())).outcome == Outcome.CREATED
    assert _count(database) == 2


async def _until(conn: psycopg.Connection[Any], waiting: int) -> None:
    """Until so many transactions of the client wait for a lock."""
    for _ in range(3000):
        [count] = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'together' AND wait_event_type = 'Lock'"
        ).fetchone() or (0,)
        if count >= waiting > 0 or count == waiting:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not {waiting} transactions wait for a lock")


def _on_insert(conn: psycopg.Connection[Any], does: LiteralString) -> None:
    """An operator's trigger."""
    conn.execute(
        "CREATE FUNCTION public.at_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN " + does + " RETURN NEW; END $$"
    )
    conn.execute(
        "CREATE TRIGGER at_insert BEFORE INSERT ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.at_insert()"
    )
