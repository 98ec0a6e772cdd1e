"""get_user_jobs_by_cursor and get_job_logs: pages that neither lose nor repeat a row."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue

Page = Callable[..., list[kit.Row]]


def jobs_page(conn: Connection[Any], user_id: UUID, **arguments: Any) -> list[kit.Row]:
    """A page of the user's jobs."""
    return kit.call(conn, "get_user_jobs_by_cursor", p_user_id=user_id, **arguments)


def logs_page(conn: Connection[Any], job_id: UUID, **arguments: Any) -> list[kit.Row]:
    """A page of the job's log."""
    return kit.call(conn, "get_job_logs", p_job_id=job_id, **arguments)


def walk(
    conn: Connection[Any], page: Page, whose: UUID, meanwhile: Callable[[], object], **filters: Any
) -> list[UUID]:
    """Every id from the first page to the last; `meanwhile` happens between two pages."""
    seen: list[UUID] = []
    cursor = None
    while rows := page(conn, whose, p_cursor=cursor, **filters):
        seen += [row["id"] for row in rows]
        [(cursor, has_more)] = {(row["next_cursor"], row["has_more"]) for row in rows}
        assert has_more == (cursor is not None)
        if not has_more:
            break
        meanwhile()
    return seen


def add_jobs(queue: Queue, user_id: UUID, count: int, at: str | None = None) -> None:
    """Jobs of this user, made now or at a moment (all with the same microsecond)."""
    for _ in range(count):
        if at is None:
            kit.job_id(queue.conn, user_id)
        else:
            queue.conn.execute(
                "INSERT INTO public.job_queue (id, created_at, user_id, job_type) "
                "SELECT i.id, streamvibe.id_time(i.id), %s, 'email' "
                "FROM (SELECT streamvibe.make_id(%s::timestamptz) AS id OFFSET 0) i",
                [user_id, at],
            )


def claimed(queue: Queue) -> list[kit.Row]:
    """One claimed job."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    kit.job_id(queue.conn)
    return kit.claim(queue.conn)


def log(queue: Queue, jobs: list[kit.Row], count: int, level: str = "info") -> None:
    """So many lines."""
    arguments: kit.Row = {"p_levels": [level] * count, "p_messages": [f"line {n}" for n in range(count)]}
    assert kit.call(queue.conn, "append_job_logs", **kit.held(jobs * count), **arguments) == []


@pytest.mark.parametrize("size", [1, 7, 30, 31, 1000])
def test_jobs_while_more_arrive(queue: Queue, size: int) -> None:
    """Paging shows each job that was there at the start once, newest first, whatever arrives meanwhile."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=100_000)
    add_jobs(queue, user_id, 30)
    there = kit.query(queue.conn, "SELECT id FROM job_queue ORDER BY created_at DESC, id DESC")
    seen = walk(queue.as_user(user_id), jobs_page, user_id, lambda: add_jobs(queue, user_id, 2), p_limit=size)
    assert seen == [row["id"] for row in there]


@pytest.mark.parametrize("size", [1, 3, 4])
def test_jobs_of_one_microsecond(queue: Queue, size: int) -> None:
    """Jobs made in the same microsecond, and in neighbouring ones, are all shown once."""
    user_id = uuid4()
    kit.register(queue.conn)
    now = kit.value(queue.conn, "SELECT date_trunc('second', clock_timestamp())::text")
    for microseconds in ("000001", "000002", "999999"):
        add_jobs(queue, user_id, 4, now.replace("+00", f".{microseconds}+00"))
    there = kit.query(queue.conn, "SELECT id FROM job_queue ORDER BY created_at DESC, id DESC")
    times = kit.value(queue.conn, "SELECT count(DISTINCT created_at) FROM job_queue")
    assert (len(there), times) == (12, 3)
    seen = walk(queue.as_user(user_id), jobs_page, user_id, lambda: None, p_limit=size)
    assert seen == [row["id"] for row in there]


def test_jobs_filtered(queue: Queue) -> None:
    """Status (as readers see it) and type filter; only the user's own jobs are ever shown."""
    user_id = uuid4()
    for name in ("email", "sms"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn)
    emails = [kit.job_id(queue.conn, user_id) for _ in range(4)]
    sms = [kit.job_id(queue.conn, user_id, "sms") for _ in range(4)]
    held = [job["job_id"] for job in kit.claim(queue.conn, limit=2, p_job_types=["email"])]
    kit.job_id(queue.conn)
    conn = queue.as_user(user_id)

    def seen(**filters: Any) -> list[UUID]:
        return walk(conn, jobs_page, user_id, lambda: None, p_limit=1, **filters)

    assert seen() == [*sms[::-1], *emails[::-1]]
    assert seen(p_job_type="sms") == sms[::-1]
    assert seen(p_status="processing") == sorted(held, key=str, reverse=True)
    assert seen(p_status="pending", p_job_type="email") == emails[:1:-1]
    assert seen(p_status="failed") == []


def test_logs_while_more_arrive(queue: Queue) -> None:
    """A log's pages show each line once, newest first, in the order it was written."""
    jobs = claimed(queue)
    for _ in range(3):
        log(queue, jobs, 10)
    there = kit.query(queue.conn, "SELECT id FROM job_log ORDER BY created_at DESC, id DESC")
    messages = [row["message"] for row in logs_page(queue.conn, jobs[0]["job_id"])]
    assert messages == [f"line {n}" for n in range(9, -1, -1)] * 3
    for size in (1, 7, 30, 1000):
        seen = walk(queue.conn, logs_page, jobs[0]["job_id"], lambda: log(queue, jobs, 2), p_limit=size)
        assert seen[-30:] == [row["id"] for row in there]
        assert len(set(seen)) == len(seen)


def test_logs_filtered(queue: Queue) -> None:
    """By level; of one job only; 100 lines unless asked otherwise."""
    jobs = claimed(queue)
    for level in ("debug", "info", "warning", "error"):
        log(queue, jobs, 30, level)
    other = claimed(queue)
    log(queue, other, 5)
    job_id = jobs[0]["job_id"]
    assert len(logs_page(queue.conn, job_id)) == 100
    assert {row["log_level"] for row in logs_page(queue.conn, job_id, p_log_level="error")} == {"error"}
    assert len(walk(queue.conn, logs_page, job_id, lambda: None, p_limit=9, p_log_level="debug")) == 30
    assert {row["job_id"] for row in logs_page(queue.conn, job_id, p_limit=1000)} == {job_id}


def test_logs_are_the_owners(queue: Queue) -> None:
    """The job's user sees them; another user sees none; the service sees all."""
    jobs = claimed(queue)
    log(queue, jobs, 2)
    job_id, user_id = jobs[0]["job_id"], jobs[0]["user_id"]
    assert len(logs_page(queue.as_user(user_id), job_id)) == 2
    assert logs_page(queue.as_user(uuid4()), job_id) == []
    assert len(logs_page(queue.service, job_id, p_user_id=user_id)) == 2
    assert logs_page(queue.service, job_id, p_user_id=uuid4()) == []
    with kit.refused("SV004", "p_user_id"):
        logs_page(queue.as_user(uuid4()), job_id, p_user_id=user_id)


def test_altered_cursors(queue: Queue) -> None:
    """Every cursor that is not exactly the one given out for this list is refused."""
    user_id, stranger = uuid4(), uuid4()
    kit.register(queue.conn)
    add_jobs(queue, user_id, 3)
    add_jobs(queue, stranger, 3)
    cursor = jobs_page(queue.conn, user_id, p_limit=1)[0]["next_cursor"]
    assert len(jobs_page(queue.conn, user_id, p_cursor=cursor)) == 2
    altered = [
        cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor))
    ]
    for broken in [
        *altered,
        "",
        "garbage",
        cursor[:-1],
        cursor + "A",
        cursor + "\n",
        f" {cursor}",
        "v1" + "é" * 28,
    ]:
        with kit.refused("SV014", "p_cursor", broken):
            jobs_page(queue.conn, user_id, p_cursor=broken)
    for foreign in (
        {"p_status": "pending"},
        {"p_job_type": "email"},
    ):
        with kit.refused("SV014", "p_cursor"):
            jobs_page(queue.conn, user_id, p_cursor=cursor, **foreign)
    with kit.refused("SV014", "p_cursor"):
        jobs_page(queue.as_user(stranger), stranger, p_cursor=cursor)


def test_cursors_of_other_logs(queue: Queue) -> None:
    """A log's cursor is good for that log and that level alone."""
    jobs = claimed(queue)
    log(queue, jobs, 3)
    job_id = jobs[0]["job_id"]
    cursor = logs_page(queue.conn, job_id, p_limit=1)[0]["next_cursor"]
    assert len(logs_page(queue.conn, job_id, p_cursor=cursor)) == 2
    with kit.refused("SV014", "p_cursor"):
        logs_page(queue.conn, uuid4(), p_cursor=cursor)
    with kit.refused("SV014", "p_cursor"):
        logs_page(queue.conn, job_id, p_cursor=cursor, p_log_level="info")
    with kit.refused("SV014", "p_cursor"):
        jobs_page(queue.conn, jobs[0]["user_id"], p_cursor=cursor)


@pytest.mark.parametrize(
    ("field", "value"),
    [("p_limit", 0), ("p_limit", 1001), ("p_limit", 10_000_000), ("p_limit", None), ("p_status", "done")],
)
def test_jobs_refused(queue: Queue, field: str, value: Any) -> None:
    """Page size and status have the bounds of get_user_jobs."""
    with kit.refused("SV001", field, "NULL" if value is None else str(value)):
        jobs_page(queue.conn, uuid4(), **{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("p_limit", 0), ("p_limit", 1001), ("p_limit", None), ("p_log_level", "fatal")]
)
def test_logs_refused(queue: Queue, field: str, value: Any) -> None:
    """Page size and level have their bounds."""
    with kit.refused("SV001", field, "NULL" if value is None else str(value)):
        logs_page(queue.conn, uuid4(), **{field: value})
