"""Transactional jobs that are stopped: cancelled, timed out, handed back, or cut off from the database."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.integration.transactional_kit import Effects, Params, one_lane, write_effect
from tests.integration.worker_kit import NEVER, USER, at_work, event, eventually, make_worker
from tests.support.databases import Database

from streamvibe import Context, job_type
from streamvibe.worker.job_connection import JobConnection

pytestmark = pytest.mark.usefixtures("unhurried")
SOON = timedelta(milliseconds=20)
LOCK = "SELECT FROM job_queue WHERE id = %s FOR UPDATE"


@job_type("quick", transactional=True, max_attempts=1)
async def quick(ctx: Context, params: Params) -> None:
    await write_effect(ctx)


async def test_cancelling_never_waits_and_undoes_what_the_handler_wrote(database18: Database) -> None:
    """A running handler is told with CancelledError; its writes are rolled back, its lines stay."""
    written, told = asyncio.Event(), asyncio.Event()

    @job_type("lasts", transactional=True)
    async def lasts(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        ctx.log("so far")
        written.set()
        try:
            await ctx.connection.execute("SELECT pg_sleep(30)")
        except asyncio.CancelledError:
            told.set()
            raise

    queue = Effects(database18, lasts)
    async with at_work(make_worker(database18, lasts)):
        job_id = queue.request("lasts")
        await event(written, "it runs")
        queue.conn.execute("SET lock_timeout = '1s'")
        queue.cancel(job_id)
        await event(told, "the handler is told")
        await queue.until_released()
    assert queue.outcome(job_id) == ("cancelled", None, 0, [])
    assert [line["message"] for line in queue.logs(job_id)] == ["so far"]


async def test_a_job_cancelled_at_the_last_moment_has_no_effect(database18: Database) -> None:
    """Cancelled when its handler has just returned, between others of one transaction: they take effect once."""
    runs: list[int] = []
    queue: Effects

    @job_type("late", transactional=True, max_attempts=1)
    async def late(ctx: Context, params: Params) -> None:
        runs.append(params["n"])
        await write_effect(ctx)
        ctx.log(f"{params['n']}")
        if params["n"] == 3 and runs.count(3) == 1:
            await asyncio.to_thread(queue.cancel, jobs[1], jobs[2])

    queue = Effects(database18, late)
    jobs = [queue.request("late", {"n": n}) for n in range(5)]
    worker = one_lane(database18, late)
    worker._heartbeat.beat_soon = lambda: None  # type: ignore[method-assign]
    await worker.run_until_idle()
    assert [queue.outcome(job_id) for job_id in jobs] == [
        ("completed", None, 0, [""]),
        ("cancelled", None, 0, []),
        ("cancelled", None, 0, []),
        ("completed", None, 0, [""]),
        ("completed", None, 0, [""]),
    ]
    assert runs == [0, 1, 2, 3, 4, 3, 4]
    assert [len(queue.logs(job_id)) for job_id in jobs] == [1, 1, 1, 1, 1]
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_a_row_that_an_application_has_locked_stops_nobody(database18: Database, fails: bool) -> None:
    """Its effects are rolled back and it is handed back, or its failure noted, when the row is free; others go on."""

    @job_type("held", transactional=True, max_attempts=1)
    async def held(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if params["n"] == 1 and not locked:
            application.execute(LOCK, [jobs[1]])
            locked.append(True)
            if fails:
                raise ValueError("bad")

    locked: list[bool] = []
    queue = Effects(database18, held)
    with database18.connect(autocommit=False) as application:
        jobs = [queue.request("held", {"n": n}) for n in range(3)]
        async with at_work(one_lane(database18, held, poll_interval=SOON)):
            for job_id in (jobs[0], jobs[2]):
                assert (await queue.until(job_id))["status"] == "completed"
            assert queue.seen(jobs[1]) == "processing" and queue.effects(jobs[1]) == []
            assert queue.value("SELECT NOT in_transaction FROM streamvibe.claim")
            application.rollback()
            await queue.until(jobs[1])
    assert queue.outcome(jobs[1]) == (("failed", "error", 1, []) if fails else ("completed", None, 0, [""]))
    assert [len(queue.effects(job_id)) for job_id in jobs] == [1, 0 if fails else 1, 1]


@pytest.mark.parametrize("where", ["in Python", "in the database", "deaf"])
async def test_a_job_that_takes_too_long_fails_and_undoes_its_writes(
    database18: Database, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Told when its time is up, wherever it waits; one that does not listen is rolled back without being asked."""
    monkeypatch.setattr("streamvibe.worker.ticker.STOP_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("streamvibe.worker.transaction.STOP_PATIENCE_SECONDS", 0.1)
    go = asyncio.Event()

    @job_type("long", transactional=True, timeout=timedelta(milliseconds=200), max_attempts=1)
    async def long(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if where == "in the database":
            await ctx.connection.execute("SELECT pg_sleep(30)")
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                if where != "deaf":
                    raise

    queue = Effects(database18, quick, long)
    before, job_id, after = queue.request("quick"), queue.request("long"), queue.request("quick")
    async with at_work(one_lane(database18, quick, long)):
        row = await queue.until(job_id)
        for other in (before, after):
            await queue.until(other)
        go.set()
    assert (row["failure_kind"], row["error_message"]) == ("timeout", "still running after 0.2 seconds")
    assert [len(queue.effects(each)) for each in (before, job_id, after)] == [1, 0, 1]


async def test_stopping_hands_back_at_once_and_keeps_what_is_done(database18: Database) -> None:
    """Of three jobs in one transaction the first is done, the second interrupted, the third not started."""
    started = asyncio.Event()

    @job_type("stops", transactional=True)
    async def stops(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if params["n"] == 1:
            started.set()
            await asyncio.sleep(30)

    queue = Effects(database18, stops)
    jobs = [queue.request("stops", {"n": n}) for n in range(3)]
    async with at_work(one_lane(database18, stops)):
        await event(started, "the second runs")
    assert [queue.outcome(job_id) for job_id in jobs] == [
        ("completed", None, 0, [""]),
        ("pending", None, 0, []),
        ("pending", None, 0, []),
    ]
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0
    assert queue.value("SELECT count(*) FROM streamvibe.worker") == 0
    assert not any(queue.row(job_id)["isolated"] for job_id in jobs)


async def test_a_lost_connection_is_nobodys_fault(database18: Database) -> None:
    """The server ends it in the middle: nothing is charged, everything is run again and takes effect once."""
    lost: list[int] = []
    queue: Effects

    @job_type("cut", transactional=True, max_attempts=1)
    async def cut(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if params["n"] == 1 and not lost:
            lost.append(1)
            queue.conn.execute("SELECT pg_terminate_backend(%s, 5000)", [ctx.connection.info.backend_pid])
            await ctx.connection.execute("SELECT 1")

    queue = Effects(database18, cut)
    jobs = [queue.request("cut", {"n": n}) for n in range(3)]
    async with at_work(one_lane(database18, cut, poll_interval=SOON)):
        for job_id in jobs:
            await queue.until(job_id)
    assert [queue.outcome(job_id) for job_id in jobs] == [("completed", None, 0, [""])] * 3


@pytest.mark.parametrize("committed", [True, False])
async def test_an_unknown_outcome_of_commit_is_found_out(
    database18: Database, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The connection is lost while COMMIT is under way: whether it took effect or not, in the end it has, once."""
    send = JobConnection.send
    lost: list[str] = []

    async def lossy(self: JobConnection, text: str) -> Any:
        if "COMMIT" not in text or "BEGIN" in text or lost:
            return await send(self, text)
        lost.append(text)
        if committed:
            await send(self, text)
        await self.end()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(JobConnection, "send", lossy)
    queue = Effects(database18, quick)
    jobs = [queue.request("quick") for _ in range(3)]
    async with at_work(one_lane(database18, quick, poll_interval=SOON)):
        for job_id in jobs:
            await queue.until(job_id)
    assert lost
    assert [queue.outcome(job_id) for job_id in jobs] == [("completed", None, 0, [""])] * 3
    assert [queue.versions(job_id) for job_id in jobs] == (
        [["completed"]] * 3 if committed else [["pending", "completed"]] * 3
    )


async def test_an_idle_connection_that_broke_is_opened_again(database18: Database) -> None:
    """Ended by the server between two jobs: the next one runs, and is not even isolated."""
    queue = Effects(database18, quick)
    async with at_work(make_worker(database18, quick)):
        await queue.until(queue.request("quick"))
        queue.value(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name LIKE 'streamvibe transaction%%'"
        )
        job_id = queue.request("quick")
        await queue.until(job_id)
    assert queue.versions(job_id) == ["completed"]


async def test_isolated_jobs_run_alone_among_lanes_and_handlers(database18: Database) -> None:
    """Whether transactional or not, nothing else runs in the process meanwhile; everything is done in the end."""
    running: set[Any] = set()
    beside: dict[Any, int] = {}

    async def note(ctx: Context) -> None:
        running.add(ctx.job_id)
        beside[ctx.job_id] = len(running)
        await asyncio.sleep(0.01)
        beside[ctx.job_id] = max(beside[ctx.job_id], len(running))
        running.discard(ctx.job_id)

    @job_type("lane", transactional=True)
    async def lane(ctx: Context, params: Params) -> None:
        await note(ctx)

    @job_type("place")
    async def place(ctx: Context, params: Params) -> None:
        await note(ctx)

    queue = Effects(database18, lane, place)
    jobs = [queue.request(name) for _ in range(15) for name in ("lane", "place")]
    queue.conn.execute("UPDATE job_queue SET isolated = true WHERE id = ANY(%s)", [jobs[4:30:5]])
    await make_worker(database18, lane, place).run_until_idle()
    assert {queue.row(job_id)["status"] for job_id in jobs} == {"completed"}
    assert {beside[job_id] for job_id in jobs[4:30:5]} == {1}
    assert max(beside.values()) > 1


async def test_nothing_of_a_lane_is_leased_or_forgotten(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that lasts beside a worker that leases at once and looks for forgotten claims all the time."""
    monkeypatch.setattr("streamvibe.worker.fetch.FORGOTTEN_CLAIMS_SECONDS", 0.0)
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("lasts", transactional=True)
    async def lasts(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        started.set()
        await go.wait()

    @job_type("plain")
    async def plain(ctx: Context, params: Params) -> None:
        await asyncio.sleep(0.1)

    queue = Effects(database18, lasts, plain)
    worker = make_worker(database18, lasts, plain, lease_after=timedelta(0), poll_interval=SOON)
    async with at_work(worker):
        job_id = queue.request("lasts")
        await event(started, "it runs")
        for _ in range(3):
            assert (await queue.until(queue.request("plain")))["status"] == "completed"
        await eventually(lambda: queue.seen(job_id) == "processing", "it is still held")
        go.set()
        await queue.until(job_id)
    assert queue.versions(job_id) == ["completed"] and queue.effects(job_id) == [""]


async def test_a_user_cancels_while_the_transaction_of_others_is_open(database18: Database) -> None:
    """A job that is done, or not started, in a transaction that goes on is cancelled without waiting."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("gate", transactional=True)
    async def gate(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if params["n"] == 1:
            started.set()
            await go.wait()

    queue = Effects(database18, gate)
    jobs = [queue.request("gate", {"n": n}) for n in range(3)]
    async with at_work(one_lane(database18, gate, poll_interval=NEVER)):
        await event(started, "the second runs")
        queue.conn.execute("SET lock_timeout = '1s'")
        queue.conn.execute("SELECT cancel_jobs(%s, %s)", [USER, [jobs[0], jobs[2]]])
        go.set()
        await queue.until(jobs[1])
        await queue.until_released()
    assert [queue.outcome(job_id)[::3] for job_id in jobs] == [
        ("cancelled", []),
        ("completed", [""]),
        ("cancelled", []),
    ]
