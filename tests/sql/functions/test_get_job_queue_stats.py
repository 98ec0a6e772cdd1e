"""get_job_queue_stats: one row that equals a count by hand."""

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

STATES = ("pending", "processing", "completed", "failed", "cancelled")


def test_empty(queue: Queue) -> None:
    """Nothing counted, nothing divided by zero."""
    assert kit.call_one(queue.service, "get_job_queue_stats") == {
        "total_jobs": 0,
        **{f"{state}_jobs": 0 for state in STATES},
        "avg_processing_seconds": None,
        "avg_wait_seconds": None,
        "error_rate": None,
        "jobs_by_type": {},
    }


def test_equals_a_count_by_hand(queue: Queue) -> None:
    """Totals, averages, error rate and the table by type, from the jobs one by one."""
    conn = queue.conn
    for name in ("email", "sms"):
        kit.register(conn, name)
    kit.worker(conn)
    ids = [kit.job_id(conn, job_type=("email", "sms")[n % 3 == 0]) for n in range(30)]
    jobs = kit.claim(conn, limit=25)
    kit.complete(conn, jobs[:10])
    kit.fail(conn, jobs[10:14], failure=kit.PERMANENT)
    kit.lease(conn, jobs[14:18])
    kit.fail(conn, jobs[18:19])
    cancelled = jobs[19]
    kit.call(conn, "cancel_jobs", p_user_id=cancelled["user_id"], p_job_ids=[cancelled["job_id"]])
    # As if they had waited and run for a while.
    conn.execute(
        "UPDATE public.job_queue SET scheduled_for = scheduled_for - interval '10 s' * job_priority, "
        "completed_at = completed_at + interval '1 s' * (1 + job_priority) WHERE status = 'completed'"
    )
    every = [kit.get_job(conn, job_id) for job_id in ids]
    by_state = {state: [job for job in every if job["status"] == state] for state in STATES}
    done = by_state["completed"]
    assert {state: len(found) for state, found in by_state.items()} == {
        "pending": 6,
        "processing": 9,
        "completed": 10,
        "failed": 4,
        "cancelled": 1,
    }
    stats = kit.call_one(queue.service, "get_job_queue_stats")
    assert stats["total_jobs"] == 30
    assert {state: stats[f"{state}_jobs"] for state in STATES} == {
        state: len(found) for state, found in by_state.items()
    }
    running = sum((job["completed_at"] - job["started_at"]).total_seconds() for job in done) / len(done)
    waiting = sum((job["started_at"] - job["scheduled_for"]).total_seconds() for job in done) / len(done)
    assert stats["avg_processing_seconds"] == pytest.approx(running, abs=1e-6)
    assert stats["avg_wait_seconds"] == pytest.approx(waiting, abs=1e-6)
    assert stats["error_rate"] == pytest.approx(4 / 14)
    counted: dict[str, dict[str, int]] = {}
    for job in every:
        states = counted.setdefault(job["job_type"], {})
        states[job["status"]] = states.get(job["status"], 0) + 1
    assert stats["jobs_by_type"] == counted
