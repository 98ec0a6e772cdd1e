"""Handlers that are told to stop: time limits and cancellation."""

import asyncio
import contextlib
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.worker_kit import NEVER, Queue, at_work, event, eventually, make_worker, run_all
from tests.support.databases import Database

from streamvibe import Context, JobCancelled, job_type

Params = dict[str, Any]
SHORT = timedelta(milliseconds=100)
THREAD_SECONDS = 30


async def _forever() -> None:
    await asyncio.Event().wait()


async def test_an_async_handler_is_cancelled_at_its_time_limit(database: Database) -> None:
    """It gets CancelledError, the attempt counts as a timeout, and the next attempt may complete."""
    seen: list[type[BaseException]] = []

    @job_type("slow", timeout=SHORT, backoff_base=timedelta(0), backoff_max=timedelta(0))
    async def slow(ctx: Context, params: Params) -> str:
        if ctx.attempt == 1:
            try:
                await _forever()
            except BaseException as error:
                seen.append(type(error))
                assert ctx.cancelled
                raise
        return "second"

    queue = Queue(database)
    queue.register(slow)
    job_id = queue.request("slow")
    assert await run_all(database, slow) == 2
    assert seen == [asyncio.CancelledError]
    assert (queue.row(job_id)["status"], queue.row(job_id)["retry_count"]) == ("completed", 1)


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_a_handler_that_catches_its_cancellation_has_timed_out_all_the_same(
    database18: Database, how: str
) -> None:
    """Returning a result or raising something else after the limit is still a timeout."""

    @job_type("deaf", timeout=SHORT, max_attempts=1)
    async def deaf(ctx: Context, params: Params) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await _forever()
        if how == "raises":
            raise OSError("in the middle of it")
        return "too late"

    queue = Queue(database18)
    queue.register(deaf)
    job_id = queue.request("deaf")
    await run_all(database18, deaf)
    row = queue.row(job_id)
    assert (row["status"], row["failure_kind"], row["result"]) == ("failed", "timeout", None)
    assert "0.1 seconds" in row["error_message"]


async def test_a_handler_that_swallows_cancellation_is_given_up(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is failed although it goes on; it keeps its place, so the limit of concurrency holds."""
    monkeypatch.setattr("streamvibe.worker.ticker.STOP_PATIENCE_SECONDS", 0.1)
    released = asyncio.Event()

    @job_type("deaf", timeout=SHORT, max_attempts=1)
    async def deaf(ctx: Context, params: Params) -> str:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return "at last"

    @job_type("next")
    async def following(ctx: Context, params: Params) -> None:
        pass

    queue = Queue(database18)
    async with at_work(make_worker(database18, deaf, following, concurrency=1)):
        queue.register(deaf, following)
        job_id = queue.request("deaf")
        try:
            assert (await queue.until(job_id))["failure_kind"] == "timeout"
            later = queue.request("next")
            assert queue.row(later)["status"] == "pending"
        finally:
            released.set()  # or no event loop could ever be closed
        await queue.until(later)
        assert queue.row(job_id)["result"] is None


async def test_a_thread_past_its_time_limit_fails_at_once(database18: Database) -> None:
    """A plain handler cannot be interrupted: its job fails at the limit, and ctx tells it to stop."""
    go, seen = threading.Event(), list[bool]()

    @job_type("thread", timeout=SHORT, max_attempts=1)
    def thread(ctx: Context, params: Params) -> str:
        go.wait(THREAD_SECONDS)
        seen.append(ctx.cancelled)
        ctx.log("too late")
        with pytest.raises(JobCancelled, match="timeout"):
            ctx.raise_if_cancelled()
        return "too late"

    queue = Queue(database18)
    async with at_work(make_worker(database18, thread)):
        queue.register(thread)
        job_id = queue.request("thread")
        assert (await queue.until(job_id))["failure_kind"] == "timeout"
        go.set()
        await eventually(lambda: seen, "the handler looks")
    assert seen == [True]
    assert queue.row(job_id)["result"] is None and queue.logs(job_id) == []


async def test_a_cancelled_job_stops_its_async_handler_by_notification(database: Database) -> None:
    """Without waiting for a heartbeat (the lease is an hour) it gets CancelledError; the job stays cancelled."""
    started, ended = asyncio.Event(), asyncio.Event()

    @job_type("long")
    async def long(ctx: Context, params: Params) -> str:
        started.set()
        try:
            await _forever()
        finally:
            assert ctx.cancelled
            ended.set()
        return "never"

    queue = Queue(database)
    async with at_work(make_worker(database, long, lease=NEVER, poll_interval=NEVER)):
        queue.register(long)
        job_id = queue.request("long")
        await event(started, "the handler starts")
        await eventually(lambda: _listens(queue), "the worker listens")
        # Leased: from here on nothing but the notification would tell it.
        await queue.until(job_id, "processing")
        queue.cancel(job_id)
        assert queue.row(job_id)["status"] == "cancelled"
        await event(ended, "the handler is cancelled")
        await queue.until_released()
    assert queue.row(job_id)["status"] == "cancelled"
    assert queue.row(job_id)["result"] is None


def _listens(queue: Queue) -> bool:
    found: bool = queue.value(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND query = 'LISTEN streamvibe_cancel' AND state = 'idle')"
    )
    return found


async def test_a_cancelled_job_tells_its_thread_and_refuses_its_result(database18: Database) -> None:
    """A plain handler sees ctx.cancelled; what it returns all the same is not accepted."""
    started, told = threading.Event(), threading.Event()

    @job_type("thread")
    def thread(ctx: Context, params: Params) -> str:
        started.set()
        while not ctx.cancelled:
            told.wait(0.005)
        told.set()
        return "all the same"

    queue = Queue(database18)
    async with at_work(make_worker(database18, thread)):
        queue.register(thread)
        job_id = queue.request("thread")
        await eventually(started.is_set, "the handler starts")
        queue.cancel(job_id)
        await eventually(told.is_set, "the handler is told")
        await queue.until_released()
    assert (queue.row(job_id)["status"], queue.row(job_id)["result"]) == ("cancelled", None)


async def test_a_forged_notification_stops_nothing(database18: Database) -> None:
    """Any role may NOTIFY: an id that is not cancelled, or no id at all, changes nothing; wake-ups still work."""
    started, go, starts = asyncio.Event(), asyncio.Event(), list[UUID]()

    @job_type("long")
    async def long(ctx: Context, params: Params) -> str:
        starts.append(ctx.job_id)
        started.set()
        await go.wait()
        return "undisturbed"

    queue = Queue(database18)
    async with at_work(make_worker(database18, long, poll_interval=NEVER)):
        queue.register(long)
        job_id = queue.request("long")
        await event(started, "the handler starts")
        await eventually(lambda: _listens(queue), "the worker listens")
        beat_at = queue.value("SELECT heartbeat_at FROM streamvibe.worker")
        queue.conn.execute("SELECT pg_notify('streamvibe_cancel', 'nonsense')")
        queue.conn.execute("SELECT pg_notify('streamvibe_cancel', %s)", [str(job_id)])
        await eventually(
            lambda: queue.value("SELECT heartbeat_at FROM streamvibe.worker") > beat_at, "the worker asks"
        )
        started.clear()
        second = queue.request("long")
        await event(started, "a second job is still woken for")
        go.set()
        assert (await queue.until(job_id))["result"] == "undisturbed"
        assert (await queue.until(second))["result"] == "undisturbed"
    assert (starts, queue.row(job_id)["retry_count"]) == ([job_id, second], 0)


async def test_a_job_cancelled_after_its_claim_and_before_its_start_never_runs(database18: Database) -> None:
    """An isolated job waits claimed until the worker is alone; cancelled meanwhile, its handler is not called."""
    started, go = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    @job_type("first")
    async def first(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    @job_type("alone")
    async def alone(ctx: Context, params: Params) -> None:
        ran.append("alone")

    queue = Queue(database18)
    async with at_work(make_worker(database18, first, alone, lease_after=NEVER)):
        queue.register(first, alone)
        job_id = queue.request("first")
        await event(started, "the first handler starts")
        with queue.conn.transaction():
            isolated = queue.request("alone")
            queue.conn.execute("UPDATE job_queue SET isolated = true WHERE id = %s", [isolated])
        await eventually(lambda: queue.seen(isolated) == "processing", "it is claimed")
        queue.cancel(isolated)
        await eventually(lambda: not _is_held(queue, isolated), "it is handed back")
        go.set()
        await queue.until(job_id)
    assert ran == []
    assert queue.row(isolated)["status"] == "cancelled"


def _is_held(queue: Queue, job_id: Any) -> bool:
    held: bool = queue.value("SELECT streamvibe.is_held(%s)", job_id)
    return held


async def test_the_operator_sees_where_a_handler_failed(
    database18: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker's own log has the traceback; the job, which its user may read, has no path and no source."""

    @job_type("broken", max_attempts=1)
    async def broken(ctx: Context, params: Params) -> None:
        raise OSError("the disk is on fire")

    queue = Queue(database18)
    queue.register(broken)
    job_id = queue.request("broken")
    await run_all(database18, broken)
    assert queue.row(job_id)["error_message"] == "OSError: the disk is on fire"
    assert f"handler_failed job_id={job_id}" in caplog.text
    assert __file__ in caplog.text and "Traceback" in caplog.text
    assert str(Path(__file__).parent) not in str(queue.logs(job_id))
