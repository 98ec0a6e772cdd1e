"""search_jobs: jobs by what their params and results contain."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue


def found(conn: Connection[Any], **arguments: Any) -> list[UUID]:
    """The ids of the first page."""
    return [row["id"] for row in kit.call(conn, "search_jobs", **arguments)]


def fill(queue: Queue, user_id: UUID) -> list[UUID]:
    """Jobs 0 to 11 of two kinds; the first six completed, with a result."""
    for name in ("email", "sms"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn)
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=100)
    jobs = [
        kit.job_id(
            queue.conn,
            user_id,
            ("email", "sms")[n % 2],
            p_params={"n": n, "kind": ["even", "odd"][n % 2], "tags": ["a", {"deep": n % 3}]},
        )
        for n in range(12)
    ]
    for job in kit.claim(queue.conn, limit=6):
        kit.complete(queue.conn, [job], result={"from": str(job["job_id"]), "ok": True})
    return jobs


def test_params_and_result(queue: Queue) -> None:
    """What contains the value, at any depth; both together; newest first."""
    user_id = uuid4()
    jobs = fill(queue, user_id)
    conn = queue.as_user(user_id)
    assert found(conn, p_params={"n": 7}) == [jobs[7]]
    assert found(conn, p_params={"kind": "odd"}) == jobs[::-1][::2]
    assert found(conn, p_params={"tags": [{"deep": 2}]}) == [jobs[n] for n in (11, 8, 5, 2)]
    assert found(conn, p_params={"tags": ["a"]}) == jobs[::-1]
    assert found(conn, p_params={"tags": "a"}) == []
    assert found(conn, p_result={"ok": True}) == jobs[5::-1]
    assert found(conn, p_result={"from": str(jobs[3])}) == [jobs[3]]
    assert found(conn, p_params={"kind": "even"}, p_result={"ok": True}) == [jobs[n] for n in (4, 2, 0)]
    assert found(conn, p_params={"kind": "even"}, p_result={"ok": False}) == []


def test_filters(queue: Queue) -> None:
    """Status as readers see it, and type; the columns are those of get_job."""
    user_id = uuid4()
    jobs = fill(queue, user_id)
    conn = queue.as_user(user_id)
    [held] = kit.claim(queue.conn, p_job_types=["sms"])
    assert found(conn, p_params={"kind": "odd"}, p_status="processing") == [held["job_id"]]
    assert found(conn, p_params={"kind": "odd"}, p_status="pending") == [
        job for job in (jobs[11], jobs[9], jobs[7]) if job != held["job_id"]
    ]
    assert found(conn, p_params={"tags": ["a"]}, p_status="completed", p_job_type="sms") == [
        jobs[n] for n in (5, 3, 1)
    ]
    [row] = kit.call(conn, "search_jobs", p_params={"n": 3})
    assert (row.pop("next_cursor"), row.pop("has_more")) == (None, False)
    assert row == kit.get_job(queue.conn, jobs[3])


@pytest.mark.parametrize("size", [1, 5, 12, 50])
def test_pages(queue: Queue, size: int) -> None:
    """Each once, whatever arrives meanwhile."""
    user_id = uuid4()
    jobs = fill(queue, user_id)
    seen: list[UUID] = []
    cursor = None
    while True:
        rows = kit.call(
            queue.as_user(user_id), "search_jobs", p_params={"tags": ["a"]}, p_limit=size, p_cursor=cursor
        )
        seen += [row["id"] for row in rows]
        [(cursor, has_more)] = {(row["next_cursor"], row["has_more"]) for row in rows}
        assert has_more == (cursor is not None)
        if not has_more:
            break
        kit.job_id(queue.conn, user_id, p_params={"n": str(uuid4()), "tags": ["a"]})
    assert seen == jobs[::-1]


def test_whose(queue: Queue) -> None:
    """A user finds their own; the service everybody's, or one user's."""
    users = [uuid4(), uuid4()]
    kit.register(queue.conn)
    jobs = [kit.job_id(queue.conn, user_id, p_params={"same": 1}) for user_id in users]
    assert found(queue.as_user(users[0]), p_params={"same": 1}) == jobs[:1]
    assert found(queue.service, p_params={"same": 1}) == jobs[::-1]
    assert found(queue.service, p_params={"same": 1}, p_user_id=users[1]) == jobs[1:]
    with kit.refused("SV004", "p_user_id"):
        found(queue.as_user(users[0]), p_params={"same": 1}, p_user_id=users[1])


def test_cursors_of_other_searches(queue: Queue) -> None:
    """A cursor is good for what was looked for alone."""
    user_id = uuid4()
    fill(queue, user_id)
    conn = queue.as_user(user_id)
    cursor = kit.call(conn, "search_jobs", p_params={"kind": "odd"}, p_limit=1)[0]["next_cursor"]
    for other in (
        {"p_params": {"kind": "even"}},
        {"p_params": {"kind": "odd"}, "p_result": {"ok": True}},
        {"p_params": {"kind": "odd"}, "p_status": "completed"},
        {"p_params": {"kind": "odd"}, "p_job_type": "sms"},
    ):
        with kit.refused("SV014", "p_cursor"):
            kit.call(conn, "search_jobs", p_cursor=cursor, **other)


@pytest.mark.parametrize(
    ("code", "field", "value"),
    [
        ("SV001", "p_params", None),
        ("SV001", "p_params", {}),
        ("SV001", "p_result", {}),
        ("SV001", "p_result", Jsonb([])),
        ("SV003", "p_params", {"a": "x" * 10_001}),
        ("SV001", "p_limit", 0),
        ("SV001", "p_limit", 10_000_000),
        ("SV001", "p_status", "done"),
        ("SV014", "p_cursor", "garbage"),
    ],
)
def test_refused(queue: Queue, code: str, field: str, value: Any) -> None:
    """Nothing to look for, what everything contains, and what no search is for."""
    arguments = {"p_params": {"a": 1}, field: value}
    with kit.refused(code, field):
        kit.call(queue.as_user(uuid4()), "search_jobs", **arguments)
