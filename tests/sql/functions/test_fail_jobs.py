"""fail_jobs: retries with backoff, and failures for good."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue


def claimed(queue: Queue, count: int = 1, **settings: Any) -> list[kit.Row]:
    """Jobs that w1 holds."""
    kit.register(queue.conn, **settings)
    kit.worker(queue.conn, p_lease="1 day")
    for _ in range(count):
        kit.job_id(queue.conn)
    return kit.claim(queue.conn, limit=count)


def set_attempts(queue: Queue, attempts: int) -> None:
    """As if all jobs had failed so often."""
    queue.conn.execute("UPDATE public.job_queue SET retry_count = %s", [attempts])


def waits(queue: Queue, jobs: list[kit.Row]) -> list[timedelta]:
    """How long after its failure each job runs again, from fail_jobs and from the row alike."""
    answer = kit.fail(queue.conn, jobs)
    found = []
    for row in answer:
        job = kit.stored(queue.conn, row["job_id"])
        assert row["retry_at"] == (job["scheduled_for"] if job["status"] == "pending" else job["retry_at"])
        found.append(row["retry_at"] - job["updated_at"])
    return found


@pytest.mark.parametrize("attempts", [0, 1, 2, 3])
def test_backoff_is_exponential_with_full_jitter(queue: Queue, attempts: int) -> None:
    """The wait lies between 0 and base * 2^attempts, spread over all of it."""
    count = 120
    jobs = claimed(queue, count, p_max_attempts=100, p_backoff_base="8 seconds")
    set_attempts(queue, attempts)
    most = timedelta(seconds=8 * 2**attempts)
    found = waits(queue, jobs)
    assert timedelta(0) <= min(found) and max(found) <= most
    quarters = [sum(most * q / 4 <= wait < most * (q + 1) / 4 for wait in found) for q in range(4)]
    # A quarter of 120 waits is empty once in 10^15 runs.
    assert min(quarters) > 0, f"the waits are not spread: {quarters}"


@pytest.mark.parametrize("attempts", [3, 30, 98])
def test_backoff_has_a_maximum(queue: Queue, attempts: int) -> None:
    """However many attempts, never longer than backoff_max, and no overflow."""
    jobs = claimed(queue, 40, p_max_attempts=100, p_backoff_base="8 seconds", p_backoff_max="40 seconds")
    set_attempts(queue, attempts)
    found = waits(queue, jobs)
    assert timedelta(0) <= min(found) and max(found) <= timedelta(seconds=40)
    assert max(found) > timedelta(seconds=20), "the waits do not reach into the upper half"


def failure_of(queue: Queue, job_id: UUID) -> tuple[Any, ...]:
    """What the row says of it."""
    row = kit.stored(queue.conn, job_id)
    return row["status"], row["retry_count"], row["failure_kind"], row["error_message"], row["retry_at"]


def test_a_retry_in_place(queue: Queue) -> None:
    """A short wait is spent as pending: due after it, expiry counted from there, the failure readable."""
    [job] = claimed(queue)
    kit.lease(queue.conn, [job])
    [answer] = kit.fail(queue.conn, [job], failure={**kit.ERROR, "retry_after_seconds": 300})
    assert (answer["accepted"], answer["status"]) == (True, "pending")
    row = kit.stored(queue.conn, job["job_id"])
    assert failure_of(queue, job["job_id"]) == ("pending", 1, "error", "it broke", None)
    assert row["scheduled_for"] == row["updated_at"] + timedelta(seconds=300) == answer["retry_at"]
    assert row["expires_at"] == row["scheduled_for"] + kit.DAY
    assert (row["worker_id"], row["started_at"], row["completed_at"]) == (None, None, None)


def test_a_retry_much_later(queue: Queue) -> None:
    """A wait longer than five minutes is spent as failed, outside the user's limit, with retry_at."""
    [job] = claimed(queue)
    [answer] = kit.fail(queue.conn, [job], failure={**kit.ERROR, "retry_after_seconds": 300.001})
    row = kit.stored(queue.conn, job["job_id"])
    assert (answer["accepted"], answer["status"], answer["retry_at"]) == (True, "failed", row["retry_at"])
    assert (row["status"], row["retry_count"]) == ("failed", 1)
    assert row["retry_at"] - row["completed_at"] == timedelta(seconds=300.001)
    assert row["worker_id"] == "w1"
    for _ in range(10):
        kit.job_id(queue.conn, job["user_id"])


def test_attempts_are_counted(queue: Queue) -> None:
    """After the last attempt the job is failed for good; the attempt's number is what handlers were told."""
    claimed(queue, p_max_attempts=3)
    kit.release(queue.conn, [])
    queue.conn.execute("DELETE FROM streamvibe.claim")
    for attempt in (1, 2, 3):
        [job] = kit.claim(queue.conn)
        assert (job["attempt"], job["max_attempts"]) == (attempt, 3)
        [answer] = kit.fail(queue.conn, [job], failure={**kit.ERROR, "retry_after_seconds": 0})
    assert (answer["status"], answer["retry_at"]) == ("failed", None)
    assert failure_of(queue, job["job_id"]) == ("failed", 3, "error", "it broke", None)


@pytest.mark.parametrize(
    "failure",
    [
        kit.PERMANENT,
        {"kind": "error", "message": "m"},
        {},
        {"retryable": False, "retry_after_seconds": 1},
    ],
)
def test_failures_for_good(queue: Queue, failure: kit.Row) -> None:
    """What is not marked retryable is never retried, whatever attempts remain."""
    [job] = claimed(queue)
    [answer] = kit.fail(queue.conn, [job], failure=failure)
    assert (answer["accepted"], answer["status"], answer["retry_at"]) == (True, "failed", None)
    kind = failure.get("kind", "error")
    assert failure_of(queue, job["job_id"]) == ("failed", 1, kind, failure.get("message"), None)
    row = kit.stored(queue.conn, job["job_id"])
    assert row["created_at"] <= row["started_at"] <= row["completed_at"]


def test_each_job_its_own_failure(queue: Queue) -> None:
    """One call, one answer per job, each with its own fate; messages are cut at 10,000 characters."""
    jobs = claimed(queue, 3)
    failures = [
        kit.PERMANENT,
        {**kit.ERROR, "retry_after_seconds": 10},
        {**kit.PERMANENT, "message": "é" * 10001},
    ]
    answer = kit.call(queue.service, "fail_jobs", **kit.held(jobs), p_failures=failures)
    assert [row["job_id"] for row in answer] == [job["job_id"] for job in jobs]
    assert [row["status"] for row in answer] == ["failed", "pending", "failed"]
    assert kit.stored(queue.conn, jobs[2]["job_id"])["error_message"] == "é" * 10000


@pytest.mark.parametrize(
    "failure",
    [
        None,
        [],
        "text",
        {"kind": 5},
        {"message": ["a"]},
        {"retryable": "yes"},
        {"retryable": True, "retry_after_seconds": -1},
        {"retryable": True, "retry_after_seconds": 1e300},
        {"retryable": True, "retry_after_seconds": "soon"},
    ],
)
def test_refused(queue: Queue, failure: Any) -> None:
    """A failure that cannot be read is refused with what was received; the job is still held."""
    jobs = claimed(queue, 2)
    bad = None if failure is None else Jsonb(failure)
    with kit.refused("SV001", "p_failures"):
        kit.call(queue.conn, "fail_jobs", **kit.held(jobs), p_failures=[Jsonb(kit.ERROR), bad])
    assert kit.complete(queue.conn, jobs) == []
