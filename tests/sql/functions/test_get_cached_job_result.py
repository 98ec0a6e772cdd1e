"""get_cached_job_result: the newest result of the same work, inside the TTL."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

PARAMS = {"channel": "UC1"}


def cached(queue: Queue, user_id: UUID, **arguments: Any) -> list[kit.Row]:
    """One call."""
    named = {"p_user_id": user_id, "p_job_type": "email", "p_params": PARAMS, **arguments}
    return kit.call(queue.conn, "get_cached_job_result", **named)


def completed(queue: Queue, user_id: UUID, result: kit.Row, params: kit.Row = PARAMS) -> UUID:
    """A completed job."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    job_id = kit.job_id(queue.conn, user_id, p_params=params, p_force=True)
    kit.complete(queue.conn, kit.claim(queue.conn), result=result)
    return job_id


def test_hit_and_miss(clocked: Queue) -> None:
    """One row with result, when it was completed and its age; none after the TTL; asking writes nothing."""
    user_id = uuid4()
    job_id = completed(clocked, user_id, {"n": 1})
    clocked.advance(30 * kit.MINUTE)
    [row] = cached(clocked, user_id)
    assert (row["job_id"], row["result"]) == (job_id, {"n": 1})
    assert row["completed_at"] == kit.stored(clocked.conn, job_id)["completed_at"]
    assert 30 * kit.MINUTE <= row["result_age"] < 31 * kit.MINUTE
    clocked.advance(31 * kit.MINUTE)
    assert cached(clocked, user_id) == []
    assert len(cached(clocked, user_id, p_cache_ttl="2 hours")) == 1
    assert kit.value(clocked.conn, "SELECT count(*) FROM public.job_queue") == 1


def test_the_type_says_how_long(clocked: Queue) -> None:
    """Without p_cache_ttl the type's TTL holds; 0 finds nothing."""
    user_id = uuid4()
    completed(clocked, user_id, {"n": 1})
    kit.register(clocked.conn, p_cache_ttl="1 day")
    clocked.advance(20 * kit.HOUR)
    assert len(cached(clocked, user_id)) == 1
    assert cached(clocked, user_id, p_cache_ttl="0") == []


def test_newest(queue: Queue) -> None:
    """Of several, the one completed last."""
    user_id = uuid4()
    completed(queue, user_id, {"n": 1})
    newest = completed(queue, user_id, {"n": 2})
    assert [row["job_id"] for row in cached(queue, user_id)] == [newest]


def test_exactly_the_same_work(queue: Queue) -> None:
    """Never another user's, another type's, other params', nor that of a job that has no result."""
    user_id = uuid4()
    completed(queue, user_id, {"n": 1})
    kit.register(queue.conn, "sms")
    assert cached(queue, uuid4()) == []
    assert cached(queue, user_id, p_job_type="sms") == []
    assert cached(queue, user_id, p_params={**PARAMS, "more": None}) == []
    failed = uuid4()
    kit.job_id(queue.conn, failed, p_params=PARAMS)
    assert cached(queue, failed) == []
    kit.fail(queue.conn, kit.claim(queue.conn), failure=kit.PERMANENT)
    assert cached(queue, failed) == []


@pytest.mark.parametrize(
    ("code", "field", "arguments"),
    [
        ("SV002", "p_job_type", {"p_job_type": "nope"}),
        ("SV002", "p_job_type", {"p_job_type": None}),
        ("SV001", "p_params", {"p_params": None}),
        ("SV001", "p_user_id", {"p_user_id": None}),
        ("SV001", "p_cache_ttl", {"p_cache_ttl": "-1 second"}),
        ("SV001", "p_cache_ttl", {"p_cache_ttl": "10000000 years"}),
    ],
)
def test_refused(queue: Queue, code: str, field: str, arguments: dict[str, Any]) -> None:
    """A bad argument is named."""
    kit.register(queue.conn)
    with kit.refused(code, field):
        cached(queue, uuid4(), **arguments)
