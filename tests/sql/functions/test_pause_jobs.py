"""pause_jobs, resume_jobs, get_pauses: nothing that is paused is claimed, from the next claim on."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue


def pause(queue: Queue, **whom: object) -> bool:
    return bool(kit.call_one(queue.service, "pause_jobs", **whom)["pause_jobs"])


def resume(queue: Queue, **whom: object) -> bool:
    return bool(kit.call_one(queue.service, "resume_jobs", **whom)["resume_jobs"])


def claimed(queue: Queue, **arguments: Any) -> set[UUID]:
    """What a claim of everything takes; it is handed back."""
    jobs = kit.claim(queue.conn, limit=100, **arguments)
    kit.release(queue.conn, jobs)
    return {job["job_id"] for job in jobs}


@pytest.fixture
def jobs(queue: Queue) -> dict[str, UUID]:
    """Jobs of two types and two users, and a worker."""
    kit.register(queue.conn, "email")
    kit.register(queue.conn, "sms")
    kit.worker(queue.conn)
    users = uuid4(), uuid4()
    return {
        f"{name} {number}": kit.job_id(queue.conn, user_id, name)
        for number, user_id in enumerate(users)
        for name in ("email", "sms")
    }


def test_a_type(queue: Queue, jobs: dict[str, UUID]) -> None:
    """Its jobs stay pending, for whoever asks; others are claimed; resumed, it is as before."""
    assert pause(queue, p_job_type="email") and not pause(queue, p_job_type="email")
    assert claimed(queue) == {jobs["sms 0"], jobs["sms 1"]}
    assert claimed(queue, p_job_types=["email"]) == set()
    assert kit.request(queue.conn, uuid4(), "email")["outcome"] == "created"
    assert resume(queue, p_job_type="email") and not resume(queue, p_job_type="email")
    assert len(claimed(queue)) == 5


def test_a_user(queue: Queue, jobs: dict[str, UUID]) -> None:
    """Only the other's are claimed, of several types and of one."""
    user_id = kit.get_job(queue.conn, jobs["email 0"])["user_id"]
    pause(queue, p_user_id=user_id, p_reason="fraud")
    assert claimed(queue) == {jobs["email 1"], jobs["sms 1"]}
    assert claimed(queue, p_job_types=["email"]) == {jobs["email 1"]}
    resume(queue, p_user_id=user_id)
    assert claimed(queue) == set(jobs.values())


def test_everything(queue: Queue, jobs: dict[str, UUID]) -> None:
    """Nothing is claimed; a type that is paused as well stays so when everything is resumed."""
    pause(queue)
    pause(queue, p_job_type="sms")
    assert claimed(queue) == set()
    assert not resume(queue, p_job_type="email")
    assert resume(queue)
    assert claimed(queue) == {jobs["email 0"], jobs["email 1"]}


def test_what_runs_goes_on(queue: Queue, jobs: dict[str, UUID]) -> None:
    """A job that is held when everything is paused is completed; a scheduled one that comes due waits."""
    held = kit.claim(queue.conn, limit=1)
    later = kit.job_id(queue.conn, uuid4(), p_scheduled_for="2020-01-01")
    pause(queue)
    kit.complete(queue.conn, held)
    assert kit.status(queue.conn, held[0]["job_id"]) == "completed"
    assert claimed(queue) == set()
    resume(queue)
    assert later in claimed(queue)


def test_resuming_wakes_sleeping_workers(queue: Queue, jobs: dict[str, UUID]) -> None:
    """A worker that found nothing because of the pause is told."""
    pause(queue, p_job_type="email")
    assert claimed(queue, p_job_types=["email"]) == set()
    with queue.database.connect() as listener:
        listener.execute("LISTEN streamvibe_jobs")
        resume(queue, p_job_type="email")
        [message] = listener.notifies(timeout=10, stop_after=1)
    assert message.payload == "email"


def test_what_is_paused(queue: Queue, jobs: dict[str, UUID]) -> None:
    """The oldest first, with the reason."""
    user_id = uuid4()
    pause(queue, p_user_id=user_id, p_reason="fraud")
    pause(queue, p_job_type="sms")
    pause(queue)
    rows = kit.call(queue.service, "get_pauses")
    assert [(row["job_type"], row["user_id"], row["reason"]) for row in rows] == [
        (None, user_id, "fraud"),
        ("sms", None, None),
        (None, None, None),
    ]
    assert rows[0]["paused_at"] <= rows[1]["paused_at"]


@pytest.mark.parametrize("function", ["pause_jobs", "resume_jobs"])
def test_refused(queue: Queue, jobs: dict[str, UUID], function: str) -> None:
    """An unknown type, and a type of a user, are refused by name."""
    with kit.refused("SV002", "p_job_type"):
        kit.call(queue.service, function, p_job_type="fax")
    with kit.refused("SV001", "p_user_id"):
        kit.call(queue.service, function, p_job_type="sms", p_user_id=uuid4())
