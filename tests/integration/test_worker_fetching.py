"""How a worker comes by its jobs: woken or by looking, only its own types, no more than it may run."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.worker_kit import (
    DEADLINE_SECONDS,
    NEVER,
    USER,
    Queue,
    at_work,
    event,
    eventually,
    make_worker,
    run_all,
)
from tests.support.databases import Database

from streamvibe import Client, Context, StreamVibeError, Worker, job_type
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, InvalidArgument
from streamvibe.worker import statements

Params = dict[str, Any]


@job_type("any")
async def anything(ctx: Context, params: Params) -> str:
    return "done"


async def _asleep(queue: Queue, count: int = 1) -> None:
    await eventually(
        lambda: (
            queue.value("SELECT count(*) FROM streamvibe.worker WHERE asleep") == count
            and queue.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND query = 'LISTEN streamvibe_cancel' AND state = 'idle'"
            )
            == count
        ),
        "the worker is asleep and listens",
    )


async def test_a_sleeping_worker_is_woken_by_a_request(database: Database) -> None:
    """With an hour between two looks of its own, a request starts at once; again and again."""
    queue = Queue(database)
    async with at_work(make_worker(database, anything, poll_interval=NEVER, lease=NEVER)):
        for _ in range(3):
            await _asleep(queue)
            assert (await queue.until(queue.request("any")))["status"] == "completed"


async def test_a_handler_begins_before_the_next_look_is_sent(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may answer on this processor: the handler would wait for all of what it does."""
    queue = Queue(database18)
    happened: list[str] = []
    fetch = Session.fetch

    async def noted(session: Session, sql: Any, *arguments: Any, **options: Any) -> list[tuple[Any, ...]]:
        if sql != statements.CLAIM:
            return await fetch(session, sql, *arguments, **options)
        happened.append("look")
        rows = await fetch(session, sql, *arguments, **options)
        happened.append(f"found {len(rows)}")
        return rows

    monkeypatch.setattr(Session, "fetch", noted)

    @job_type("noted")
    async def begins(ctx: Context, params: Params) -> None:
        happened.append("handler")

    async with at_work(make_worker(database18, begins, poll_interval=NEVER, lease=NEVER)):
        await _asleep(queue)
        await queue.until(queue.request("noted"))
    assert happened[happened.index("found 1") + 1] == "handler"


async def test_every_request_around_falling_asleep_is_found(database18: Database) -> None:
    """A hundred requests, each made the moment the one before is done, when the worker is about to sleep."""
    queue = Queue(database18)
    async with at_work(make_worker(database18, anything, poll_interval=NEVER, lease=NEVER)):
        await _asleep(queue)
        for _ in range(100):
            await queue.until(queue.request("any"))


async def test_a_request_between_the_look_and_the_sleep_is_found(database18: Database) -> None:
    """Asked for after the worker looked in vain and before it says that it sleeps, which sends no wake-up."""
    holding = asyncio.Event()
    started = asyncio.Event()

    @job_type("gated")
    async def gated(ctx: Context, params: Params) -> str:
        started.set()
        await holding.wait()
        return "done"

    queue = Queue(database18)
    async with at_work(make_worker(database18, gated, concurrency=1, poll_interval=NEVER, lease=NEVER)):
        await _asleep(queue)
        first = queue.request("gated")
        await event(started, "the first job starts")
        with database18.connect(autocommit=False) as keeper:
            # Saying that it sleeps is an update of this row.
            keeper.execute("SELECT FROM streamvibe.worker FOR NO KEY UPDATE")
            holding.set()
            await queue.until(first)
            await eventually(
                lambda: queue.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name LIKE 'streamvibe claim %' AND wait_event_type = 'Lock'"
                ),
                "the worker has looked in vain",
            )
            second = queue.request("gated")
        await queue.until(second)


async def test_without_listen_a_worker_polls(database18: Database) -> None:
    """A connection for LISTEN that cannot be made costs only time."""
    queue = Queue(database18)
    broken = f"{database18.dsn}&port=1"
    async with at_work(
        make_worker(database18, anything, listen_dsn=broken, poll_interval=timedelta(milliseconds=20))
    ):
        await eventually(lambda: queue.value("SELECT count(*) FROM streamvibe.worker WHERE asleep"), "idle")
        assert (await queue.until(queue.request("any")))["status"] == "completed"


async def test_what_was_asked_for_while_nobody_listened_is_found(database18: Database) -> None:
    """The connection that listens is killed again and again: every job is found when it comes back."""
    queue = Queue(database18)
    async with at_work(make_worker(database18, anything, poll_interval=NEVER, lease=NEVER)):
        await _asleep(queue)
        for _ in range(3):
            queue.conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'streamvibe listen %'"
            )
            await queue.until(queue.request("any"))
            await _asleep(queue)


async def test_workers_take_only_their_own_types(database18: Database) -> None:
    """Two workers, two types: each runs its own; a type that nobody has stays pending."""
    ran: list[tuple[str, str]] = []

    def types_of(worker: str) -> Any:
        @job_type(worker)
        async def handler(ctx: Context, params: Params) -> None:
            ran.append((worker, ctx.job_type))

        return handler

    first, second, nobody = types_of("first"), types_of("second"), types_of("nobody")
    queue = Queue(database18)
    queue.register(nobody)
    async with at_work(make_worker(database18, first)), at_work(make_worker(database18, second)):
        await _asleep(queue, 2)
        jobs = [queue.request(name) for name in ["first", "second"] * 20]
        left = queue.request("nobody", priority=9)
        for job_id in jobs:
            await queue.until(job_id)
    assert sorted(ran) == [("first", "first")] * 20 + [("second", "second")] * 20
    assert queue.seen(left) == "pending"


async def test_no_more_handlers_run_than_allowed(database18: Database) -> None:
    """Async handlers and threads together never pass the limit, and reach it."""
    lock = threading.Lock()
    running, most = 0, 0
    full, gate = threading.Event(), threading.Event()

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    @job_type("plain")
    def plain(ctx: Context, params: Params) -> None:
        enter()
        gate.wait(DEADLINE_SECONDS)
        leave()

    @job_type("async")
    async def asynchronous(ctx: Context, params: Params) -> None:
        enter()
        await asyncio.to_thread(gate.wait, DEADLINE_SECONDS)
        leave()

    queue = Queue(database18)
    queue.register(plain, asynchronous)
    for _ in range(15):
        queue.request("plain")
        queue.request("async")

    def open_gate() -> None:
        assert full.wait(DEADLINE_SECONDS)
        for _ in range(50):  # in this many round trips a fourth would have started
            queue.value("SELECT 1")
        gate.set()

    opening = asyncio.create_task(asyncio.to_thread(open_gate))
    assert await run_all(database18, plain, asynchronous, concurrency=3) == 30
    await opening
    assert most == 3


async def test_run_until_idle_runs_what_its_handlers_ask_for(database18: Database) -> None:
    """A handler may request a job of this worker and wait for it; the same worker may be run again."""

    @job_type("parent")
    async def parent(ctx: Context, params: Params) -> str:
        async with Client(database18.dsn) as client:
            requested = await client.request("any", {"for": str(ctx.job_id)}, user_id=USER)
            await client.wait(requested.job_id, timeout=DEADLINE_SECONDS)
        return "both"

    queue = Queue(database18)
    worker = make_worker(database18, parent, anything)
    queue.register(parent, anything)
    job_id = queue.request("parent")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await worker.run_until_idle() == 2
        assert await worker.run_until_idle() == 0
        queue.request("any")
        assert await worker.run_until_idle() == 1
    assert queue.row(job_id)["result"] == "both"


async def test_run_until_idle_finds_what_fell_due_during_its_last_look(database18: Database) -> None:
    """An attempt whose failure is written while the last look is under way is followed by the next attempt."""
    started, fail = asyncio.Event(), asyncio.Event()

    @job_type("flaky", backoff_base=timedelta(0), backoff_max=timedelta(0))
    async def flaky(ctx: Context, params: Params) -> None:
        started.set()
        await fail.wait()
        if ctx.attempt == 1:
            raise OSError("once")

    queue = Queue(database18)
    queue.register(flaky)
    job_id = queue.request("flaky")
    worker = make_worker(database18, flaky, lease_after=NEVER)
    running = asyncio.create_task(worker.run_until_idle())
    await event(started, "the first attempt starts")
    await eventually(lambda: queue.value("SELECT asleep FROM streamvibe.worker"), "nothing else is due")
    with database18.connect(autocommit=False) as keeper:
        # The next look has read the clock when it waits for this lock.
        keeper.execute("SELECT FROM streamvibe.worker FOR UPDATE")
        fail.set()
        await eventually(
            lambda: queue.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'streamvibe claim %' AND wait_event_type = 'Lock'"
            ),
            "the last look is under way",
        )
        await eventually(lambda: queue.row(job_id)["retry_count"] == 1, "the failure is written")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await running
    assert queue.row(job_id)["status"] == "completed"


@pytest.mark.parametrize("steps", range(16))
async def test_a_worker_can_be_told_to_stop_at_any_moment(database18: Database, steps: int) -> None:
    """So many steps of the event loop after it was woken for nothing: with an hour between two looks, at once."""
    queue = Queue(database18)
    worker = make_worker(database18, anything, poll_interval=NEVER)
    async with at_work(worker):
        await _asleep(queue)
        await eventually(
            lambda: queue.value(
                "SELECT state = 'idle' AND state_change < clock_timestamp() - interval '30 ms' FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'streamvibe claim %'"
            ),
            "it waits to be woken",
        )
        worker._woken()  # as a notification does
        for _ in range(steps):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"job_types": []}, "job_types"),
        ({"job_types": [anything, anything]}, "job_types"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 10_001}, "concurrency"),
        ({"poll_interval": timedelta(0)}, "poll_interval"),
        ({"lease": timedelta(milliseconds=100)}, "lease"),
        ({"worker_id": "x" * 201}, "worker_id"),
    ],
)
async def test_a_worker_refuses_options_it_cannot_keep(
    database18: Database, options: dict[str, Any], field: str
) -> None:
    """Each is refused when the worker is made or run, names its field, and leaves no connection behind."""
    job_types = options.pop("job_types", [anything])
    with pytest.raises(InvalidArgument) as caught:
        await Worker(database18.dsn, job_types, **options).run()
    assert caught.value.field == field and caught.value.fix
    queue = Queue(database18)
    await eventually(
        lambda: queue.value(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend'"
        ),
        "only this test is connected",
    )


async def test_a_worker_that_cannot_start_says_why(database18: Database) -> None:
    """No server, or a role that is not the service: the error names it, and no thread goes on."""
    with pytest.raises(DatabaseUnreachable):
        await Worker("postgresql://postgres@127.0.0.1:1/x", [anything]).run()
    with pytest.raises(StreamVibeError, match="service_role"):
        await Worker(f"{database18.dsn}&options=-c%20role%3Danon", [anything]).run()
    assert not [thread for thread in threading.enumerate() if thread.name == "streamvibe-heartbeat"]


async def test_two_jobs_one_place(database18: Database) -> None:
    """With one place the second job starts when the first is over, though nothing wakes or polls."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("first")
    async def first(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    queue = Queue(database18)
    async with at_work(make_worker(database18, first, anything, concurrency=1, poll_interval=NEVER)):
        await _asleep(queue)
        queue.request("first")
        await event(started, "the first starts")
        second = queue.request("any")
        go.set()
        await queue.until(second)


async def test_a_claim_takes_no_more_than_200(database18: Database) -> None:
    """However many places are free, so an urgent job waits for the start of 200 others at most."""
    queue = Queue(database18)
    holding = asyncio.Event()

    @job_type("many")
    async def many(ctx: Context, params: Params) -> str:
        await holding.wait()
        return "done"

    queue.register(many)
    async with Client(database18.dsn) as client:
        await client.create_many(
            {"user_id": USER, "job_type": "many", "params": {"n": n}} for n in range(500)
        )
    async with at_work(make_worker(database18, many, concurrency=1000, lease=NEVER)):
        claims = "SELECT count(*) FROM streamvibe.claim WHERE cardinality(job_ids) BETWEEN 1 AND 200"
        jobs = "SELECT coalesce(sum(cardinality(job_ids)), 0) FROM streamvibe.claim"
        await eventually(lambda: queue.value(jobs) == 500, "all jobs are claimed")
        assert queue.value(claims) == queue.value("SELECT count(*) FROM streamvibe.claim") == 3
        holding.set()


async def test_ends_that_cannot_be_written_hold_up_no_others(database18: Database) -> None:
    """While somebody has one claim locked, and the statement that ends its jobs waits, others' ends are written."""
    queue = Queue(database18)
    holding = asyncio.Event()
    started = asyncio.Event()

    @job_type("first")
    async def first(ctx: Context, params: Params) -> str:
        started.set()
        await holding.wait()
        return "done"

    queue.register(first, anything)
    async with at_work(make_worker(database18, first, anything, concurrency=10, lease=NEVER)):
        stuck = queue.request("first")
        await event(started, "the first job starts")
        with database18.connect() as other, other.transaction():
            other.execute("SELECT FROM streamvibe.claim FOR UPDATE")
            holding.set()
            await asyncio.sleep(0.2)
            for _ in range(10):
                for job_id in [queue.request("any") for _ in range(5)]:
                    assert (await queue.until(job_id))["status"] == "completed"
            assert queue.seen(stuck) == "processing"
        assert (await queue.until(stuck))["status"] == "completed"
