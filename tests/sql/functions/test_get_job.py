"""get_job and get_job_result: one job, as its owner and the service see it."""

from uuid import uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

RESULT_COLUMNS = ["job_id", "status", "result", "failure_kind", "error_message", "completed_at"]


def test_every_state(queue: Queue) -> None:
    """A claimed job is processing though its row says pending; every column follows the job's life."""
    conn = queue.conn
    user_id = uuid4()
    kit.register(conn)
    kit.worker(conn)
    job_id = kit.job_id(queue.as_user(user_id), user_id, p_idempotency_key="k")
    assert kit.get_job(conn, job_id)["status"] == "pending"
    jobs = kit.claim(conn)
    assert kit.stored(conn, job_id)["status"] == "pending"
    assert kit.get_job(conn, job_id)["status"] == "processing"
    kit.lease(conn, jobs)
    kit.call(conn, "report_job_progress", **kit.held(jobs), p_progress=[0.25], p_messages=["a quarter"])
    job = kit.get_job(conn, job_id)
    assert (job["status"], job["progress"], job["progress_message"]) == ("processing", 0.25, "a quarter")
    assert (job["worker_id"], job["idempotency_key"]) == ("w1", "k")
    kit.complete(conn, jobs, result={"videos": 3})
    done = kit.get_job(conn, job_id)
    assert (done["status"], done["result"], done["progress"]) == ("completed", {"videos": 3}, 1.0)
    assert done["created_at"] <= done["started_at"] <= done["completed_at"] == done["updated_at"]


def test_result(queue: Queue) -> None:
    """NULL until completed; a failure's kind and message where it failed."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    good, bad = kit.job_id(conn), kit.job_id(conn)
    row = kit.call_one(conn, "get_job_result", p_job_id=good)
    assert list(row) == RESULT_COLUMNS
    assert (row["status"], row["result"], row["completed_at"]) == ("pending", None, None)
    jobs = kit.claim(conn, limit=2)
    assert kit.call_one(conn, "get_job_result", p_job_id=good)["status"] == "processing"
    kit.complete(conn, jobs[:1], result={"n": 1})
    kit.fail(conn, jobs[1:], failure=kit.PERMANENT)
    assert kit.call_one(conn, "get_job_result", p_job_id=good)["result"] == {"n": 1}
    row = kit.call_one(conn, "get_job_result", p_job_id=bad)
    assert (row["status"], row["failure_kind"], row["error_message"]) == (
        "failed",
        "permanent",
        "it never works",
    )


@pytest.mark.parametrize("function", ["get_job", "get_job_result"])
def test_whose(queue: Queue, function: str) -> None:
    """Users find their own job and no other's; the service finds any, or only the named user's."""
    kit.register(queue.conn)
    user_id, stranger = uuid4(), uuid4()
    job_id = kit.job_id(queue.conn, user_id)
    found = [
        kit.call(queue.as_user(user_id), function, p_job_id=job_id),
        kit.call(queue.as_user(user_id), function, p_job_id=job_id, p_user_id=user_id),
        kit.call(queue.service, function, p_job_id=job_id),
        kit.call(queue.service, function, p_job_id=job_id, p_user_id=user_id),
    ]
    assert [len(rows) for rows in found] == [1] * 4
    assert kit.call(queue.as_user(stranger), function, p_job_id=job_id) == []
    assert kit.call(queue.service, function, p_job_id=job_id, p_user_id=stranger) == []
    assert kit.call(queue.service, function, p_job_id=None) == []
    assert kit.call(queue.service, function, p_job_id=uuid4()) == []
    with kit.refused("SV004", "p_user_id"):
        kit.call(queue.as_user(stranger), function, p_job_id=job_id, p_user_id=user_id)
    with kit.refused("SV004", "request.jwt.claims"):
        kit.call(queue.as_user(None), function, p_job_id=job_id)
