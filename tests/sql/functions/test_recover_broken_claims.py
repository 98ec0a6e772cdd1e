"""recover_broken_claims: whose transaction is over without an end, and what becomes of their jobs."""

from datetime import timedelta

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.functions.test_hold_claim import claimed, hold


def recover(queue: Queue) -> list[tuple[object, str]]:
    """What one run takes back, as the service."""
    rows = kit.call(queue.service, "recover_broken_claims")
    return [(row["job_id"], row["outcome"]) for row in rows]


def alone(queue: Queue) -> kit.Row:
    """An isolated job in a claim of its own."""
    claimed(queue)
    queue.conn.execute("DELETE FROM streamvibe.claim")
    queue.conn.execute("UPDATE job_queue SET isolated = true, scheduled_for = created_at")
    [job] = kit.claim(queue.conn, p_in_transaction=True)
    assert job["isolated"]
    return job


def test_a_second_of_grace(clocked: Queue) -> None:
    """A claim that nobody holds is broken when it is older than a second; its jobs are due again at once."""
    jobs = claimed(clocked, 3)
    # The clock runs on: this is well within the second, and then well beyond it.
    clocked.conn.execute("UPDATE streamvibe.claim SET claimed_at = claimed_at + interval '1 minute'")
    assert recover(clocked) == []
    clocked.advance(timedelta(seconds=62))
    assert sorted(recover(clocked), key=str) == sorted([(job["job_id"], "isolated") for job in jobs], key=str)
    rows = [kit.stored(clocked.conn, job["job_id"]) for job in jobs]
    assert {(row["status"], row["isolated"], row["retry_count"]) for row in rows} == {("pending", True, 0)}
    assert kit.value(clocked.conn, "SELECT count(*) FROM streamvibe.claim") == 0
    assert recover(clocked) == []
    kit.worker(clocked.conn)
    assert len(kit.claim(clocked.conn, limit=10)) == 1


def test_held_claims_are_left_alone(clocked: Queue) -> None:
    """However long; also when their worker counts as dead. When the transaction ends, the next run has them."""
    [job] = claimed(clocked)
    with clocked.database.connect(autocommit=False) as handler:
        assert hold(handler, job["token"])
        clocked.advance(timedelta(hours=1))
        assert recover(clocked) == []
        assert kit.call(clocked.service, "recover_stuck_jobs") == []
        assert kit.status(clocked.conn, job["job_id"]) == "processing"
        handler.rollback()
    assert recover(clocked) == [(job["job_id"], "isolated")]


def test_ordinary_claims_are_none_of_its_business(clocked: Queue) -> None:
    """They are kept by their worker's lease."""
    kit.register(clocked.conn)
    kit.job_id(clocked.conn)
    kit.worker(clocked.conn)
    kit.claim(clocked.conn)
    clocked.advance(timedelta(seconds=5))
    assert recover(clocked) == []


def test_a_job_that_breaks_its_transaction_when_it_is_alone(clocked: Queue) -> None:
    """That counts as a crash, until its attempts are spent."""
    job = alone(clocked)
    outcomes = []
    for _ in range(3):
        clocked.advance(timedelta(seconds=2))
        outcomes += recover(clocked)
        clocked.conn.execute(
            "UPDATE job_queue SET scheduled_for = created_at, updated_at = updated_at - interval '1 hour'"
        )
        kit.worker(clocked.conn)
        kit.claim(clocked.conn, p_in_transaction=True)
    assert outcomes == [(job["job_id"], "retried")] * 2 + [(job["job_id"], "failed")]
    row = kit.stored(clocked.conn, job["job_id"])
    assert (row["status"], row["failure_kind"], row["retry_count"]) == ("failed", "crash", 3)


def test_what_was_cancelled_is_not_taken_back(clocked: Queue) -> None:
    """A cancelled job leaves with the claim; the others go back."""
    jobs = claimed(clocked, 2)
    cancelled = {"p_user_id": jobs[0]["user_id"], "p_job_ids": [jobs[0]["job_id"]]}
    kit.call(clocked.conn, "cancel_jobs", **cancelled)
    clocked.advance(timedelta(seconds=2))
    assert recover(clocked) == [(jobs[1]["job_id"], "isolated")]
    assert kit.status(clocked.conn, jobs[0]["job_id"]) == "cancelled"


@pytest.mark.parametrize("isolated", [False, True])
def test_a_row_that_is_locked_stays_for_the_next_run(clocked: Queue, isolated: bool) -> None:
    """It waits for nobody; what becomes of the job is the same later."""
    [job] = [alone(clocked)] if isolated else claimed(clocked)
    clocked.advance(timedelta(seconds=2))
    with clocked.database.connect(autocommit=False) as application:
        application.execute("SELECT FROM job_queue WHERE id = %s FOR UPDATE", [job["job_id"]])
        assert recover(clocked) == []
        assert kit.status(clocked.conn, job["job_id"]) == "processing"
    assert recover(clocked) == [(job["job_id"], "retried" if isolated else "isolated")]


@pytest.mark.parametrize("is_open", [False, True])
def test_what_a_dead_worker_held_besides_is_not_charged(clocked: Queue, is_open: bool) -> None:
    """Its one ordinary job was not alone: another ran in a transaction, which is still open, or was taken back."""
    [job] = claimed(clocked)
    ordinary = kit.job_id(clocked.conn)
    kit.claim(clocked.conn)
    with clocked.database.connect(autocommit=False) as handler:
        if is_open:
            assert hold(handler, job["token"])
        clocked.advance(timedelta(seconds=2))
        assert len(recover(clocked)) == (0 if is_open else 1)
        clocked.advance(timedelta(seconds=20))
        rows = kit.call(clocked.service, "recover_stuck_jobs")
        assert [(row["job_id"], row["outcome"]) for row in rows] == [(ordinary, "isolated")]
        handler.rollback()
    kit.call(clocked.service, "recover_stuck_jobs")
    for job_id in (job["job_id"], ordinary):
        assert kit.stored(clocked.conn, job_id)["retry_count"] == 0
        assert kit.status(clocked.conn, job_id) == "pending"


def test_a_worker_that_lives_is_not_suspected_for_long(clocked: Queue) -> None:
    """It lost a connection only: after its next heartbeat a crash of its one job counts as ever."""
    claimed(clocked)
    ordinary = kit.job_id(clocked.conn)
    held = kit.claim(clocked.conn)
    clocked.advance(timedelta(seconds=2))
    assert len(recover(clocked)) == 1
    kit.call(clocked.conn, "heartbeat_worker", **kit.held(held))
    clocked.advance(timedelta(seconds=20))
    rows = kit.call(clocked.service, "recover_stuck_jobs")
    assert [(row["job_id"], row["outcome"]) for row in rows] == [(ordinary, "retried")]
