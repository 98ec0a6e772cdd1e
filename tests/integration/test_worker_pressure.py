"""A worker under pressure: locked rows, handlers that log without end, hang or block, ends nobody takes."""

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.worker_kit import (
    DEADLINE_SECONDS,
    NEVER,
    Queue,
    at_work,
    eventually,
    make_worker,
)
from tests.support.databases import Database

from streamvibe import Context, StreamVibeError, job_type

Params = dict[str, Any]

LOCK = "SELECT FROM job_queue WHERE id = %s FOR UPDATE"
# Refuses some writes of a table for as long as it stands.
REFUSE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {when} THEN
        RAISE 'not this one' USING ERRCODE = '{code}';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER refuse BEFORE {event} FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""


@job_type("quick", max_attempts=1)
async def quick(ctx: Context, params: Params) -> str:
    if params.get("logs"):
        ctx.log("quick")
    return "done"


@pytest.mark.parametrize("kind", ["completed", "failed", "leased and completed"])
async def test_a_locked_row_holds_up_its_own_job_only(database: Database, kind: str) -> None:
    """While a transaction holds a job's row, other jobs of the worker end; its own end is written after that."""
    locked, ran = asyncio.Event(), 0

    @job_type("held", max_attempts=1)
    async def held(ctx: Context, params: Params) -> str:
        nonlocal ran
        ran += 1
        await locked.wait()
        if kind == "failed":
            raise ValueError("of its own")
        return "done"

    queue = Queue(database)
    queue.register(held, quick)
    lease_after = timedelta(0) if kind.startswith("leased") else NEVER
    async with at_work(make_worker(database, held, quick, lease_after=lease_after)):
        job_id = queue.request("held")
        await eventually(lambda: ran, "the handler runs")
        if kind.startswith("leased"):
            await queue.until(job_id, "processing")
        with database.connect(autocommit=False) as holder:
            holder.execute(LOCK, [job_id])
            locked.set()
            for _ in range(3):
                assert (await queue.until(queue.request("quick")))["result"] == "done"
            assert queue.row(job_id)["status"] in ("pending", "processing")
            assert queue.value("SELECT streamvibe.is_held(%s)", job_id)
        row = await queue.until(job_id)
        await queue.until_released()
    if kind == "failed":
        assert (row["status"], row["error_message"]) == ("failed", "ValueError: of its own")
    else:
        assert (row["status"], row["result"]) == ("completed", "done")
    assert ran == 1


async def test_a_locked_row_is_leased_when_it_is_free(database18: Database) -> None:
    """Others' rows become processing while one is locked, and that one as soon as it is not."""
    go, started = asyncio.Event(), set[UUID]()

    @job_type("lasting")
    async def lasting(ctx: Context, params: Params) -> None:
        started.add(ctx.job_id)
        await go.wait()

    queue = Queue(database18)
    queue.register(lasting)
    worker = make_worker(database18, lasting, concurrency=2, poll_interval=timedelta(milliseconds=20))
    with database18.connect(autocommit=False) as holder:
        async with at_work(worker):
            locked = queue.request("lasting")
            await eventually(lambda: locked in started, "it runs")
            holder.execute(LOCK, [locked])
            other = queue.request("lasting")
            await queue.until(other, "processing")
            holder.rollback()
            await queue.until(locked, "processing")
            go.set()
            await queue.until(locked, "completed")


async def test_lines_that_cannot_be_written_hold_up_their_own_job_only(database18: Database) -> None:
    """While a job's lines fail, other jobs' lines and ends are written; its own end comes after its lines."""

    @job_type("chatty")
    async def chatty(ctx: Context, params: Params) -> None:
        for number in range(100):
            ctx.log(f"chatty {number}")

    queue = Queue(database18)
    queue.register(chatty, quick)
    refuse = REFUSE.format(when="NEW.message = 'chatty 50'", code="40P01", event="INSERT ON public.job_log")
    queue.conn.execute(refuse.encode())
    async with at_work(make_worker(database18, chatty, quick, lease_after=NEVER)):
        job_id = queue.request("chatty")
        await eventually(lambda: queue.logs(job_id), "its first lines are written")
        for _ in range(3):
            other = queue.request("quick", {"logs": True})
            await queue.until(other)
            assert [line["message"] for line in queue.logs(other)] == ["quick"]
        assert queue.row(job_id)["status"] == "pending"
        with queue.conn.transaction():
            # Parent before partitions, as an INSERT locks them; DROP TRIGGER by itself begins with a partition.
            queue.conn.execute("LOCK TABLE public.job_log IN ACCESS EXCLUSIVE MODE")
            queue.conn.execute("DROP TRIGGER refuse ON public.job_log")
        await queue.until(job_id)
    assert [line["message"] for line in queue.logs(job_id)] == [f"chatty {number}" for number in range(100)]


async def test_lines_share_the_statements(database18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's end goes before the lines that another logged earlier, when those are more than a statement holds."""
    monkeypatch.setattr("streamvibe.worker.flush.MAX_ITEMS", 10)
    logged = asyncio.Event()

    @job_type("chatty")
    async def chatty(ctx: Context, params: Params) -> None:
        for number in range(2000):
            ctx.log(str(number))
        logged.set()

    @job_type("after")
    async def after(ctx: Context, params: Params) -> None:
        await logged.wait()
        ctx.log("mine")

    queue = Queue(database18)
    queue.register(chatty, after)
    with queue.conn.transaction():
        second, first = queue.request("after"), queue.request("chatty")
    async with at_work(make_worker(database18, chatty, after, lease_after=NEVER)):
        await queue.until(first)
        await queue.until(second)
    before = "SELECT count(*) FROM job_log WHERE job_id = %s AND created_at < %s"
    assert queue.value(before, first, queue.row(second)["completed_at"]) < 1000
    assert [line["message"] for line in queue.logs(second)] == ["mine"]
    assert len(queue.logs(first)) == 2000


@pytest.mark.parametrize("plain", [True, False])
async def test_lines_beyond_what_may_wait_are_left_out(
    database18: Database, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    """A handler that logs faster than can be written keeps its first lines, and its log says how many it lost."""
    monkeypatch.setattr("streamvibe.worker.context.MAX_WAITING_LINES", 100)
    go = threading.Event()

    def log_much(ctx: Context) -> None:
        for number in range(1000):
            ctx.log(str(number))

    @job_type("chatty")
    async def chatty(ctx: Context, params: Params) -> None:
        log_much(ctx)

    @job_type("chatty")
    def chatty_plain(ctx: Context, params: Params) -> None:
        log_much(ctx)
        go.wait(DEADLINE_SECONDS)
        ctx.log("and on")

    handler = chatty_plain if plain else chatty
    queue = Queue(database18)
    queue.register(handler)
    gate = database18.connect(autocommit=False)
    gate.execute("LOCK TABLE public.job_log IN SHARE MODE")
    async with at_work(make_worker(database18, handler, lease_after=NEVER)):
        job_id = queue.request("chatty")
        if plain:
            await eventually(lambda: queue.seen(job_id) == "processing", "it runs")
        gate.rollback()
        if plain:
            await eventually(
                lambda: [line for line in queue.logs(job_id) if line["log_level"] == "warning"], "it says so"
            )
            go.set()
        await queue.until(job_id)
    lines = [(line["log_level"], line["message"]) for line in queue.logs(job_id)]
    if plain:
        assert lines.pop() == ("info", "and on")
        assert sum(level == "info" for level, _ in lines) < 1000
    else:
        assert lines == [("info", str(number)) for number in range(100)] + [("warning", "900 lines left out")]
    lost = sum(int(message.split()[0]) for level, message in lines if level == "warning")
    assert lost + sum(level == "info" for level, _ in lines) == 1000


async def test_a_worker_full_of_handlers_that_do_not_stop_gives_up(
    database18: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is named once; when they have every place for long, run() raises, and says of which types they are."""
    monkeypatch.setattr("streamvibe.worker.ticker.STOP_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("streamvibe.worker.ticker.STUCK_SECONDS", 0.5)
    go = threading.Event()

    @job_type("hung", timeout=timedelta(milliseconds=100), max_attempts=1)
    def hung(ctx: Context, params: Params) -> None:
        go.wait(DEADLINE_SECONDS * 2)

    queue = Queue(database18)
    queue.register(hung)
    task = asyncio.create_task(make_worker(database18, hung, concurrency=2).run())
    first = queue.request("hung")
    await queue.until(first, "failed")
    assert not task.done()
    second = queue.request("hung")
    with pytest.raises(StreamVibeError, match="do not stop take every place") as caught:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task
    go.set()
    assert caught.value.received == "2 handlers of hung"
    named = [record.message for record in caplog.records if "handler_does_not_stop" in record.message]
    assert len(named) == 2
    assert sorted(str(job_id) in "".join(named) for job_id in (first, second)) == [True, True]
    assert queue.row(second)["status"] == "failed"


@pytest.mark.parametrize("timeout_seconds", [0.2, 3600])
async def test_a_blocked_event_loop_loses_its_jobs_after_their_time_limit(
    database18: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    timeout_seconds: float,
) -> None:
    """Blocked beyond the time limit the lease is let go and the job taken back; within it the lease is renewed."""
    monkeypatch.setattr("streamvibe.worker.holding.STOP_PATIENCE_SECONDS", 0.2)
    queue = Queue(database18)
    recovered: list[object] = []

    @job_type("blocking", timeout=timedelta(seconds=timeout_seconds), max_attempts=1)
    async def blocking(ctx: Context, params: Params) -> str:
        with psycopg.connect(database18.dsn, autocommit=True) as conn:
            for _ in range(100_000):
                recovered.extend(conn.execute("SELECT outcome FROM recover_stuck_jobs()").fetchall())
                beats = conn.execute(
                    "SELECT heartbeat_at > started_at + 3 * lease FROM streamvibe.worker"
                ).fetchone()
                if recovered or beats is None or beats[0]:
                    break
        return "done"

    queue.register(blocking)
    async with at_work(make_worker(database18, blocking, lease=timedelta(milliseconds=500))):
        job_id = queue.request("blocking")
        row = await queue.until(job_id)
    blocked = "event_loop_blocked" in caplog.text
    if timeout_seconds < 1:
        assert (row["failure_kind"], recovered, blocked) == ("crash", [("failed",)], True)
    else:
        assert (row["result"], recovered, blocked) == ("done", [], False)


async def test_a_thread_that_logs_on_and_on_does_not_outrun_its_time_limit(database18: Database) -> None:
    """Its job fails at its limit: what it logs after that is left out, and holds up no end."""
    go = threading.Event()

    @job_type("endless", timeout=timedelta(milliseconds=100), max_attempts=1)
    def endless(ctx: Context, params: Params) -> None:
        while not go.is_set():
            ctx.log("and on")

    queue = Queue(database18)
    queue.register(endless, quick)
    async with at_work(make_worker(database18, endless, quick, lease_after=NEVER)):
        row = await queue.until(queue.request("endless"))
        assert (row["status"], row["failure_kind"]) == ("failed", "timeout")
        assert (await queue.until(queue.request("quick")))["status"] == "completed"
        go.set()


@pytest.mark.parametrize("connections_die", [False, True])
async def test_a_worker_that_stops_is_gone_at_once(database18: Database, connections_die: bool) -> None:
    """It leaves no row of itself, also when its connections have died unnoticed."""
    queue = Queue(database18)
    queue.register(quick)
    async with at_work(make_worker(database18, quick, poll_interval=NEVER)):
        await queue.until(queue.request("quick"))
        await eventually(lambda: queue.value("SELECT count(*) FROM streamvibe.worker WHERE asleep"), "asleep")
        if connections_die:
            # In its name, as its own lost claim would have been.
            with queue.conn.transaction():
                job_id = queue.request("quick")
                queue.conn.execute("SELECT * FROM claim_jobs((SELECT id FROM streamvibe.worker), 10)")
            queue.conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'streamvibe claim %'"
            )
    assert queue.value("SELECT count(*) FROM streamvibe.worker") == 0
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0
    if connections_die:
        assert queue.seen(job_id) == "pending"


@pytest.mark.parametrize("code", ["22023", "P0001"])
async def test_a_failure_that_is_refused_is_shortened(database18: Database, code: str) -> None:
    """When the database does not take a failure's text, the job fails without it."""

    @job_type("poison", max_attempts=1)
    async def poison(ctx: Context, params: Params) -> None:
        raise ValueError("poison")

    queue = Queue(database18)
    queue.register(poison, quick)
    refuse = REFUSE.format(
        when="NEW.error_message LIKE '%poison%'", code=code, event="UPDATE ON public.job_queue"
    )
    queue.conn.execute(refuse.encode())
    async with at_work(make_worker(database18, poison, quick, lease_after=NEVER)):
        row = await queue.until(queue.request("poison"))
        assert (row["status"], row["failure_kind"]) == ("failed", "error")
        assert row["error_message"] == "its message is lost: the database refused it"


@pytest.mark.parametrize("code", ["22023", "P0001"])
async def test_an_end_that_nobody_takes_is_given_up_loudly(
    database18: Database, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    """A job whose every end is refused is named in the log and let go; other jobs end meanwhile."""
    queue = Queue(database18)
    queue.register(quick)
    with queue.conn.transaction():
        bad, good = queue.request("quick"), queue.request("quick")
        refuse = REFUSE.format(when=f"NEW.id = '{bad}'", code=code, event="UPDATE ON public.job_queue")
        queue.conn.execute(refuse.encode())
    caplog.set_level(logging.INFO)
    async with at_work(make_worker(database18, quick, lease_after=NEVER)):
        assert (await queue.until(good))["status"] == "completed"
        await eventually(lambda: "job_end_given_up" in caplog.text, "it is given up")
        assert (await queue.until(queue.request("quick")))["status"] == "completed"
    assert queue.row(bad)["status"] == "pending"
    assert [str(bad) in line for line in caplog.text.splitlines() if "given_up" in line] == [True]
