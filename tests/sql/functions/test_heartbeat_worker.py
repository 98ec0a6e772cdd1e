"""heartbeat_worker: a worker's lease, and what it no longer holds."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue


def workers(queue: Queue) -> list[kit.Row]:
    """All of them."""
    return kit.query(queue.conn, "SELECT * FROM streamvibe.worker ORDER BY id")


def test_registers_and_renews(clocked: Queue) -> None:
    """The first heartbeat registers; each later one moves the lease and keeps when it started."""
    kit.worker(clocked.conn, p_job_types=["a"], p_metadata={"host": "h"})
    [first] = workers(clocked)
    assert (first["job_types"], first["lease"], first["metadata"]) == (
        ["a"],
        timedelta(seconds=10),
        {"host": "h"},
    )
    clocked.advance(timedelta(seconds=3))
    kit.worker(clocked.conn, p_lease="1 minute")
    [second] = workers(clocked)
    assert (second["job_types"], second["lease"]) == (None, timedelta(minutes=1))
    assert second["metadata"] == {"host": "h"}, "metadata that is not sent stays"
    assert second["started_at"] == first["started_at"]
    assert second["heartbeat_at"] - first["heartbeat_at"] >= timedelta(seconds=3)


def test_says_what_is_lost(queue: Queue) -> None:
    """Cancelled jobs and jobs taken away are named with the reason; what is held is not."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    ids = [kit.job_id(conn) for _ in range(4)]
    jobs = kit.claim(conn, limit=4)
    kit.lease(conn, jobs[:1])
    assert kit.call(conn, "heartbeat_worker", **kit.held(jobs)) == []
    kit.call(conn, "cancel_jobs", p_user_id=jobs[1]["user_id"], p_job_ids=[ids[1]])
    kit.release(conn, jobs[2:3])
    stale = {**jobs[3], "token": jobs[3]["token"] + 1000}
    told = kit.call(conn, "heartbeat_worker", **kit.held([*jobs[:3], stale, {"token": 1, "job_id": uuid4()}]))
    assert {row["job_id"]: row["reason"] for row in told if row["job_id"] in ids} == {
        ids[1]: "cancelled",
        ids[2]: "lost",
        ids[3]: "lost",
    }
    assert len(told) == 4


def test_another_workers_claim_is_not_held(queue: Queue) -> None:
    """A token is good for the worker that got it only."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    kit.job_id(queue.conn)
    jobs = kit.claim(queue.conn)
    told = kit.call(queue.conn, "heartbeat_worker", **kit.held(jobs, "w2"))
    assert [row["reason"] for row in told] == ["lost"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("p_worker_id", None),
        ("p_worker_id", ""),
        ("p_worker_id", "w" * 201),
        ("p_lease", None),
        ("p_lease", "499 milliseconds"),
        ("p_lease", "25 hours"),
    ],
)
def test_refused(queue: Queue, field: str, value: Any) -> None:
    """A name of 1 to 200 characters, a lease of half a second to a day."""
    with kit.refused("SV001", field):
        kit.call(queue.conn, "heartbeat_worker", **{"p_worker_id": "w1", field: value})
    assert workers(queue) == []
