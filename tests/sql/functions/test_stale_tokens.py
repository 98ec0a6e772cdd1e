"""A token that is not the job's current claim is refused by every function that takes one."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection, IsolationLevel
from tests.sql import kit
from tests.sql.conftest import Queue

Use = Callable[[Connection[Any], list[kit.Row], str], list[kit.Row]]


def progress(conn: Connection[Any], jobs: list[kit.Row], name: str) -> list[kit.Row]:
    """Report progress."""
    some: kit.Row = {"p_progress": [0.9] * len(jobs), "p_messages": ["stale"] * len(jobs)}
    return kit.call(conn, "report_job_progress", **kit.held(jobs, name), **some)


def log(conn: Connection[Any], jobs: list[kit.Row], name: str) -> list[kit.Row]:
    """Write a line each."""
    some: kit.Row = {"p_levels": ["info"] * len(jobs), "p_messages": ["stale"] * len(jobs)}
    return kit.call(conn, "append_job_logs", **kit.held(jobs, name), **some)


USES: dict[str, Use] = {
    "complete": kit.complete,
    "fail": kit.fail,
    "lease": kit.lease,
    "release": kit.release,
    "progress": progress,
    "log": log,
}


def claimed_again(queue: Queue, leased: bool) -> tuple[kit.Row, kit.Row]:
    """A job that w1 lost and w2 holds: what w1 has, what w2 has."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    kit.worker(conn, "w2")
    kit.job_id(conn)
    [old] = kit.claim(conn)
    if leased:
        kit.lease(conn, [old])
    kit.kill_worker(conn)
    kit.call(conn, "recover_stuck_jobs")
    kit.worker(conn)
    conn.execute("UPDATE job_queue SET scheduled_for = created_at")
    [new] = kit.claim(conn, "w2")
    if leased:
        kit.lease(conn, [new], "w2")
    return old, new


def wrong_ones(old: kit.Row, new: kit.Row) -> list[tuple[str, kit.Row]]:
    """(worker, job) pairs that all are not the current claim."""
    return [
        ("w1", old),
        ("w1", new),
        ("w2", old),
        ("nobody", new),
        ("w2", {**new, "token": new["token"] + 1}),
        ("w2", {**new, "token": None}),
    ]


@pytest.mark.parametrize("leased", [False, True], ids=["claimed", "leased"])
@pytest.mark.parametrize("use", USES)
def test_refused(queue: Queue, use: str, leased: bool) -> None:
    """The old token, the right token of another worker, a made-up one: nothing is written, the job is named."""
    old, new = claimed_again(queue, leased)
    before = kit.stored(queue.conn, new["job_id"])
    for name, job in wrong_ones(old, new):
        answer = USES[use](queue.conn, [job], name)
        if use == "fail":
            assert [(row["job_id"], row["accepted"]) for row in answer] == [(new["job_id"], False)]
        elif use != "progress":
            assert [row["job_id"] for row in answer] == [new["job_id"]]
    assert kit.stored(queue.conn, new["job_id"]) == before
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_log") == 0
    assert kit.complete(queue.conn, [new], "w2") == []


@pytest.mark.parametrize("use", USES)
def test_one_stale_token_does_not_harm_its_neighbours(queue: Queue, use: str) -> None:
    """Of several jobs in one call, the held ones are served and the others refused, NULLs included."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    ids = [kit.job_id(conn) for _ in range(4)]
    jobs = kit.claim(conn, limit=4)
    if use == "progress":
        kit.lease(conn, jobs)
    kit.release(conn, jobs[1:2])
    unknown = {"token": jobs[0]["token"], "job_id": uuid4()}
    nothing = {"token": jobs[0]["token"], "job_id": None}
    USES[use](conn, [jobs[0], jobs[1], unknown, nothing, jobs[2]], "w1")
    wanted = {"complete": "completed", "fail": "pending", "release": "pending"}.get(use, "processing")
    assert [kit.status(conn, job_id) for job_id in ids] == [wanted, "pending", wanted, "processing"]
    assert kit.complete(conn, jobs[3:]) == [], "a job that the call did not name was lost from its claim"


@pytest.mark.parametrize("use", USES)
def test_lists_of_unequal_length(queue: Queue, use: str) -> None:
    """Lists that do not belong together are refused whole."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    job_id = kit.job_id(conn)
    [job] = kit.claim(conn)
    extra: dict[str, kit.Row] = {
        "complete": {"p_results": [{}]},
        "fail": {"p_failures": [kit.ERROR]},
        "lease": {"p_started_at": [None]},
        "release": {},
        "progress": {"p_progress": [0.1], "p_messages": ["x"]},
        "log": {"p_levels": ["info"], "p_messages": ["x"]},
    }
    function = {
        "complete": "complete_jobs",
        "fail": "fail_jobs",
        "lease": "lease_jobs",
        "release": "release_jobs",
        "progress": "report_job_progress",
        "log": "append_job_logs",
    }[use]
    right: kit.Row = {**kit.held([job]), **extra[use]}
    for name in right:
        if name == "p_worker_id":
            continue
        wrong_lists: list[Any] = [None, [], right[name] * 2]
        for wrong in wrong_lists:
            with kit.refused("SV001", "p_tokens"):
                kit.call(conn, function, **{**right, name: wrong})
    assert kit.status(conn, job_id) == "processing"
    snapshot = queue.database.as_service(autocommit=False)
    snapshot.isolation_level = IsolationLevel.REPEATABLE_READ
    with kit.refused("SV006", "transaction_isolation"):
        kit.call(snapshot, function, **right)
    snapshot.close()
