"""A worker that shuts down: what it waits for, what it hands back, and what it cannot be kept from."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from tests.integration.worker_kit import NEVER, Queue, at_work, event, eventually, make_worker, run_all
from tests.support.databases import Database

from streamvibe import Context, job_type

Params = dict[str, Any]
THREAD_SECONDS = 30


async def _forever() -> None:
    await asyncio.Event().wait()


async def test_shutdown_lets_running_jobs_end_within_the_grace(database18: Database) -> None:
    """stop() claims no more; a job that ends within the grace is completed."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("long")
    async def long(ctx: Context, params: Params) -> str:
        started.set()
        await go.wait()
        return "in time"

    queue = Queue(database18)
    worker = make_worker(database18, long, grace=NEVER)
    async with at_work(worker) as task:
        queue.register(long)
        job_id = queue.request("long")
        await event(started, "the handler starts")
        worker.stop()
        later = queue.request("long")
        for _ in range(50):  # in this many round trips a worker without patience would have interrupted it
            await asyncio.to_thread(queue.value, "SELECT 1")
        go.set()
        async with asyncio.timeout(10):
            await task
    assert queue.row(job_id)["result"] == "in time"
    assert queue.seen(later) == "pending"


async def test_a_second_stop_has_no_patience(database18: Database) -> None:
    """stop() called again hands running jobs back at once, however long the grace."""
    started = asyncio.Event()

    @job_type("long")
    async def long(ctx: Context, params: Params) -> None:
        started.set()
        await _forever()

    queue = Queue(database18)
    worker = make_worker(database18, long, grace=NEVER)
    async with at_work(worker) as task:
        queue.register(long)
        job_id = queue.request("long")
        await event(started, "the handler starts")
        worker.stop()
        await asyncio.to_thread(queue.value, "SELECT 1")
        worker.stop()
        async with asyncio.timeout(10):
            await task
    row = queue.row(job_id)
    assert (row["status"], row["retry_count"]) == ("pending", 0)


@pytest.mark.parametrize("kind", ["async", "swallows", "returns", "fails", "thread", "looks"])
async def test_shutdown_hands_unfinished_jobs_back_uncounted(database18: Database, kind: str) -> None:
    """After the grace each goes back at once, also from handlers that do not stop; another worker takes it at once."""
    started, go = threading.Event(), threading.Event()

    async def async_handler(ctx: Context, params: Params) -> str:
        if started.is_set():
            return "second worker"
        started.set()
        while True:
            try:
                await _forever()
            except asyncio.CancelledError:
                if kind == "fails":
                    raise OSError("while stopping") from None
                if kind == "returns":
                    return "half a job"
                if kind == "async":
                    raise
                await asyncio.to_thread(go.wait, THREAD_SECONDS)
                return "too late"

    def plain_handler(ctx: Context, params: Params) -> str:
        if started.is_set():
            return "second worker"
        started.set()
        while kind == "looks" and not ctx.cancelled:
            go.wait(0.005)
        if kind == "looks":
            return "half a job"
        go.wait(THREAD_SECONDS)
        return "too late"

    held = job_type("held", max_attempts=1)(plain_handler if kind in ("thread", "looks") else async_handler)
    queue = Queue(database18)
    queue.register(held)
    job_id = queue.request("held")
    async with at_work(make_worker(database18, held)) as task:
        await eventually(started.is_set, "the handler starts")
        await eventually(lambda: queue.row(job_id)["status"] == "processing", "the row says so")
        del task
    row = queue.row(job_id)
    assert (row["status"], row["retry_count"], row["worker_id"]) == ("pending", 0, None)
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0
    assert await run_all(database18, held) == 1
    assert queue.row(job_id)["result"] == "second worker"
    go.set()
    assert queue.row(job_id)["retry_count"] == 0


async def test_a_worker_that_is_interrupted_hands_back_what_it_claims_at_that_moment(
    database18: Database,
) -> None:
    """Cancelling run() in the middle of claim_jobs leaves no claim behind, whether it was granted or not."""

    @job_type("any")
    async def handler(ctx: Context, params: Params) -> None:
        await _forever()

    queue = Queue(database18)
    queue.register(handler)
    # Every claim waits at this gate before it can commit.
    queue.conn.execute(
        "CREATE FUNCTION streamvibe.gate() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END'"
    )
    queue.conn.execute(
        "CREATE TRIGGER gate BEFORE INSERT ON streamvibe.claim FOR EACH ROW EXECUTE FUNCTION streamvibe.gate()"
    )
    gate = database18.connect()
    gate.execute("SELECT pg_advisory_lock(7)")
    job_id = queue.request("any")
    task = asyncio.create_task(make_worker(database18, handler).run())
    await eventually(
        lambda: queue.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
        "the claim waits at the gate",
    )
    task.cancel()
    gate.execute("SELECT pg_advisory_unlock(7)")
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0
    assert queue.seen(job_id) == "pending"


async def test_a_worker_stops_although_its_database_is_away(database18: Database) -> None:
    """stop() ends run() even while finished jobs cannot be written."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("any")
    async def handler(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    queue = Queue(database18)
    worker = make_worker(database18, handler)
    async with at_work(worker) as task:
        queue.register(handler)
        queue.request("any")
        await event(started, "the handler starts")
        with database18.server.connect() as admin:
            admin.execute(f"ALTER DATABASE {database18.name} ALLOW_CONNECTIONS false".encode())
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE 'streamvibe %%'",
                [database18.name],
            )
        go.set()
        worker.stop()
        async with asyncio.timeout(25):
            await task
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 1  # until its lease is over


async def test_a_claim_that_waits_for_a_lock_keeps_no_worker(database18: Database) -> None:
    """Somebody has the table locked: the worker leaves all the same, and nothing that it was granted stays behind."""

    @job_type("short")
    async def short(ctx: Context, params: Params) -> None: ...

    queue = Queue(database18)
    worker = make_worker(database18, short)
    blocker = database18.connect()
    async with at_work(worker) as task:
        await eventually(
            lambda: queue.value("SELECT count(*) FROM streamvibe.worker WHERE asleep") == 1, "it sleeps"
        )
        with blocker.transaction():
            blocker.execute("LOCK TABLE job_queue IN ACCESS EXCLUSIVE MODE")
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name LIKE 'streamvibe claim %'"
            )
            await eventually(lambda: queue.value(waiting) == 1, "its claim waits")
            worker.stop()
            await asyncio.wait({task}, timeout=60)
            assert task.done()
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0
