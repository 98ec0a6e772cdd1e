"""Jobs that must run alone: nothing beside them, and no worker that stands still for their sake."""

import asyncio
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.integration.worker_kit import (
    DEADLINE_SECONDS,
    NEVER,
    Queue,
    at_work,
    event,
    eventually,
    make_worker,
    run_all,
)
from tests.support.databases import Database

from streamvibe import Context, job_type

Params = dict[str, Any]

LOCK = "SELECT FROM job_queue WHERE id = %s FOR UPDATE"
SOON = timedelta(milliseconds=20)


@job_type("quick", max_attempts=1)
async def quick(ctx: Context, params: Params) -> str:
    return "done"


def isolated(queue: Queue, name: str = "quick", *, waited: str = "0") -> UUID:
    """A due job that was held, with another, by a worker that died; first in line."""
    with queue.conn.transaction():
        job_id = queue.request(name, priority=9)
        queue.conn.execute(
            "UPDATE job_queue SET isolated = true, updated_at = updated_at - %s::interval WHERE id = %s",
            [waited, job_id],
        )
    return job_id


async def test_an_isolated_job_runs_alone_in_its_process(database18: Database) -> None:
    """Marked after a crash it starts when nothing else runs, and nothing else starts until its end is written."""
    running: set[str] = set()
    together: list[set[str]] = []

    @job_type("mixed")
    async def mixed(ctx: Context, params: Params) -> None:
        running.add(params["name"])
        together.append(set(running))
        await asyncio.sleep(0.01)
        running.discard(params["name"])

    queue = Queue(database18)
    queue.register(mixed)
    jobs = [queue.request("mixed", {"name": f"job {n}"}) for n in range(30)]
    queue.conn.execute("UPDATE job_queue SET isolated = true WHERE (params ->> 'name') ~ '0$'")
    await run_all(database18, mixed, concurrency=10)
    assert {queue.row(job_id)["status"] for job_id in jobs} == {"completed"}
    alone = {"job 0", "job 10", "job 20"}
    assert all(len(names) == 1 for names in together if names & alone)
    assert max(len(names) for names in together) > 1
    assert not any(queue.row(job_id)["isolated"] for job_id in jobs)


@pytest.mark.parametrize("waited", ["0", "1 hour"])
async def test_a_job_that_cannot_be_alone_keeps_nobody_waiting(
    database18: Database, monkeypatch: pytest.MonkeyPatch, waited: str
) -> None:
    """Beside a handler that runs on and on it is handed back; others go on, and it runs when that one is over.

    Also when it has waited so long that every worker would be given it.
    """
    monkeypatch.setattr("streamvibe.worker.alone.ALONE_SECONDS", 0.05)
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("lasting")
    async def lasting(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    queue = Queue(database18)
    queue.register(lasting, quick)
    # Leased or not: a job that has waited is given to a worker with leased ones too.
    lease_after = NEVER if waited == "0" else timedelta(0)
    async with at_work(make_worker(database18, lasting, quick, lease_after=lease_after, poll_interval=SOON)):
        lasts = queue.request("lasting")
        await event(started, "the lasting one runs")
        if waited != "0":
            await queue.until(lasts, "processing")
        suspects = [isolated(queue, waited=waited) for _ in range(3)]
        for _ in range(20):
            assert (await queue.until(queue.request("quick")))["status"] == "completed"
        assert {queue.row(job_id)["status"] for job_id in suspects} == {"pending"}
        assert queue.seen(lasts) == "processing"
        go.set()
        for job_id in suspects:
            row = await queue.until(job_id)
            assert (row["status"], row["retry_count"]) == ("completed", 0)


async def test_another_worker_takes_what_cannot_be_alone(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose other job runs on and on lets another worker have the isolated one."""
    monkeypatch.setattr("streamvibe.worker.alone.ALONE_SECONDS", 0.05)
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("lasting")
    async def lasting(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    queue = Queue(database18)
    queue.register(lasting, quick)
    async with at_work(make_worker(database18, lasting, quick, lease_after=NEVER, poll_interval=SOON)):
        lasts = queue.request("lasting")
        await event(started, "the lasting one runs")
        job_id = isolated(queue)
        await eventually(lambda: queue.seen(job_id) == "processing", "it is claimed")
        async with at_work(make_worker(database18, quick, poll_interval=SOON)):
            assert (await queue.until(job_id))["retry_count"] == 0
        assert queue.seen(lasts) == "processing"
        go.set()


@pytest.mark.parametrize("whose", ["another's", "its own"])
async def test_an_open_transaction_does_not_stop_a_worker(database18: Database, whose: str) -> None:
    """An end whose row an application has locked holds up neither an isolated job nor what comes after it."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("held")
    async def held(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    queue = Queue(database18)
    queue.register(held, quick)
    async with at_work(make_worker(database18, held, quick, lease_after=NEVER, poll_interval=SOON)):
        locked = isolated(queue, "held") if whose == "its own" else queue.request("held")
        await event(started, "its handler runs")
        with database18.connect(autocommit=False) as application:
            application.execute(LOCK, [locked])
            go.set()
            for job_id in (isolated(queue), queue.request("quick")):
                assert (await queue.until(job_id))["status"] == "completed"
            assert queue.row(locked)["status"] == "pending"
        assert (await queue.until(locked))["status"] == "completed"


@pytest.mark.parametrize("given_up", [True, False])
async def test_nothing_runs_alone_beside_a_thread_that_does_not_stop(
    database18: Database, given_up: bool
) -> None:
    """A thread whose job has long failed may still kill the process: another one runs the isolated job.

    Whether the thread was given up before the isolated job came, or while that waited for it.
    """
    started, go = threading.Event(), threading.Event()

    @job_type("hung", timeout=timedelta(milliseconds=50 if given_up else 500), max_attempts=1)
    def hung(ctx: Context, params: Params) -> None:
        started.set()
        go.wait(DEADLINE_SECONDS * 2)

    queue = Queue(database18)
    queue.register(hung, quick)
    worker = make_worker(database18, hung, quick, lease_after=NEVER, poll_interval=SOON)
    async with at_work(worker):
        hangs = queue.request("hung")
        if given_up:
            await queue.until(hangs, "failed")
        else:
            await eventually(started.is_set, "it runs")
        job_id = isolated(queue, waited="1 hour")
        await queue.until(hangs, "failed")
        for _ in range(5):
            await queue.until(queue.request("quick"))
        assert queue.row(job_id)["status"] == "pending"
        other = make_worker(database18, quick, poll_interval=SOON)
        async with at_work(other):
            row = await queue.until(job_id)
        assert (row["status"], row["worker_id"]) == ("completed", other.worker_id)
        go.set()
