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


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_recovery_comes_back(queue: Queue, application: Connection[Any], ending: str) -> None:
    """Of a dead worker's three jobs a busy one stays for a later run; it was not alone, so it is never a crash."""
    jobs, busy = three_held(queue, application)
    kit.lease(queue.conn, jobs)
    others = {job["job_id"] for job in jobs} - {busy}
    kit.kill_worker(queue.conn)
    for taken in (others, set()):
        rows = kit.call(queue.conn, "recover_stuck_jobs")
        assert {(row["job_id"], row["outcome"]) for row in rows} == {(job_id, "isolated") for job_id in taken}
    assert {kit.status(queue.conn, job_id) for job_id in others} == {"pending"}
    assert kit.status(queue.conn, busy) == "processing"
    getattr(application, ending)()
    rows = kit.call(queue.conn, "recover_stuck_jobs")
    row = kit.stored(queue.conn, busy)
    if ending == "commit":
        assert (rows, row["status"]) == ([], "cancelled")
    else:
        assert [row["outcome"] for row in rows] == ["isolated"]
        assert (row["status"], row["isolated"], row["retry_count"]) == ("pending", True, 0)
    assert nobody_left(queue)


def test_recovery_of_one_busy_job(queue: Queue, application: Connection[Any]) -> None:
    """A job that a dead worker held alone is left while it is busy, and counted as a crash when it is free."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    kit.job_id(queue.conn)
    [job] = kit.claim(queue.conn)
    kit.call(application, "cancel_jobs", p_user_id=job["user_id"], p_job_ids=[job["job_id"]])
    kit.kill_worker(queue.conn)
    assert kit.call(queue.conn, "recover_stuck_jobs") == []
    application.rollback()
    assert [row["outcome"] for row in kit.call(queue.conn, "recover_stuck_jobs")] == ["retried"]
    assert nobody_left(queue)


def test_a_dead_worker_that_returns(queue: Queue, application: Connection[Any]) -> None:
    """It still holds the busy job alone; when it dies again, that is a crash of this job."""
    jobs, busy = three_held(queue, application)
    kit.kill_worker(queue.conn)
    kit.call(queue.conn, "recover_stuck_jobs")
    lost = kit.call(queue.conn, "heartbeat_worker", **kit.held(jobs))
    assert {row["job_id"] for row in lost} == {job["job_id"] for job in jobs} - {busy}
    application.rollback()
    kit.kill_worker(queue.conn)
    assert [row["outcome"] for row in kit.call(queue.conn, "recover_stuck_jobs")] == ["retried"]


def nobody_left(queue: Queue) -> bool:
    """No worker and no claim is on the lists."""
    count = "SELECT (SELECT count(*) FROM streamvibe.worker) + (SELECT count(*) FROM streamvibe.claim)"
    return bool(kit.value(queue.conn, count) == 0)


@pytest.mark.parametrize("end", [*ENDS, "progress"])
def test_a_job_that_is_gone(queue: Queue, end: str) -> None:
    """A held job whose row was deleted is not busy: it has no status, and leaves its claim at the first call."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    for _ in range(3):
        kit.job_id(queue.conn)
    jobs = kit.claim(queue.conn, limit=3)
    queue.conn.execute("DELETE FROM public.job_queue WHERE id = %s", [jobs[1]["job_id"]])
    if end == "progress":
        progress: kit.Row = {"p_progress": [0.5] * 3, "p_messages": ["half"] * 3}
        kit.call(queue.conn, "report_job_progress", **kit.held(jobs), **progress)
    else:
        rows = [row for row in ENDS[end][0](queue.conn, jobs) if not row.get("accepted")]
        assert [(row["job_id"], row["status"]) for row in rows] == [(jobs[1]["job_id"], None)]
    assert not kit.value(queue.conn, "SELECT streamvibe.is_held(%s)", jobs[1]["job_id"])
    assert kit.value(queue.conn, "SELECT streamvibe.is_held(%s)", jobs[0]["job_id"]) is (
        end in ("lease", "progress")
    )


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
    """A worker that leaves hands back what it holds and is gone."""
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


@pytest.mark.parametrize("lasts", [False, True])
def test_unregister_with_a_busy_job(queue: Queue, application: Connection[Any], lasts: bool) -> None:
    """The job that another transaction has is handed back by maintenance as soon as it is free, uncounted."""
    jobs, busy = three_held(queue, application)
    if lasts:
        application.rollback()
        kit.lease(queue.conn, jobs)
        kit.call(application, "cancel_jobs", p_user_id=jobs[1]["user_id"], p_job_ids=[busy])
    kit.call(queue.service, "unregister_worker", p_worker_id="w1")
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.worker") == 1
    assert kit.value(queue.conn, "SELECT sum(cardinality(job_ids)) FROM streamvibe.claim") == 1
    assert kit.call(queue.conn, "recover_stuck_jobs") == []
    application.rollback()
    rows = kit.call(queue.conn, "recover_stuck_jobs")
    assert [(row["job_id"], row["outcome"]) for row in rows] == [(busy, "released")]
    row = kit.stored(queue.conn, busy)
    assert (row["status"], row["retry_count"], row["isolated"]) == ("pending", 0, False)
    assert nobody_left(queue)
