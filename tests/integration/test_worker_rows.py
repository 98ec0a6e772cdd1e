"""What a job costs the database: how often its row is written, when, and what readers see meanwhile."""

import asyncio
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.integration.worker_kit import NEVER, Queue, at_work, event, eventually, make_worker, run_all
from tests.support.databases import Database

from streamvibe import Context, job_type

Params = dict[str, Any]

AUDIT = """
CREATE TABLE public.audit (n bigserial, job_id uuid, before text, after text, transaction xid8);
CREATE FUNCTION public.note_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.audit (job_id, before, after, transaction)
    VALUES (new.id, old.status, new.status, pg_current_xact_id());
    RETURN NULL;
END
$$;
CREATE TRIGGER note_update AFTER UPDATE ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.note_update();
"""


def _written(queue: Queue, job_id: UUID) -> list[tuple[str, str]]:
    return queue.conn.execute(
        "SELECT before, after FROM audit WHERE job_id = %s ORDER BY n", [job_id]
    ).fetchall()


async def test_a_short_job_is_written_once(database: Database) -> None:
    """Claiming writes no row: from pending to its end there is one update, whatever the end."""

    @job_type("short", max_attempts=1)
    async def short(ctx: Context, params: Params) -> str:
        ctx.log("a line")
        ctx.progress(0.5)
        if params.get("fail"):
            raise ValueError("no")
        return "done"

    queue = Queue(database)
    queue.register(short)
    queue.conn.execute(AUDIT)
    good, bad = queue.request("short"), queue.request("short", {"fail": True})
    await run_all(database, short, lease_after=NEVER)
    assert _written(queue, good) == [("pending", "completed")]
    assert _written(queue, bad) == [("pending", "failed")]


async def test_readers_see_processing_from_the_claim_on_and_a_lasting_job_says_so_in_its_row(
    database: Database,
) -> None:
    """get_job says processing as soon as the handler runs; the row follows once the job has lasted."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("lasting")
    async def lasting(ctx: Context, params: Params) -> str:
        started.set()
        await go.wait()
        return "done"

    queue = Queue(database)
    queue.register(lasting)
    queue.conn.execute(AUDIT)
    job_id = queue.request("lasting")
    async with at_work(make_worker(database, lasting, lease_after=NEVER)):
        await event(started, "the handler starts")
        assert (queue.seen(job_id), queue.row(job_id)["status"]) == ("processing", "pending")
        go.set()
        await queue.until(job_id)
    assert _written(queue, job_id) == [("pending", "completed")]

    started.clear()
    go.clear()
    job_id = queue.request("lasting")
    async with at_work(make_worker(database, lasting)) as task:
        await event(started, "the handler starts")
        row = await queue.until(job_id, "processing")
        assert row["worker_id"] is not None and row["claim_token"] is not None
        assert row["started_at"] is not None and not task.done()
        go.set()
        await queue.until(job_id)
    assert _written(queue, job_id) == [("pending", "processing"), ("processing", "completed")]


async def test_an_end_is_written_without_waiting_for_any_clock(
    database18: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no tick, poll or heartbeat for an hour, ends are still committed; prints how soon."""
    monkeypatch.setattr("streamvibe.worker.ticker.TICK_SECONDS", NEVER.total_seconds())
    ended: dict[UUID, datetime] = {}

    @job_type("quick")
    async def quick(ctx: Context, params: Params) -> None:
        ended[ctx.job_id] = datetime.now(UTC)

    queue = Queue(database18)
    delays: list[float] = []
    async with at_work(make_worker(database18, quick, lease=NEVER, poll_interval=NEVER)):
        await eventually(lambda: queue.value("SELECT count(*) FROM streamvibe.worker WHERE asleep"), "idle")
        for _ in range(50):
            job_id = queue.request("quick")
            row = await queue.until(job_id)
            delays.append((row["completed_at"] - ended[job_id]) / timedelta(milliseconds=1))
    with capsys.disabled():
        print(
            f"\nend of handler to completed_at, idle worker, 50 jobs: median {statistics.median(delays):.1f} ms,"
            f" longest {max(delays):.1f} ms"
        )


async def test_jobs_that_end_together_are_written_together(database18: Database) -> None:
    """100 handlers released at once are completed in a handful of transactions."""
    go = asyncio.Event()
    waiting: list[UUID] = []

    @job_type("batch")
    async def batch(ctx: Context, params: Params) -> None:
        waiting.append(ctx.job_id)
        await go.wait()

    queue = Queue(database18)
    queue.register(batch)
    for _ in range(100):
        queue.request("batch")
    async with at_work(make_worker(database18, batch, concurrency=100, lease_after=NEVER)):
        await eventually(lambda: len(waiting) == 100, "all handlers run")
        go.set()
        for job_id in waiting:
            await queue.until(job_id, "completed")
    transactions = queue.value("SELECT count(DISTINCT xmin::text) FROM job_queue")
    assert transactions <= 5


async def test_large_results_are_written_in_portions(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would make one statement too large for PostgreSQL goes in several; nothing is left out."""
    monkeypatch.setattr("streamvibe.worker.flush.MAX_CHARACTERS", 250_000)
    go = asyncio.Event()
    waiting: list[UUID] = []

    @job_type("large")
    async def large(ctx: Context, params: Params) -> str:
        waiting.append(ctx.job_id)
        await go.wait()
        ctx.log("y" * 10_000)
        return "x" * (300_000 if params["n"] == 7 else 100_000)

    queue = Queue(database18)
    queue.register(large)
    jobs = [queue.request("large", {"n": n}) for n in range(20)]
    async with at_work(make_worker(database18, large, lease_after=NEVER)):
        await eventually(lambda: len(waiting) == 20, "all handlers run")
        go.set()
        for n, job_id in enumerate(jobs):
            assert len((await queue.until(job_id))["result"]) == (300_000 if n == 7 else 100_000)
    assert queue.value("SELECT count(DISTINCT xmin::text) FROM job_queue") >= 10
    assert queue.value("SELECT count(*) FROM job_log") == 20


async def test_leases_logs_and_ends_never_deadlock(database18: Database) -> None:
    """Two workers lease, log, report progress, complete and fail 400 jobs at once: no statement meets a deadlock."""

    @job_type("busy", backoff_base=timedelta(0), backoff_max=timedelta(0))
    async def busy(ctx: Context, params: Params) -> int:
        for step in range(3):
            ctx.log(str(step))
            ctx.progress(step / 3)
            await asyncio.sleep(0.001 * (params["n"] % 40))
        if params["n"] % 5 == 0 and ctx.attempt == 1:
            raise ValueError("first attempt")
        return int(params["n"])

    queue = Queue(database18)
    queue.register(busy)
    jobs = [queue.request("busy", {"n": n}) for n in range(400)]
    workers = [make_worker(database18, busy, lease_after=timedelta(0)) for _ in range(2)]
    async with at_work(workers[0]), at_work(workers[1]):
        for n, job_id in enumerate(jobs):
            assert (await queue.until(job_id))["result"] == n
    assert queue.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert queue.value("SELECT count(*) FROM job_log") == 3 * 400 + 3 * 80 + 80  # and why it failed
