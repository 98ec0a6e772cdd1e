"""A worker never waits for an application's open transaction: what that holds is "busy", the rest is done."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue


@pytest.fixture
def application(queue: Queue) -> Iterator[Connection[Any]]:
    """A session whose transaction stays open; who waits for it fails after five seconds."""
    with queue.database.as_service(autocommit=False) as conn:
        for session in (queue.conn, queue.service):
            session.execute("SET lock_timeout = '5s'")
        yield conn
    for session in (queue.conn, queue.service):
        session.execute("RESET lock_timeout")


def three_held(queue: Queue, application: Connection[Any]) -> tuple[list[kit.Row], UUID]:
    """Three jobs that w1 holds; the second one is cancelled by a transaction that stays open."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    for _ in range(3):
        kit.job_id(queue.conn)
    jobs = kit.claim(queue.conn, limit=3)
    middle = jobs[1]
    kit.call(application, "cancel_jobs", p_user_id=middle["user_id"], p_job_ids=[middle["job_id"]])
    return jobs, middle["job_id"]


ENDS: dict[str, tuple[Callable[..., list[kit.Row]], str]] = {
    "complete": (kit.complete, "completed"),
    "fail": (lambda conn, jobs: kit.fail(conn, jobs, failure=kit.PERMANENT), "failed"),
    "lease": (kit.lease, "processing"),
    "release": (kit.release, "pending"),
}


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize("end", ENDS)
def test_busy(queue: Queue, application: Connection[Any], end: str, ending: str) -> None:
    """The busy job is still held and can be tried again: cancelled if that was committed, else it is done."""
    jobs, busy = three_held(queue, application)
    act, status = ENDS[end]
    rows = [row for row in act(queue.conn, jobs) if not row.get("accepted")]
    assert [(row["job_id"], row["status"]) for row in rows] == [(busy, "busy")]
    others = [job["job_id"] for job in jobs if job["job_id"] != busy]
    assert {kit.status(queue.conn, job_id) for job_id in others} == {status}
    assert kit.status(queue.conn, busy) == "processing"
    getattr(application, ending)()
    act(queue.conn, [job for job in jobs if job["job_id"] == busy])
    assert kit.status(queue.conn, busy) == ("cancelled" if ending == "commit" else status)


def test_recovery_comes_back(queue: Queue, application: Connection[Any]) -> None:
    """A dead worker with a busy job is left whole for the next run: how many it held decides who is blamed."""
    jobs, _ = three_held(queue, application)
    kit.kill_worker(queue.conn)
    assert kit.call(queue.conn, "recover_stuck_jobs") == []
    assert {kit.status(queue.conn, job["job_id"]) for job in jobs} == {"processing"}
    application.commit()
    rows = kit.call(queue.conn, "recover_stuck_jobs")
    assert [row["outcome"] for row in rows] == ["isolated"] * 2


def test_forgotten_claims(queue: Queue, application: Connection[Any]) -> None:
    """release_forgotten_claims hands back what the worker does not name, except what is busy; then that too."""
    jobs, busy = three_held(queue, application)
    kit.job_id(queue.conn)
    known = kit.claim(queue.conn)
    call = {"p_worker_id": "w1", "p_tokens": [known[0]["token"]]}
    assert kit.call_one(queue.service, "release_forgotten_claims", **call) == {"release_forgotten_claims": 2}
    assert kit.status(queue.conn, busy) == "processing"
    application.rollback()
    assert kit.call_one(queue.service, "release_forgotten_claims", **call) == {"release_forgotten_claims": 1}
    assert {kit.status(queue.conn, job["job_id"]) for job in jobs} == {"pending"}
    assert kit.complete(queue.conn, known) == []


def test_unregister(queue: Queue) -> None:
    """A worker that leaves hands back what it holds and is gone; one that holds a busy job stays to be recovered."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    job_id = kit.job_id(queue.conn)
    jobs = kit.claim(queue.conn)
    kit.lease(queue.conn, jobs)
    kit.call(queue.service, "unregister_worker", p_worker_id="w1")
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.worker") == 0
    row = kit.stored(queue.conn, job_id)
    assert (row["status"], row["retry_count"], row["isolated"]) == ("pending", 0, False)
    kit.call(queue.service, "unregister_worker", p_worker_id="nobody")


def test_unregister_with_a_busy_job(queue: Queue, application: Connection[Any]) -> None:
    """The worker stays on the list while another transaction has one of its jobs."""
    three_held(queue, application)
    kit.call(queue.service, "unregister_worker", p_worker_id="w1")
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.worker") == 1
    assert kit.value(queue.conn, "SELECT sum(cardinality(job_ids)) FROM streamvibe.claim") == 1
