"""cancel_jobs and retry_jobs: a user's own jobs, several at once, one outcome each."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection, IsolationLevel
from tests.sql import kit
from tests.sql.conftest import Queue

LATER = {**kit.ERROR, "retry_after_seconds": 3600}


def cancel(conn: Connection[Any], user_id: UUID, ids: list[UUID]) -> list[kit.Row]:
    """One call."""
    return kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=ids)


def retry(conn: Connection[Any], user_id: UUID, ids: list[UUID]) -> list[kit.Row]:
    """One call."""
    return kit.call(conn, "retry_jobs", p_user_id=user_id, p_job_ids=ids)


def failed(queue: Queue, user_id: UUID, failure: kit.Row = LATER, **arguments: Any) -> UUID:
    """A failed job of this user."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    job_id = kit.job_id(queue.conn, user_id, p_priority=9, **arguments)
    [answer] = kit.fail(queue.conn, kit.claim(queue.conn), failure=failure)
    assert (answer["job_id"], answer["status"]) == (job_id, "failed")
    return job_id


def test_cancelling_many_reads_the_lists_once(queue: Queue) -> None:
    """Which of them workers hold is asked once for all, not once for each."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    user_id = uuid4()
    ids = [kit.job_id(queue.conn, user_id) for _ in range(8)]
    assert len(kit.claim(queue.conn, limit=4)) == 4
    with queue.conn.transaction():
        queue.conn.execute("SET LOCAL track_functions = 'all'")
        assert {row["outcome"] for row in cancel(queue.conn, user_id, ids)} == {"cancelled"}
        looks = (
            "SELECT sum(calls) FROM pg_stat_xact_user_functions "
            "WHERE schemaname = 'streamvibe' AND funcname IN ('live_claims', 'is_held')"
        )
        assert kit.value(queue.conn, looks) == 1


def test_cancel(queue: Queue) -> None:
    """A row per id in the order given, each id once: cancelled, unchanged when finished, not found."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    user_id = uuid4()
    done, held, leased, waiting = (kit.job_id(queue.conn, user_id) for _ in range(4))
    jobs = kit.claim(queue.conn, limit=3)
    kit.complete(queue.conn, jobs[:1])
    kit.lease(queue.conn, jobs[2:])
    foreign = kit.job_id(queue.conn)
    unknown = uuid4()
    rows = cancel(queue.as_user(user_id), user_id, [waiting, unknown, done, held, waiting, foreign, leased])
    assert [(row["job_id"], row["outcome"], row["status"]) for row in rows] == [
        (waiting, "cancelled", "cancelled"),
        (unknown, "not_found", None),
        (done, "unchanged", "completed"),
        (held, "cancelled", "cancelled"),
        (foreign, "not_found", None),
        (leased, "cancelled", "cancelled"),
    ]
    assert kit.status(queue.conn, foreign) == "pending"
    assert kit.stored(queue.conn, waiting)["completed_at"] is not None
    assert {row["outcome"] for row in cancel(queue.conn, user_id, [waiting, held])} == {"unchanged"}


def test_cancel_before_a_retry(queue: Queue) -> None:
    """A failed job that would come back by itself is cancelled, and stays so; one that failed for good is not."""
    user_id = uuid4()
    waiting = failed(queue, user_id)
    for_good = failed(queue, user_id, kit.PERMANENT)
    rows = cancel(queue.as_user(user_id), user_id, [waiting, for_good])
    assert [(row["outcome"], row["status"]) for row in rows] == [
        ("cancelled", "cancelled"),
        ("unchanged", "failed"),
    ]
    job = kit.get_job(queue.conn, waiting)
    assert (job["retry_at"], job["error_message"]) == (None, "it broke")
    assert [row["outcome"] for row in retry(queue.conn, user_id, [waiting])] == ["not_failed"]
    queue.conn.execute("UPDATE public.job_queue SET retry_at = streamvibe.now() WHERE retry_at IS NOT NULL")
    assert kit.call_one(queue.conn, "retry_failed_jobs") == {"retry_failed_jobs": 0}


def test_cancel_tells_the_worker(queue: Queue) -> None:
    """The worker that holds a cancelled job hears of it at once and at its next heartbeat; others do not."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    user_id = uuid4()
    held = kit.job_id(queue.conn, user_id, p_priority=9)
    waiting = kit.job_id(queue.conn, user_id)
    jobs = kit.claim(queue.conn)
    listener = queue.database.connect()
    listener.execute("LISTEN streamvibe_cancel")
    cancel(queue.conn, user_id, [held, waiting])
    assert [note.payload for note in listener.notifies(timeout=10, stop_after=1)] == [str(held)]
    assert list(listener.notifies(timeout=0)) == []
    listener.close()
    told = kit.call(queue.conn, "heartbeat_worker", **kit.held(jobs))
    assert told == [{"job_id": held, "reason": "cancelled"}]
    [refusal] = kit.complete(queue.conn, jobs)
    assert refusal == {"job_id": held, "status": "cancelled"}


def test_retry(queue: Queue) -> None:
    """A failed job with attempts left comes back at once: pending, due now, its old failure still readable."""
    user_id = uuid4()
    job_id = failed(queue, user_id)
    assert retry(queue.as_user(user_id), user_id, [job_id]) == [
        {"job_id": job_id, "outcome": "retried", "status": "pending"}
    ]
    job = kit.get_job(queue.conn, job_id)
    assert (job["status"], job["retry_count"], job["failure_kind"]) == ("pending", 1, "error")
    assert (job["completed_at"], job["retry_at"], job["started_at"], job["worker_id"]) == (None,) * 4
    assert job["expires_at"] == job["scheduled_for"] + kit.DAY
    [claimed] = kit.claim(queue.conn)
    assert (claimed["job_id"], claimed["attempt"]) == (job_id, 2)


def test_retry_answers_in_the_order_given(queue: Queue) -> None:
    """A row per id, in the order in which the ids were first given, whatever the order in which rows are locked."""
    user_id = uuid4()
    ids = [failed(queue, user_id, p_params={"n": n}) for n in range(3)] + [uuid4()]
    given = [ids[2], ids[3], ids[0], ids[2], ids[1]]
    rows = retry(queue.as_user(user_id), user_id, given)
    assert [row["job_id"] for row in rows] == [ids[2], ids[3], ids[0], ids[1]]
    assert [row["outcome"] for row in rows] == ["retried", "not_found", "retried", "retried"]


def test_retry_is_refused(queue: Queue) -> None:
    """Each reason has its own outcome, and the job stays as it was."""
    conn = queue.conn
    user_id = uuid4()
    permanent = failed(queue, user_id, kit.PERMANENT)
    twin = failed(queue, user_id, p_params={"twin": True})
    live = kit.job_id(conn, user_id, p_params={"twin": True})
    kit.register(conn, "once", p_max_attempts=1)
    spent = kit.job_id(conn, user_id, "once", p_priority=9)
    kit.fail(conn, kit.claim(conn))
    expired = kit.job_id(conn, user_id)
    conn.execute("UPDATE public.job_queue SET expires_at = scheduled_for WHERE id = %s", [expired])
    kit.call(conn, "expire_stale_jobs")
    wanted = {
        permanent: ("not_retryable", "failed"),
        twin: ("has_twin", "failed"),
        live: ("not_failed", "pending"),
        spent: ("attempts_exhausted", "failed"),
        expired: ("not_retryable", "failed"),
        kit.job_id(conn): ("not_found", None),
        uuid4(): ("not_found", None),
    }
    rows = retry(queue.as_user(user_id), user_id, list(wanted))
    assert {row["job_id"]: (row["outcome"], row["status"]) for row in rows} == wanted


def test_retry_waits_for_room(queue: Queue) -> None:
    """At the limit a job stays failed; of several, as many come back as there is room."""
    conn = queue.conn
    user_id = uuid4()
    ids = [failed(queue, user_id) for _ in range(4)]
    for _ in range(8):
        kit.job_id(conn, user_id)
    rows = retry(conn, user_id, ids)
    assert sorted(row["outcome"] for row in rows) == ["at_limit"] * 2 + ["retried"] * 2
    kit.register(conn, "sync", p_max_live_jobs=0)
    conn.execute("UPDATE public.job_queue SET job_type = 'sync' WHERE id = %s", [ids[0]])
    conn.execute("DELETE FROM public.job_queue WHERE id <> %s", [ids[0]])
    conn.execute("UPDATE public.job_queue SET status = 'failed', completed_at = now(), retry_at = now()")
    assert retry(conn, user_id, [ids[0]])[0]["outcome"] == "at_limit"


@pytest.mark.parametrize("function", ["cancel_jobs", "retry_jobs"])
def test_refused(queue: Queue, function: str) -> None:
    """A list of 1 to 10,000 ids without NULLs; the user's own id, or the service's word for it."""
    user_id = uuid4()
    for ids in (None, [], [uuid4(), None], [uuid4()] * 10001):
        with kit.refused("SV001", "p_job_ids"):
            kit.call(queue.conn, function, p_user_id=user_id, p_job_ids=ids)
    with kit.refused("SV001", "p_user_id"):
        kit.call(queue.service, function, p_user_id=None, p_job_ids=[uuid4()])
    with kit.refused("SV004", "p_user_id"):
        kit.call(queue.as_user(uuid4()), function, p_user_id=user_id, p_job_ids=[uuid4()])


def test_retry_needs_read_committed(queue: Queue) -> None:
    """In a snapshot transaction a retry could make a twin: refused."""
    conn = queue.database.as_service(autocommit=False)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    with kit.refused("SV006", "transaction_isolation"):
        retry(conn, uuid4(), [uuid4()])
    conn.close()
