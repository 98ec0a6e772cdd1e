"""explain_job_wait: why a job is not running, asked of what claims with."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue


def why(queue: Queue, job_id: UUID) -> list[kit.Row]:
    return kit.call(queue.service, "explain_job_wait", p_job_id=job_id)


def reasons(queue: Queue, job_id: UUID) -> list[str]:
    return [row["reason"] for row in why(queue, job_id)]


@pytest.fixture
def ready(queue: Queue) -> Queue:
    """Type `email`, and a worker for it."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    return queue


def test_next(ready: Queue) -> None:
    """Nothing stands in its way; asking takes nothing away from a claim."""
    job_id = kit.job_id(ready.conn)
    assert reasons(ready, job_id) == ["next"]
    assert [job["job_id"] for job in kit.claim(ready.conn)] == [job_id]
    [row] = why(ready, job_id)
    assert row["reason"] == "running" and "w1" in row["message"]


def test_behind(ready: Queue) -> None:
    """Behind those that are due first; the estimate comes from what ended in the last minutes."""
    first = [kit.job_id(ready.conn) for _ in range(6)]
    job_id = kit.job_id(ready.conn)
    kit.job_id(ready.conn)
    [row] = why(ready, job_id)
    assert (row["reason"], row["jobs_ahead"], row["ready_at"]) == ("behind", 6, None)
    kit.complete(ready.conn, kit.claim(ready.conn, limit=3))
    now = kit.value(ready.conn, "SELECT streamvibe.now()")
    [row] = why(ready, job_id)
    assert row["jobs_ahead"] == 3
    # Three in ten minutes.
    assert abs((row["ready_at"] - now).total_seconds() - 600) < 60
    urgent = kit.job_id(ready.conn, p_priority=9)
    assert reasons(ready, urgent) == ["next"]
    assert first[3] != urgent


def test_scheduled_and_backoff(ready: Queue) -> None:
    """When it is due."""
    later = kit.job_id(ready.conn, p_scheduled_for="2999-01-01")
    [row] = why(ready, later)
    assert (row["reason"], row["ready_at"].year) == ("scheduled", 2999)
    failing = kit.job_id(ready.conn)
    kit.fail(ready.conn, kit.claim(ready.conn), failure={**kit.ERROR, "retry_after_seconds": 60})
    [row] = why(ready, failing)
    assert row["reason"] == "backoff" and row["ready_at"] == kit.get_job(ready.conn, failing)["scheduled_for"]


def test_times_read_alike_whoever_asks(ready: Queue) -> None:
    """In a message they are in UTC and say so, as everywhere on the command line, whatever the session's time zone."""
    ready.service.execute("SET TimeZone = 'America/New_York'")
    later = kit.job_id(ready.conn, p_scheduled_for="2999-01-01 12:30:00Z")
    [row] = why(ready, later)
    assert row["message"] == "it was asked for then: 2999-01-01 12:30:00Z"
    at = "SELECT streamvibe.in_utc(%s::timestamptz)"
    assert kit.value(ready.conn, at, "infinity") == "infinity"
    assert kit.value(ready.conn, at, None) is None


def test_a_later_retry(ready: Queue) -> None:
    """When it comes back; and that the limit, or a twin, keeps it out then."""
    user_id = uuid4()
    failed = kit.job_id(ready.conn, user_id, p_params={"n": 0})
    kit.fail(ready.conn, kit.claim(ready.conn), failure={**kit.ERROR, "retry_after_seconds": 3600})
    [row] = why(ready, failed)
    assert (row["reason"], row["ready_at"]) == ("retry_later", kit.get_job(ready.conn, failed)["retry_at"])
    others = [kit.job_id(ready.conn, user_id, p_params={"n": n}) for n in range(1, 11)]
    rows = why(ready, failed)
    assert [row["reason"] for row in rows] == ["retry_later", "at_limit"]
    assert rows[1]["job_ids"] == others
    kit.call(ready.conn, "cancel_jobs", p_user_id=user_id, p_job_ids=others)
    twin = kit.job_id(ready.conn, user_id, p_params={"n": 0}, p_force=True)
    ready.conn.execute("UPDATE job_queue SET retry_at = '2020-01-01' WHERE id = %s", [failed])
    rows = why(ready, failed)
    assert [(row["reason"], row["job_ids"]) for row in rows] == [("has_twin", [twin])]


def test_no_worker(queue: Queue) -> None:
    """No worker at all, one for another type, and one whose lease is over."""
    kit.register(queue.conn)
    kit.register(queue.conn, "sms")
    job_id = kit.job_id(queue.conn)
    assert reasons(queue, job_id) == ["no_worker"]
    kit.worker(queue.conn, p_job_types=["sms"])
    assert reasons(queue, job_id) == ["no_worker"]
    kit.worker(queue.conn, "w2")
    assert reasons(queue, job_id) == ["next"]
    kit.kill_worker(queue.conn, "w2")
    assert reasons(queue, job_id) == ["no_worker"]


def test_paused(ready: Queue) -> None:
    """Everything that is paused and concerns it, with the reasons."""
    user_id = uuid4()
    job_id = kit.job_id(ready.conn, user_id)
    kit.call(ready.service, "pause_jobs", p_user_id=user_id, p_reason="fraud")
    kit.call(ready.service, "pause_jobs", p_job_type="email")
    rows = why(ready, job_id)
    assert [row["reason"] for row in rows] == ["paused", "paused"]
    assert "fraud" in rows[1]["message"]
    assert reasons(ready, kit.job_id(ready.conn)) == ["paused"]
    seen = kit.call(ready.as_user(user_id), "explain_job_wait", p_job_id=job_id)
    assert [row["reason"] for row in seen] == ["paused", "paused"] and "fraud" not in str(seen)


def test_locked(ready: Queue) -> None:
    """A forgotten transaction has its row: claims pass it over, and this says so."""
    job_id = kit.job_id(ready.conn)
    with ready.database.connect() as other, other.transaction():
        other.execute("SELECT id FROM job_queue WHERE id = %s FOR UPDATE", [job_id])
        assert kit.claim(ready.conn) == []
        assert reasons(ready, job_id) == ["locked"]
    assert reasons(ready, job_id) == ["next"]


def test_isolated(ready: Queue) -> None:
    """A worker died with several jobs: each waits to run alone."""
    jobs = [kit.job_id(ready.conn) for _ in range(2)]
    kit.claim(ready.conn, limit=2)
    kit.kill_worker(ready.conn)
    kit.call(ready.service, "recover_stuck_jobs")
    kit.worker(ready.conn, "w2")
    assert reasons(ready, jobs[0]) == ["isolated"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(kit.PERMANENT, "finished"), (kit.ERROR, "attempts_exhausted"), (None, "finished")],
)
def test_ended(queue: Queue, failure: Any, expected: str) -> None:
    """Completed, failed for good, and out of attempts."""
    kit.register(queue.conn, p_max_attempts=1)
    kit.worker(queue.conn)
    job_id = kit.job_id(queue.conn)
    jobs = kit.claim(queue.conn)
    if failure is None:
        kit.complete(queue.conn, jobs)
    else:
        kit.fail(queue.conn, jobs, failure=failure)
    assert reasons(queue, job_id) == [expected]


def test_users(ready: Queue) -> None:
    """A user learns it of their own jobs; another's, and one that is not there, are not found."""
    user_id = uuid4()
    job_id = kit.job_id(ready.conn, user_id)
    [row] = kit.call(ready.as_user(user_id), "explain_job_wait", p_job_id=job_id)
    assert row["reason"] == "next"
    for conn, wanted in ((ready.as_user(uuid4()), job_id), (ready.service, uuid4()), (ready.service, None)):
        assert kit.call(conn, "explain_job_wait", p_job_id=wanted) == []
    assert kit.call(ready.service, "explain_job_wait", p_job_id=job_id, p_user_id=uuid4()) == []
