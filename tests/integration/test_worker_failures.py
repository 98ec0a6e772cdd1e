"""A handler that raises: whatever it is, that job alone pays, by the rule its error asks for."""

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.worker_kit import Queue, at_work, make_worker, run_all
from tests.support.databases import Database

from streamvibe import Context, JobCancelled, JobType, PermanentError, RetryLater, job_type

Params = dict[str, Any]


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def _raise(error: BaseException) -> None:
    raise error


def _recurse() -> int:
    return _recurse() + 1


# What the handler raises, and what the job's error_message says.
ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "exception": (lambda: _raise(ValueError("odd value")), "ValueError: odd value"),
    "without text": (lambda: _raise(ValueError()), "ValueError"),
    "system exit": (lambda: _raise(SystemExit(3)), "SystemExit: 3"),
    "keyboard interrupt": (lambda: _raise(KeyboardInterrupt()), "KeyboardInterrupt"),
    "generator exit": (lambda: _raise(GeneratorExit("closed")), "GeneratorExit: closed"),
    "cancelled error": (lambda: _raise(asyncio.CancelledError("own")), "CancelledError: own"),
    "job cancelled": (lambda: _raise(JobCancelled()), "JobCancelled: The job was cancelled."),
    "stop iteration": (lambda: next(iter(())), "StopIteration"),
    "stop async iteration": (lambda: _raise(StopAsyncIteration("end")), "StopAsyncIteration: end"),
    "group": (
        lambda: _raise(BaseExceptionGroup("several", [SystemExit(1), ValueError("first cause")])),
        "first cause",
    ),
    "text raises": (lambda: _raise(UnspeakableError()), "UnspeakableError: its text raised RuntimeError"),
    "nul in the text": (lambda: _raise(ValueError("a\x00b")), "ValueError: a\ufffdb"),
    "surrogate in the text": (lambda: _raise(ValueError("a\ud83db")), "ValueError: a\ufffdb"),
    "long text": (lambda: _raise(ValueError("x" * 50_000)), "x" * 9_000),
    "recursion": (_recurse, "RecursionError"),
}


def _jobs(**settings: Any) -> tuple[JobType[Any, Any], JobType[Any, Any]]:
    """An async and a plain job type that raise what their params name."""

    @job_type("raises", **settings)
    async def raises(ctx: Context, params: Params) -> str:
        await asyncio.sleep(0)
        if "kind" in params:
            ERRORS[params["kind"]][0]()
        return "fine"

    @job_type("raises.plain", **settings)
    def raises_plain(ctx: Context, params: Params) -> str:
        if "kind" in params:
            ERRORS[params["kind"]][0]()
        return "fine"

    return raises, raises_plain


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_whatever_a_handler_raises_fails_its_job_alone(database: Database, plain: bool) -> None:
    """SystemExit, CancelledError, StopIteration, unprintable errors: an error each; the same batch completes."""
    raising = _jobs(max_attempts=1)[plain]
    queue = Queue(database)
    queue.register(raising)
    bad = {kind: queue.request(raising.name, {"kind": kind}) for kind in ERRORS}
    good = [queue.request(raising.name) for _ in range(5)]
    await run_all(database, raising, concurrency=30)
    for kind, job_id in bad.items():
        row = queue.row(job_id)
        assert (row["status"], row["failure_kind"], row["retry_count"]) == ("failed", "error", 1), kind
        assert ERRORS[kind][1] in row["error_message"], kind
        assert len(row["error_message"]) <= 10_000
        [line] = queue.logs(job_id)
        assert line["log_level"] == "error" and ERRORS[kind][1] in line["message"], kind
        assert len(line["message"]) <= 10_000 and len(line["metadata"]["frames"]) <= 5
    assert {queue.row(job_id)["status"] for job_id in good} == {"completed"}


async def test_a_permanent_error_is_not_retried(database18: Database) -> None:
    """PermanentError, also inside a task group's, fails the job at its first attempt, for good."""

    @job_type("gone")
    async def gone(ctx: Context, params: Params) -> None:
        if params.get("grouped"):
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail_permanently())
        await _fail_permanently()

    async def _fail_permanently() -> None:
        raise PermanentError("the channel was deleted")

    queue = Queue(database18)
    queue.register(gone)
    jobs = [queue.request("gone"), queue.request("gone", {"grouped": True})]
    assert await run_all(database18, gone) == 2
    for job_id in jobs:
        row = queue.row(job_id)
        assert (row["status"], row["failure_kind"], row["retry_at"]) == ("failed", "permanent", None)
        assert row["error_message"] == "the channel was deleted"
    assert queue.value("SELECT retry_failed_jobs()") == 0


async def test_why_each_attempt_failed_is_in_the_jobs_log(database18: Database) -> None:
    """Type, message and where: the job's row keeps the last message alone, the log all of them; no path, no source."""

    @job_type("flaky", max_attempts=3, backoff_base=timedelta(0), backoff_max=timedelta(0))
    def flaky(ctx: Context, params: Params) -> None:
        ctx.log("begun")
        if ctx.attempt == 1:
            _deeply(20)
        if ctx.attempt == 2:
            raise BaseExceptionGroup("tasks", [KeyError("b")])
        raise PermanentError("it never works")

    def _deeply(levels: int) -> None:
        if levels:
            _deeply(levels - 1)
        raise OSError("connection reset")

    queue = Queue(database18)
    queue.register(flaky)
    job_id = queue.request("flaky")
    assert await run_all(database18, flaky) == 3
    lines = [(line["log_level"], line["message"]) for line in queue.logs(job_id)]
    assert lines == [
        ("info", "begun"),
        ("error", "OSError: connection reset"),
        ("info", "begun"),
        ("error", "KeyError: 'b'"),
        ("info", "begun"),
        ("error", "it never works"),
    ]
    first, _, third = (line["metadata"] for line in queue.logs(job_id) if line["log_level"] == "error")
    assert (first["attempt"], third["attempt"], len(first["frames"]), len(third["frames"])) == (1, 3, 5, 1)
    for frame, name in ((first["frames"][-1], "_deeply"), (third["frames"][-1], "flaky")):
        assert re.fullmatch(rf"test_worker_failures\.py:\d+ in .*{name}", frame), frame


async def test_errors_are_retried_until_attempts_are_exhausted(database18: Database) -> None:
    """ctx.attempt counts 1, 2, 3; after max_attempts the job has failed and cannot be retried."""
    attempts: list[tuple[int, int]] = []

    @job_type("flaky", max_attempts=3, backoff_base=timedelta(0), backoff_max=timedelta(0))
    async def flaky(ctx: Context, params: Params) -> None:
        attempts.append((ctx.attempt, ctx.max_attempts))
        raise OSError("connection reset")

    queue = Queue(database18)
    queue.register(flaky)
    job_id = queue.request("flaky")
    assert await run_all(database18, flaky) == 3
    assert attempts == [(1, 3), (2, 3), (3, 3)]
    row = queue.row(job_id)
    assert (row["status"], row["retry_count"], row["failure_kind"]) == ("failed", 3, "error")
    [(outcome,)] = queue.conn.execute(
        "SELECT outcome FROM retry_jobs(%s, %s)", [queue.value("SELECT user_id FROM job_queue"), [job_id]]
    ).fetchall()
    assert outcome == "attempts_exhausted"


async def test_a_job_that_recovers_completes_and_forgets_its_failure(database18: Database) -> None:
    """Failing once and then returning leaves a completed job without an error."""

    @job_type("flaky", backoff_base=timedelta(0), backoff_max=timedelta(0))
    def flaky(ctx: Context, params: Params) -> int:
        if ctx.attempt == 1:
            raise OSError("connection reset")
        return ctx.attempt

    queue = Queue(database18)
    queue.register(flaky)
    job_id = queue.request("flaky")
    assert await run_all(database18, flaky) == 2
    row = queue.row(job_id)
    assert (row["status"], row["result"], row["error_message"]) == ("completed", 2, None)


async def test_retry_later_waits_as_long_as_it_says(database18: Database) -> None:
    """A short wait is spent as pending, a long one as failed with retry_at, until retry_failed_jobs finds it."""
    attempts: list[tuple[str, int]] = []

    @job_type("quota")
    async def quota(ctx: Context, params: Params) -> str:
        attempts.append((params["for"], ctx.attempt))
        if ctx.attempt == 1:
            raise RetryLater(params["seconds"], "quota exhausted")
        return "done"

    queue = Queue(database18)
    queue.register(quota)
    short = queue.request("quota", {"for": "short", "seconds": 60})
    long = queue.request("quota", {"for": "long", "seconds": 36_000})
    endless = queue.request("quota", {"for": "endless", "seconds": 1e300})
    assert await run_all(database18, quota) == 3
    now = queue.value("SELECT streamvibe.now()")
    row = queue.row(short)
    assert (row["status"], row["failure_kind"], row["error_message"]) == (
        "pending",
        "retry_later",
        "quota exhausted",
    )
    assert timedelta(seconds=50) < row["scheduled_for"] - now <= timedelta(seconds=60)
    row = queue.row(long)
    assert row["status"] == "failed"
    assert timedelta(seconds=35_900) < row["retry_at"] - now <= timedelta(seconds=36_000)
    assert queue.row(endless)["retry_at"] - now <= timedelta(days=366)

    database18.advance_clock(timedelta(seconds=61))
    assert queue.value("SELECT retry_failed_jobs()") == 0
    assert await run_all(database18, quota) == 1
    database18.advance_clock(timedelta(hours=10))
    assert queue.value("SELECT retry_failed_jobs()") == 1
    assert await run_all(database18, quota) == 1
    assert queue.row(short)["result"] == queue.row(long)["result"] == "done"
    assert ("short", 2) in attempts and ("long", 2) in attempts


async def test_a_worker_goes_on_after_every_kind_of_error(database18: Database) -> None:
    """The same running worker takes the next job after each of them."""
    raising = _jobs(max_attempts=1)
    queue = Queue(database18)
    async with at_work(make_worker(database18, *raising)):
        for kind in ERRORS:
            for which in raising:
                queue.register(which)
                job_id = queue.request(which.name, {"kind": kind})
                assert (await queue.until(job_id))["status"] == "failed"
        assert (await queue.until(queue.request("raises")))["status"] == "completed"


async def test_every_end_but_a_completion_is_logged(
    database18: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What failed for good, ran out of time, cannot be read or is put off has one line, with what the handler wrote.

    It names the job, and has no data of its params or result.
    """
    caplog.set_level(logging.INFO, "streamvibe.worker")

    @job_type("ends", timeout=timedelta(milliseconds=100), max_attempts=1)
    async def ends(ctx: Context, params: dict[str, str]) -> int:
        match params["how"]:
            case "permanent":
                raise PermanentError("no such channel")
            case "later":
                raise RetryLater(60, "the quota is spent")
            case "timeout":
                await asyncio.sleep(60)
            case "result":
                return "secret"  # type: ignore[return-value]
        return 1

    queue = Queue(database18)
    queue.register(ends)
    ways = ("permanent", "later", "timeout", "result", "completed")
    ids = {way: queue.request("ends", {"how": way}) for way in ways} | {
        "params": queue.request("ends", {"how": 1})
    }
    await run_all(database18, ends)
    lines = [record.message for record in caplog.records if record.message.startswith("job_")]
    assert sorted(lines) == sorted(
        [
            f"job_retried_later job_id={ids['later']} job_type=ends attempt=1 max_attempts=1 "
            'message="the quota is spent"',
            f"job_failed kind=permanent job_id={ids['permanent']} job_type=ends attempt=1 max_attempts=1 "
            'message="no such channel"',
        ]
        + [
            f"job_failed kind={kind} job_id={ids[way]} job_type=ends attempt=1 max_attempts=1"
            for way, kind in (
                ("timeout", "timeout"),
                ("result", "invalid_result"),
                ("params", "invalid_params"),
            )
        ]
    )
