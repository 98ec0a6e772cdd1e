"""Every state change from every state: legal ones happen, all others leave the job as it was."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.kit import Row

PARAMS = {"channel": "UC1"}
LATER = {**kit.ERROR, "retry_after_seconds": 3600}
SOON = {**kit.ERROR, "retry_after_seconds": 1}


def bring(conn: Connection[Any], state: str) -> tuple[UUID, UUID, list[Row]]:
    """A job in this state; its user, its id, and what worker w1 holds or held of it."""
    user_id = uuid4()
    job_id = kit.job_id(conn, user_id, p_params=PARAMS)
    if state in ("pending", "expired", "cancelled pending"):
        never = [{"token": 0, "job_id": job_id}]
        if state == "expired":
            conn.execute("UPDATE public.job_queue SET expires_at = scheduled_for")
            kit.call(conn, "expire_stale_jobs")
        elif state == "cancelled pending":
            kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[job_id])
        return user_id, job_id, never
    jobs = kit.claim(conn)
    match state:
        case "processing":
            kit.lease(conn, jobs)
        case "completed":
            kit.complete(conn, jobs)
        case "failed, due again":
            kit.fail(conn, jobs, failure=LATER)
            conn.execute("UPDATE public.job_queue SET retry_at = completed_at")
        case "failed for good":
            kit.fail(conn, jobs, failure=kit.PERMANENT)
        case "cancelled":
            kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[job_id])
        case "handed back":
            kit.release(conn, jobs)
    return user_id, job_id, jobs


def cancel(conn: Connection[Any], user_id: UUID, job_id: UUID, _: list[Row]) -> object:
    """As the user."""
    return kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[job_id])


def retry(conn: Connection[Any], user_id: UUID, job_id: UUID, _: list[Row]) -> object:
    """As the user."""
    return kit.call(conn, "retry_jobs", p_user_id=user_id, p_job_ids=[job_id])


def recover(conn: Connection[Any], *_: object) -> object:
    """After the worker's death."""
    kit.kill_worker(conn)
    return kit.call(conn, "recover_stuck_jobs")


def expire(conn: Connection[Any], *_: object) -> object:
    """Everything's time has passed."""
    conn.execute("UPDATE public.job_queue SET expires_at = scheduled_for")
    return kit.call(conn, "expire_stale_jobs")


def claim_by_another(conn: Connection[Any], *_: object) -> object:
    """By worker w2."""
    return kit.claim(conn, kit.worker(conn, "w2"))


Act = Callable[[Connection[Any], UUID, UUID, list[Row]], object]
ACTS: dict[str, Act] = {
    "claim": claim_by_another,
    "lease": lambda conn, _, __, jobs: kit.lease(conn, jobs),
    "complete": lambda conn, _, __, jobs: kit.complete(conn, jobs),
    "fail for good": lambda conn, _, __, jobs: kit.fail(conn, jobs, failure=kit.PERMANENT),
    "fail, again soon": lambda conn, _, __, jobs: kit.fail(conn, jobs, failure=SOON),
    "fail, again later": lambda conn, _, __, jobs: kit.fail(conn, jobs, failure=LATER),
    "release": lambda conn, _, __, jobs: kit.release(conn, jobs),
    "recover": recover,
    "cancel": cancel,
    "retry": retry,
    "retry all": lambda conn, *_: kit.call(conn, "retry_failed_jobs"),
    "expire": expire,
}

BY_WORKER = {
    "lease": "processing",
    "complete": "completed",
    "fail for good": "failed",
    "fail, again soon": "pending",
    "fail, again later": "failed",
    "release": "pending",
    "recover": "pending",
    "cancel": "cancelled",
}
# What changes a job in a state, and what it becomes. Whatever is not here changes nothing.
LEGAL: dict[str, tuple[str, dict[str, str]]] = {
    "pending": ("pending", {"claim": "processing", "cancel": "cancelled", "expire": "failed"}),
    "handed back": ("pending", {"claim": "processing", "cancel": "cancelled", "expire": "failed"}),
    "claimed": ("processing", BY_WORKER),
    "processing": ("processing", BY_WORKER),
    "completed": ("completed", {}),
    "failed, due again": ("failed", {"retry": "pending", "retry all": "pending", "cancel": "cancelled"}),
    "failed for good": ("failed", {}),
    "expired": ("failed", {}),
    "cancelled": ("cancelled", {}),
    "cancelled pending": ("cancelled", {}),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("state", LEGAL)
def test_transition(queue: Queue, state: str, act: str) -> None:
    """The job ends in the state this act leads to, or stays exactly as it was where the act is illegal."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    user_id, job_id, jobs = bring(conn, state)
    before = kit.get_job(conn, job_id)
    status, legal = LEGAL[state]
    assert before["status"] == status
    ACTS[act](conn, user_id, job_id, jobs)
    after = kit.get_job(conn, job_id)
    assert after["status"] == legal.get(act, status)
    if act not in legal:
        changed = {key for key in before if before[key] != after[key]}
        assert changed <= {"expires_at"}, "an act that is illegal here changed the row"
    held = kit.value(conn, "SELECT count(*) FROM streamvibe.claim WHERE %s = ANY (job_ids)", job_id)
    if after["status"] in ("completed", "failed", "pending"):
        assert held == 0, "a claim still lists a job that no worker holds"
