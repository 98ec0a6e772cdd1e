"""find_or_create_job: the identical live job, or a new one."""

from datetime import timedelta
from uuid import uuid4

from tests.sql import kit
from tests.sql.conftest import Queue

PARAMS = {"channel": "UC1"}


def find(queue: Queue, user_id: object, **arguments: object) -> kit.Row:
    """One call."""
    named = {"p_user_id": user_id, "p_job_type": "email", "p_params": PARAMS, **arguments}
    return kit.call_one(queue.conn, "find_or_create_job", **named)


def test_new_then_found(queue: Queue) -> None:
    """(job_id, true, NULL) for a new job, (its id, false, its status) while it is live."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.worker(queue.conn)
    first = find(queue, user_id)
    assert first == {"job_id": first["job_id"], "is_new": True, "existing_status": None}
    assert find(queue, user_id) == {"job_id": first["job_id"], "is_new": False, "existing_status": "pending"}
    jobs = kit.claim(queue.conn)
    assert find(queue, user_id)["existing_status"] == "processing"
    kit.complete(queue.conn, jobs)
    assert find(queue, user_id)["is_new"], "the cache is not asked"


def test_window(clocked: Queue) -> None:
    """Five minutes unless the call says otherwise; NULL means what the type says."""
    user_id = uuid4()
    kit.register(clocked.conn, p_dedupe_window="1 hour")
    first = find(clocked, user_id)["job_id"]
    clocked.advance(timedelta(minutes=6))
    assert find(clocked, user_id, p_dedupe_window=None)["job_id"] == first
    second = find(clocked, user_id)
    assert second["is_new"]
    assert find(clocked, user_id, p_dedupe_window="1 day")["job_id"] == first


def test_limit_and_errors(queue: Queue) -> None:
    """The limit and every refusal are request_job's."""
    user_id = uuid4()
    kit.register(queue.conn)
    for n in range(10):
        find(queue, user_id, p_params={"n": n})
    with kit.refused("SV005"):
        find(queue, user_id)
    with kit.refused("SV002", "p_job_type", "nope"):
        find(queue, user_id, p_job_type="nope")
    with kit.refused("SV001", "p_params"):
        find(queue, user_id, p_params=None)
    with kit.refused("SV004", "p_user_id"):
        kit.call(queue.as_user(uuid4()), "find_or_create_job", p_user_id=user_id, p_job_type="email")
