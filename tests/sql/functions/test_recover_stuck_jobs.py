"""recover_stuck_jobs: the jobs of dead workers, and who is blamed for a death."""

from datetime import timedelta
from uuid import UUID

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

# In place of lock_jobs: the same, after another session cancelled a job.
CANCEL_AT_THE_LOCKS = """
ALTER FUNCTION streamvibe.lock_jobs(uuid[]) RENAME TO really_lock_jobs;
CREATE FUNCTION streamvibe.lock_jobs(p_job_ids uuid[], OUT locked uuid[], OUT processing uuid[])
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.job_queue SET status = 'cancelled', completed_at = now()
    WHERE id = current_setting('test.cancelled')::uuid;
    SELECT l.* INTO locked, processing FROM streamvibe.really_lock_jobs(p_job_ids) l;
END
$$
"""


def claimed(queue: Queue, count: int, name: str = "w1") -> list[kit.Row]:
    """Jobs that this worker holds."""
    kit.register(queue.conn, p_max_attempts=3)
    kit.worker(queue.conn, name)
    for _ in range(count):
        kit.job_id(queue.conn)
    return kit.claim(queue.conn, name, count)


def recover(queue: Queue) -> list[kit.Row]:
    """One run."""
    return kit.call(queue.service, "recover_stuck_jobs")


def die(queue: Queue, name: str = "w1") -> list[kit.Row]:
    """The worker dies and its jobs are taken back."""
    kit.kill_worker(queue.conn, name)
    return recover(queue)


def due_again(queue: Queue) -> None:
    """Let every backoff be over."""
    queue.conn.execute("UPDATE job_queue SET scheduled_for = created_at WHERE status = 'pending'")


def test_alone(queue: Queue) -> None:
    """Exactly one unfinished job held: that attempt is counted as a crash, and retried after a backoff."""
    [job] = claimed(queue, 1)
    [row] = die(queue)
    assert row == {"job_id": job["job_id"], "worker_id": "w1", "outcome": "retried"}
    stored = kit.stored(queue.conn, job["job_id"])
    assert (stored["status"], stored["retry_count"], stored["failure_kind"]) == ("pending", 1, "crash")
    assert stored["error_message"] == "its worker died while it ran this job alone"
    assert stored["isolated"]


def test_several(queue: Queue) -> None:
    """Several held: nobody knows which one it was, so no attempt counts and each runs alone next time."""
    jobs = claimed(queue, 3)
    kit.lease(queue.conn, jobs[:1])
    rows = die(queue)
    assert {(row["job_id"], row["outcome"]) for row in rows} == {(job["job_id"], "isolated") for job in jobs}
    for job in jobs:
        row = kit.stored(queue.conn, job["job_id"])
        assert (row["status"], row["retry_count"], row["isolated"]) == ("pending", 0, True)
        assert (row["worker_id"], row["started_at"], row["claim_token"]) == (None, None, None)
    kit.worker(queue.conn, "w2")
    assert [len(kit.claim(queue.conn, "w2", 10)) for _ in range(4)] == [1, 1, 1, 0]


def test_finished_ones_do_not_count(queue: Queue) -> None:
    """Of three jobs one was completed and one cancelled before the death: the third was alone."""
    jobs = claimed(queue, 3)
    kit.complete(queue.conn, jobs[:1])
    kit.call(queue.conn, "cancel_jobs", p_user_id=jobs[1]["user_id"], p_job_ids=[jobs[1]["job_id"]])
    [row] = die(queue)
    assert (row["job_id"], row["outcome"]) == (jobs[2]["job_id"], "retried")
    assert [kit.status(queue.conn, job["job_id"]) for job in jobs] == ["completed", "cancelled", "pending"]


def test_a_job_that_kills_its_process(queue: Queue) -> None:
    """It takes two neighbours down once; then alone, until its attempts are spent; the neighbours finish."""
    jobs = claimed(queue, 3)
    killer = jobs[1]["job_id"]
    runs: dict[UUID, int] = {job["job_id"]: 1 for job in jobs}
    die(queue)
    for _ in range(12):
        due_again(queue)
        kit.worker(queue.conn)
        for job in (held := kit.claim(queue.conn, limit=10)):
            runs[job["job_id"]] += 1
        if any(job["job_id"] == killer for job in held):
            assert len(held) == 1, "the killer ran beside others again"
            die(queue)
        else:
            kit.complete(queue.conn, held)
    row = kit.stored(queue.conn, killer)
    assert (row["status"], row["failure_kind"], row["retry_count"]) == ("failed", "crash", 3)
    assert {kit.status(queue.conn, job_id) for job_id in runs if job_id != killer} == {"completed"}
    assert runs == {job_id: 4 if job_id == killer else 2 for job_id in runs}


def test_suspicion_ends(queue: Queue) -> None:
    """An isolated job that completes, or fails while its process lives on, is an ordinary job again."""
    jobs = claimed(queue, 2)
    die(queue)
    for end in (kit.complete, kit.fail):
        kit.worker(queue.conn)
        held = kit.claim(queue.conn, limit=10)
        end(queue.conn, held)
    assert [kit.stored(queue.conn, job["job_id"])["isolated"] for job in jobs] == [False, False]


def test_the_living_are_left_alone(clocked: Queue) -> None:
    """A job of a worker that renews its lease is never taken back, however long it runs."""
    jobs = claimed(clocked, 2)
    kit.lease(clocked.conn, jobs[:1])
    for _ in range(3):
        clocked.advance(timedelta(hours=1))
        kit.call(clocked.conn, "heartbeat_worker", **kit.held(jobs))
        assert recover(clocked) == []
    assert kit.complete(clocked.conn, jobs) == []


def test_a_lease_of_ten_seconds(clocked: Queue) -> None:
    """Nine seconds without a heartbeat are fine; eleven are death; an idle worker just goes."""
    claimed(clocked, 1)
    kit.worker(clocked.conn, "idle")
    clocked.advance(timedelta(seconds=9))
    assert recover(clocked) == []
    clocked.advance(timedelta(seconds=2))
    assert len(recover(clocked)) == 1
    assert kit.value(clocked.conn, "SELECT count(*) FROM streamvibe.worker") == 0
    assert kit.value(clocked.conn, "SELECT count(*) FROM streamvibe.claim") == 0


def test_each_dead_worker_for_itself(queue: Queue) -> None:
    """Two dead workers with a job each: both were alone."""
    claimed(queue, 1)
    claimed(queue, 1, "w2")
    kit.kill_worker(queue.conn)
    rows = die(queue, "w2")
    assert sorted((row["worker_id"], row["outcome"]) for row in rows) == [
        ("w1", "retried"),
        ("w2", "retried"),
    ]


def test_backstop(clocked: Queue) -> None:
    """A job that is processing under a claim that is gone is put back after 30 minutes, not before."""
    [job] = claimed(clocked, 1)
    kit.lease(clocked.conn, [job])
    clocked.conn.execute("DELETE FROM streamvibe.claim")
    clocked.advance(timedelta(minutes=29))
    assert recover(clocked) == []
    clocked.advance(timedelta(minutes=2))
    rows = recover(clocked)
    assert [(row["job_id"], row["worker_id"], row["outcome"]) for row in rows] == [
        (job["job_id"], "w1", "isolated")
    ]
    assert kit.status(clocked.conn, job["job_id"]) == "pending"


def test_a_call_that_comes_too_late(clocked: Queue) -> None:
    """Later than p_not_after nobody is judged, neither a worker nor what the backstop is for; else all are."""
    [job] = claimed(clocked, 1)
    now = kit.value(clocked.conn, "SELECT streamvibe.now()")
    clocked.advance(timedelta(hours=1))
    for late in (now, now + timedelta(minutes=59)):
        assert kit.call(clocked.service, "recover_stuck_jobs", p_not_after=late) == []
    in_time = now + timedelta(minutes=61)
    [row] = kit.call(clocked.service, "recover_stuck_jobs", p_not_after=in_time)
    assert (row["job_id"], row["outcome"]) == (job["job_id"], "retried")


@pytest.mark.parametrize("unfinished", [1, 2])
def test_cancelled_at_the_last_moment(queue: Queue, unfinished: int) -> None:
    """What is cancelled while recovery looks is none of the dead worker's unfinished jobs, nor reported as taken.

    lock_jobs() is replaced by one that cancels before it locks: the only moment that matters.
    """
    jobs = claimed(queue, unfinished + 1)
    cancelled = jobs[-1]["job_id"]
    kit.kill_worker(queue.conn)
    with queue.conn.transaction(force_rollback=True):
        queue.conn.execute(CANCEL_AT_THE_LOCKS)
        queue.conn.execute("SELECT set_config('test.cancelled', %s, true)", [str(cancelled)])
        rows = kit.call(queue.conn, "recover_stuck_jobs")
        outcome = "retried" if unfinished == 1 else "isolated"
        assert {row["job_id"]: row["outcome"] for row in rows} == {
            job["job_id"]: outcome for job in jobs[:-1]
        }
        assert kit.status(queue.conn, cancelled) == "cancelled"
