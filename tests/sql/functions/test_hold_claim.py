"""hold_claim and keep_claim: a claim whose jobs run in one transaction with their ends."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.waiting import wait_until

WAITS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def claimed(queue: Queue, count: int = 1, name: str = "w1") -> list[kit.Row]:
    """Jobs that a worker has claimed to run them in a transaction."""
    kit.register(queue.conn)
    for _ in range(count):
        kit.job_id(queue.conn)
    kit.worker(queue.conn, name)
    return kit.claim(queue.conn, name, limit=count, p_in_transaction=True)


def hold(conn: Connection[Any], token: int, name: str = "w1") -> bool:
    """What hold_claim answers."""
    return bool(kit.call_one(conn, "hold_claim", p_worker_id=name, p_token=token)["hold_claim"])


def test_effects_and_completion_commit_together(queue: Queue) -> None:
    """Held, the job is processing for readers and nobody has its row; the commit that completes it ends the claim."""
    [job] = claimed(queue)
    with queue.database.connect(autocommit=False) as handler:
        assert hold(handler, job["token"])
        assert kit.status(queue.conn, job["job_id"]) == "processing"
        with queue.conn.transaction():
            queue.conn.execute("SELECT FROM job_queue WHERE id = %s FOR UPDATE NOWAIT", [job["job_id"]])
        assert kit.complete(handler, [job]) == []
        handler.commit()
    assert kit.status(queue.conn, job["job_id"]) == "completed"
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.claim") == 0


def test_who_can_hold(queue: Queue) -> None:
    """Only the claim's own worker, only while the claim is there, and only one claimed for it."""
    [job] = claimed(queue)
    kit.worker(queue.conn, "w2")
    assert not hold(queue.conn, job["token"], "w2")
    assert not hold(queue.conn, job["token"] + 1)
    kit.release(queue.conn, [job])
    assert not hold(queue.conn, job["token"])
    [ordinary] = kit.claim(queue.conn)
    assert not hold(queue.conn, ordinary["token"])


@pytest.mark.parametrize("how", ["COMMIT", "SET CONSTRAINTS ALL IMMEDIATE"])
def test_a_held_claim_does_not_commit_before_its_jobs_end(queue: Queue, how: str) -> None:
    """A COMMIT with a job left is refused and rolls everything back, though another job was completed."""
    jobs = claimed(queue, 2)
    with queue.database.connect(autocommit=False) as handler:
        assert hold(handler, jobs[0]["token"])
        kit.complete(handler, jobs[:1])
        with kit.refused("SV001", "connection"):
            handler.execute(how.encode())
        handler.rollback()
    assert [kit.status(queue.conn, job["job_id"]) for job in jobs] == ["processing"] * 2


@pytest.mark.parametrize("in_transaction", [True, False])
def test_keep_claim(queue: Queue, in_transaction: bool) -> None:
    """What is left is kept for the worker's next transaction, or as an ordinary claim, when the commit is told so."""
    jobs = claimed(queue, 2)
    with queue.database.connect(autocommit=False) as handler:
        assert hold(handler, jobs[0]["token"])
        kit.complete(handler, jobs[:1])
        kit.call(
            handler,
            "keep_claim",
            p_worker_id="w1",
            p_token=jobs[0]["token"],
            p_in_transaction=in_transaction,
        )
        handler.commit()
        assert [kit.status(queue.conn, job["job_id"]) for job in jobs] == ["completed", "processing"]
        assert hold(handler, jobs[0]["token"]) == in_transaction
        handler.rollback()
    assert kit.complete(queue.conn, jobs[1:]) == []


def test_an_older_snapshot_is_refused(queue: Queue) -> None:
    """Holding and keeping need READ COMMITTED."""
    [job] = claimed(queue)
    with queue.database.connect(autocommit=False) as handler:
        handler.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with kit.refused("SV006"):
            hold(handler, job["token"])


def test_forgetting_and_leaving_do_not_touch_it(queue: Queue) -> None:
    """Neither release_forgotten_claims nor unregister_worker waits for a claim that is held, or gives it away."""
    [job] = claimed(queue)
    with queue.database.connect(autocommit=False) as handler:
        assert hold(handler, job["token"])
        queue.conn.execute("SET lock_timeout = '2s'")
        try:
            forgotten = kit.call_one(queue.conn, "release_forgotten_claims", p_worker_id="w1", p_tokens=[])
            kit.call(queue.conn, "unregister_worker", p_worker_id="w1")
        finally:
            queue.conn.execute("RESET lock_timeout")
        assert forgotten["release_forgotten_claims"] == 0
        assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.worker") == 0
        assert kit.complete(handler, [job]) == []
        handler.commit()
    assert kit.status(queue.conn, job["job_id"]) == "completed"


def test_the_two_kinds_of_claims_sleep_apart(queue: Queue) -> None:
    """A request wakes a worker whose claims of that kind found nothing, whatever those of the other kind found."""
    for name in ("email", "transfer"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn, p_job_types=["email", "transfer"])

    def asleep() -> tuple[bool, bool]:
        [row] = kit.query(queue.conn, "SELECT asleep, transactions_asleep FROM streamvibe.worker")
        return row["asleep"], row["transactions_asleep"]

    def notified(name: str) -> bool:
        with queue.database.connect() as listener:
            listener.execute("LISTEN streamvibe_jobs")
            kit.job_id(queue.conn, job_type=name)
            return bool(list(listener.notifies(timeout=0.2, stop_after=1)))

    kit.claim(queue.conn, p_job_types=["transfer"], p_in_transaction=True)
    assert asleep() == (False, True)
    assert (notified("email"), notified("transfer")) == (False, True)
    kit.claim(queue.conn, limit=9, p_job_types=["email"])
    kit.claim(queue.conn, limit=9, p_job_types=["email"])
    kit.claim(queue.conn, limit=9, p_job_types=["transfer"], p_in_transaction=True)
    assert asleep() == (True, False)
    assert (notified("email"), notified("transfer")) == (True, False)


@pytest.mark.parametrize("first", ["hold", "recover"])
def test_recovery_races_with_holding(clocked: Queue, first: str) -> None:
    """Whoever comes first has the claim: a held one is passed over at once, a broken one is not held any more."""
    [job] = claimed(clocked)
    clocked.conn.execute("UPDATE streamvibe.claim SET claimed_at = claimed_at - interval '2 seconds'")
    with (
        clocked.database.connect(autocommit=False) as one,
        clocked.database.connect(autocommit=False) as other,
    ):
        if first == "hold":
            assert hold(one, job["token"])
            other.execute("SET lock_timeout = '2s'")
            assert kit.call(other, "recover_broken_claims") == kit.call(other, "recover_stuck_jobs") == []
            other.commit()
            kit.complete(one, [job])
            one.commit()
            assert kit.status(clocked.conn, job["job_id"]) == "completed"
        else:
            assert len(kit.call(one, "recover_broken_claims")) == 1
            with ThreadPoolExecutor(1) as pool:
                held = pool.submit(hold, other, job["token"])
                wait_until(lambda: kit.value(clocked.conn, WAITS), "hold_claim waits")
                one.commit()
                assert held.result() is False
            assert kit.status(clocked.conn, job["job_id"]) == "pending"


@pytest.mark.parametrize("first", ["cancel", "complete"])
@pytest.mark.parametrize("commits", [True, False])
def test_cancelling_races_with_completing(queue: Queue, first: str, commits: bool) -> None:
    """Cancelled first, the completion is refused, so the effects go; completed first, cancelling changes nothing."""
    user_id = uuid4()
    kit.register(queue.conn)
    job_id = kit.job_id(queue.conn, user_id)
    kit.worker(queue.conn)
    jobs = kit.claim(queue.conn, p_in_transaction=True)
    cancel = {"p_user_id": user_id, "p_job_ids": [job_id]}
    with (
        queue.database.connect(autocommit=False) as handler,
        queue.database.connect(autocommit=False) as user,
    ):
        assert hold(handler, jobs[0]["token"])
        if first == "cancel":
            kit.call(user, "cancel_jobs", **cancel)
            assert kit.complete(handler, jobs) == [{"job_id": job_id, "status": "busy"}]
            user.commit() if commits else user.rollback()
            refused = kit.complete(handler, jobs)
            assert refused == ([{"job_id": job_id, "status": "cancelled"}] if commits else [])
            handler.commit()
            assert kit.status(queue.conn, job_id) == ("cancelled" if commits else "completed")
            return
        assert kit.complete(handler, jobs) == []
        with ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(kit.call_one, user, "cancel_jobs", **cancel)
            wait_until(lambda: kit.value(queue.conn, WAITS), "cancel_jobs waits")
            handler.commit() if commits else handler.rollback()
            assert cancelled.result()["outcome"] == ("unchanged" if commits else "cancelled")
