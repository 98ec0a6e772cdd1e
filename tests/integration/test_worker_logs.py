"""What handlers log and how far they say they are."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.integration.worker_kit import Queue, at_work, event, eventually, make_worker, run_all
from tests.support.databases import Database

from streamvibe import Context, StreamVibeError, job_type

Params = dict[str, Any]


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


async def test_lines_keep_their_order_and_belong_to_their_job(database: Database) -> None:
    """Lines of many jobs written together come back per job in the order they were logged, before the job ends."""

    @job_type("chatty")
    async def chatty(ctx: Context, params: Params) -> None:
        for number in range(50):
            ctx.log(f"{params['n']}: {number}")
            if number % 7 == 0:
                await asyncio.sleep(0)

    @job_type("chatty.plain")
    def chatty_plain(ctx: Context, params: Params) -> None:
        for number in range(50):
            ctx.log(f"{params['n']}: {number}")

    queue = Queue(database)
    queue.register(chatty, chatty_plain)
    jobs = {n: queue.request("chatty" if n % 2 else "chatty.plain", {"n": n}) for n in range(10)}
    await run_all(database, chatty, chatty_plain)
    for n, job_id in jobs.items():
        lines = queue.logs(job_id)
        assert [line["message"] for line in lines] == [f"{n}: {number}" for number in range(50)]
        assert {line["log_level"] for line in lines} == {"info"}
        assert max(line["created_at"] for line in lines) <= queue.row(job_id)["completed_at"]


async def test_a_handler_that_logs_without_pause_loses_nothing(database18: Database) -> None:
    """5,000 lines from one handler, more than go into one statement, are all there, in order."""

    @job_type("flood")
    async def flood(ctx: Context, params: Params) -> None:
        for number in range(5000):
            ctx.log(str(number))

    queue = Queue(database18)
    queue.register(flood)
    job_id = queue.request("flood")
    await run_all(database18, flood)
    assert [line["message"] for line in queue.logs(job_id)] == [str(number) for number in range(5000)]


async def test_text_and_metadata_the_database_cannot_hold_are_replaced(database18: Database) -> None:
    """Bad characters, NaN, huge integers, objects, cycles, huge lines and huge metadata cost no line and no job."""
    cycle: list[object] = []
    cycle.append(cycle)
    when = datetime(2026, 1, 2, tzinfo=UTC)

    @job_type("odd")
    async def odd(ctx: Context, params: Params) -> str:
        ctx.log("nul \x00, surrogate \ud83d.")
        ctx.log("x" * 50_000)
        ctx.log(
            "metadata",
            nan=float("nan"),
            big=2**70,
            huge=10**5000,
            odd=Odd(),
            data=b"\xff",
            cycle=cycle,
            text="a\x00\ud83d",
            when=when,
            id=UUID(int=1),
            keys={1: "one", "b\x00": 2, Odd(): 3},
            fine=[1, 2.5, None, True],
        )
        ctx.log("much", much=list(range(100_000)))
        ctx.log("", level="error")
        return "fine"

    queue = Queue(database18)
    queue.register(odd)
    job_id = queue.request("odd")
    await run_all(database18, odd)
    assert queue.row(job_id)["result"] == "fine"
    first, second, third, fourth, fifth = queue.logs(job_id)
    assert first["message"] == "nul \ufffd, surrogate \ufffd."
    assert second["message"] == "x" * 10_000
    metadata = third["metadata"]
    assert (
        metadata["nan"] == "nan"
        and metadata["big"] == str(2**70)
        and metadata["fine"] == [1, 2.5, None, True]
    )
    assert (
        metadata["text"] == "a\ufffd\ufffd"
        and metadata["when"] == str(when)
        and metadata["id"] == str(UUID(int=1))
    )
    assert metadata["odd"] == "<Odd, whose text raised RuntimeError>"
    assert metadata["keys"]["1"] == "one" and metadata["keys"]["b\ufffd"] == 2
    assert list(fourth["metadata"]) == ["left_out"]
    assert (fifth["message"], fifth["log_level"], fifth["metadata"]) == ("", "error", None)


async def test_an_unknown_level_is_refused_where_it_is_used(database18: Database) -> None:
    """ctx.log(level="fatal") raises in the handler, which may catch it; nothing is written."""

    @job_type("levels")
    async def levels(ctx: Context, params: Params) -> str:
        with pytest.raises(StreamVibeError, match="Use debug, info, warning or error"):
            ctx.log("x", level="fatal")
        with pytest.raises(StreamVibeError, match="Use 0 to 1"):
            ctx.progress(float("nan"))
        with pytest.raises(StreamVibeError, match="Use 0 to 1"):
            ctx.progress(1.1)
        return "caught"

    queue = Queue(database18)
    queue.register(levels)
    job_id = queue.request("levels")
    await run_all(database18, levels)
    assert queue.row(job_id)["result"] == "caught" and queue.logs(job_id) == []


async def test_progress_is_in_the_row_while_the_job_runs(database: Database) -> None:
    """The latest fraction and message reach the row of a running job, and completion makes it 1."""
    told, go = asyncio.Event(), asyncio.Event()

    @job_type("steps")
    async def steps(ctx: Context, params: Params) -> None:
        ctx.progress(0.1, "first")
        ctx.progress(0.25, "second \x00 half")
        told.set()
        await go.wait()

    queue = Queue(database)
    async with at_work(make_worker(database, steps)):
        queue.register(steps)
        job_id = queue.request("steps")
        await event(told, "the handler starts")
        await eventually(lambda: queue.row(job_id)["progress"] == 0.25, "the row says 0.25")
        assert queue.row(job_id)["progress_message"] == "second \ufffd half"
        go.set()
        assert (await queue.until(job_id))["progress"] == 1


async def test_the_last_progress_is_in_the_completed_row(database: Database) -> None:
    """What a handler says just before it returns is written, although the row told an earlier step just now."""
    go = asyncio.Event()

    @job_type("finishing")
    async def finishing(ctx: Context, params: Params) -> None:
        ctx.progress(0.8, "200 of 250")
        await go.wait()
        ctx.progress(1.0000000000000002, "250 of 250")

    queue = Queue(database)
    queue.register(finishing)
    async with at_work(make_worker(database, finishing, lease_after=timedelta(0))):
        job_id = queue.request("finishing")
        await eventually(lambda: queue.row(job_id)["progress_message"] == "200 of 250", "the row says 200")
        go.set()
        row = await queue.until(job_id)
    assert (row["status"], row["progress"], row["progress_message"]) == ("completed", 1, "250 of 250")


async def test_the_row_of_a_short_job_tells_no_progress(database18: Database) -> None:
    """A job that is over before its row says that it runs is completed in one write, which tells no progress."""

    @job_type("short")
    async def short(ctx: Context, params: Params) -> None:
        ctx.progress(-1e-9, "begins")

    queue = Queue(database18)
    queue.register(short)
    job_id = queue.request("short")
    await run_all(database18, short, lease_after=timedelta(hours=1))
    row = queue.row(job_id)
    assert (row["status"], row["progress"], row["progress_message"]) == ("completed", None, None)


async def test_metadata_may_be_named_message(database18: Database) -> None:
    """ctx.log("x", message=...) keeps the word that its own parameter has as metadata."""

    @job_type("named")
    async def named(ctx: Context, params: Params) -> None:
        ctx.log("x", message="dup", self=1)

    queue = Queue(database18)
    queue.register(named)
    job_id = queue.request("named")
    await run_all(database18, named)
    assert [line["metadata"] for line in queue.logs(job_id)] == [{"message": "dup", "self": 1}]


async def test_a_missing_log_partition_is_made(database18: Database) -> None:
    """When no leaf covers the present, the worker makes it and loses no line."""

    @job_type("late")
    async def late(ctx: Context, params: Params) -> None:
        await asyncio.to_thread(_drop_log_leaves, database18)
        ctx.log("kept")

    queue = Queue(database18)
    queue.register(late)
    job_id = queue.request("late")
    await run_all(database18, late)
    assert [line["message"] for line in queue.logs(job_id)] == ["kept"]
    assert queue.row(job_id)["status"] == "completed"


def _drop_log_leaves(database: Database) -> None:
    with database.connect(autocommit=False) as conn:
        leaves = conn.execute(
            "DELETE FROM streamvibe.partition WHERE parent_name = 'job_log' RETURNING partition_name"
        ).fetchall()
        for (leaf,) in leaves:
            conn.execute(f"DROP TABLE streamvibe.{leaf}".encode())


@pytest.mark.parametrize("what", ["locked", "killed"])
async def test_progress_that_could_not_be_written_is_written_later(database18: Database, what: str) -> None:
    """The only note of a handler outlives somebody's lock on the row, and a connection that breaks."""
    note, noted, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @job_type("lasting")
    async def lasting(ctx: Context, params: Params) -> None:
        await note.wait()
        ctx.progress(0.5, "half")
        noted.set()
        await go.wait()

    queue = Queue(database18)
    queue.register(lasting)
    async with at_work(make_worker(database18, lasting, lease_after=timedelta(0))):
        job_id = queue.request("lasting")
        await queue.until(job_id, "processing")
        with database18.connect(autocommit=False) as application:
            if what == "locked":
                application.execute("SELECT FROM job_queue WHERE id = %s FOR UPDATE", [job_id])
            else:
                queue.conn.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'streamvibe lease %'"
                )
            note.set()
            await event(noted, "it is noted")
            if what == "locked":
                await eventually(
                    lambda: queue.value(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'"
                        " AND application_name LIKE 'streamvibe lease %' AND query LIKE '%report_job_progress%'"
                    ),
                    "it is tried",
                )
        await eventually(lambda: queue.row(job_id)["progress"] == 0.5, "it arrives")
        assert queue.row(job_id)["progress_message"] == "half"
        go.set()
