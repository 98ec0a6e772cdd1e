"""get_user_jobs: pages by offset, with the total."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue


def fill(queue: Queue, user_id: UUID) -> None:
    """40 jobs in every state, with ties in priority and in completed_at."""
    conn = queue.conn
    for name in ("email", "sms"):
        kit.register(conn, name, p_dedupe_window="0")
    kit.worker(conn)
    kit.call(conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=100)
    for n in range(40):
        kit.job_id(conn, user_id, ("email", "sms")[n % 2], p_params={"n": n}, p_priority=n % 3)
    jobs = kit.claim(conn, limit=24)
    kit.complete(conn, jobs[:8])
    kit.fail(conn, jobs[8:14], failure=kit.PERMANENT)
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[job["job_id"] for job in jobs[14:18]])
    kit.lease(conn, jobs[18:21])


def listed(queue: Queue, user_id: UUID, **arguments: Any) -> list[kit.Row]:
    """One page, asked by the user."""
    return kit.call(queue.as_user(user_id), "get_user_jobs", p_user_id=user_id, **arguments)


def expected(
    jobs: list[kit.Row], order_by: str, descending: bool, status: str | None, job_type: str | None
) -> list[UUID]:
    """The same list, computed here: ties by id in the same direction, NULLs last."""
    wanted = [job for job in jobs if status in (None, job["status"]) and job_type in (None, job["job_type"])]
    if order_by == "created_at":
        wanted.sort(key=lambda job: str(job["id"]), reverse=descending)
        return [job["id"] for job in wanted]
    known = [job for job in wanted if job[order_by] is not None]
    unknown = [job for job in wanted if job[order_by] is None]
    known.sort(key=lambda job: (job[order_by], str(job["id"])), reverse=descending)
    unknown.sort(key=lambda job: str(job["id"]), reverse=descending)
    return [job["id"] for job in known + unknown]


def test_order_and_filters(queue: Queue) -> None:
    """Every order, direction and filter gives exactly the user's jobs, with the total of the filter."""
    user_id = uuid4()
    fill(queue, user_id)
    kit.job_id(queue.conn)
    everything = listed(queue, user_id, p_limit=1000)
    assert {job["status"] for job in everything} == {
        "pending",
        "processing",
        "completed",
        "failed",
        "cancelled",
    }
    by_id, row_count = {job["id"]: job for job in everything}, len(everything)
    assert [job["id"] for job in everything] == [
        row["id"]
        for row in kit.query(
            queue.conn, "SELECT id FROM job_queue WHERE user_id = %s ORDER BY created_at DESC", user_id
        )
    ]
    for order_by in ("created_at", "completed_at", "job_priority"):
        for direction in ("ASC", "desc"):
            for status in (None, "pending", "processing", "completed", "failed", "cancelled"):
                for job_type in (None, "sms"):
                    filters = {"p_status": status, "p_job_type": job_type}
                    rows = listed(
                        queue, user_id, **filters, p_order_by=order_by, p_order_dir=direction, p_limit=100
                    )
                    wanted = expected(everything, order_by, direction == "desc", status, job_type)
                    assert [row["id"] for row in rows] == wanted, (order_by, direction, filters)
                    assert {row["total_count"] for row in rows} <= {len(wanted)}
                    assert all({**row, "total_count": row_count} == by_id[row["id"]] for row in rows)


def test_pages(queue: Queue) -> None:
    """Pages cover the list without gaps or repeats; past its end there is none."""
    user_id = uuid4()
    fill(queue, user_id)
    pages = [listed(queue, user_id, p_limit=7, p_offset=offset) for offset in range(0, 49, 7)]
    assert [len(page) for page in pages] == [7, 7, 7, 7, 7, 5, 0]
    assert [row["id"] for page in pages for row in page] == [
        row["id"] for row in listed(queue, user_id, p_limit=40)
    ]
    assert {row["total_count"] for page in pages for row in page} == {40}


def fill_ended(queue: Queue, user_id: UUID) -> None:
    """Finished jobs of four weeks, 15 of each status in each, three of every microsecond."""
    queue.conn.execute(
        """
        INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, completed_at)
        SELECT m.id, streamvibe.id_time(m.id), %s, 'email', m.status, streamvibe.now()
        FROM (SELECT streamvibe.make_id(t.now - w * interval '7 days' - n / 3 * interval '1 us') AS id, s.status
              FROM (SELECT streamvibe.now() AS now OFFSET 0) t
              CROSS JOIN generate_series(0, 3) w
              CROSS JOIN generate_series(0, 14) n
              CROSS JOIN unnest('{completed,failed,cancelled}'::text[]) s(status) OFFSET 0) m
        """,
        [user_id],
    )


def walked(conn: Connection[Any], **arguments: Any) -> list[UUID]:
    """All pages of a list, each asked for by its number, of five jobs each."""
    ids: list[UUID] = []
    while page := kit.call(conn, "get_user_jobs", **arguments, p_limit=5, p_offset=len(ids)):
        assert len(page) == min(5, page[0]["total_count"] - len(ids))
        ids += [row["id"] for row in page]
    return ids


@pytest.mark.parametrize("has_index", [True, False], ids=["indexed", "without the index"])
def test_pages_of_what_ended(clocked: Queue, has_index: bool) -> None:
    """In both directions they are the list from end to end, through all leaves; jobs of one moment go by their ids.

    No index has a say in that: without the one that has this order the pages are the same.
    """
    conn, user_id = clocked.conn, uuid4()
    kit.register(conn)
    clocked.advance(timedelta(days=21, seconds=1))
    for who in (user_id, uuid4()):
        fill_ended(clocked, who)
    everything = kit.query(conn, "SELECT * FROM public.job_queue WHERE user_id = %s", user_id)
    assert len({row["created_at"] for row in everything}) == 4 * 5
    with conn.transaction(force_rollback=True):
        if not has_index:
            conn.execute("DROP INDEX public.idx_job_queue_user_status_created")
        for status in ("completed", "failed", "cancelled"):
            ended = [row for row in everything if row["status"] == status]
            oldest_first = [
                row["id"] for row in sorted(ended, key=lambda row: (row["created_at"], row["id"]))
            ]
            assert len(ended) == 4 * 15
            for direction, wanted in (("ASC", oldest_first), ("DESC", oldest_first[::-1])):
                found = walked(conn, p_user_id=user_id, p_status=status, p_order_dir=direction)
                assert found == wanted, (status, direction)


def test_columns_and_defaults(queue: Queue) -> None:
    """50 rows, newest first, with the columns of get_job, total_count and total_age."""
    kit.register(queue.conn)
    user_id = uuid4()
    job_id = kit.job_id(queue.conn, user_id)
    [row] = listed(queue, user_id)
    assert (row.pop("total_count"), row.pop("total_age")) == (1, timedelta(0))
    assert row == kit.get_job(queue.conn, job_id)
    assert listed(queue, uuid4()) == []


@pytest.mark.parametrize(
    ("code", "field", "value"),
    [
        ("SV001", "p_limit", 0),
        ("SV001", "p_limit", -1),
        ("SV001", "p_limit", 1001),
        ("SV001", "p_limit", 10_000_000),
        ("SV001", "p_limit", None),
        ("SV001", "p_offset", -1),
        ("SV001", "p_offset", None),
        ("SV015", "p_offset", 1001),
        ("SV001", "p_status", "done"),
        ("SV001", "p_status", ""),
        ("SV001", "p_order_by", "params"),
        ("SV001", "p_order_by", "created_at; DROP TABLE job_queue"),
        ("SV001", "p_order_by", None),
        ("SV001", "p_order_dir", "sideways"),
        ("SV001", "p_order_dir", None),
    ],
)
def test_refused(queue: Queue, code: str, field: str, value: Any) -> None:
    """What no list has is refused by name with the value received; a far offset names the cursor call."""
    received = "NULL" if value is None else str(value)
    with kit.refused(code, field, received) as caught:
        listed(queue, uuid4(), **{field: value})
    if code == "SV015":
        assert "get_user_jobs_by_cursor" in str(caught.value.diag.message_hint)


def test_offset_of_exactly_1000(queue: Queue) -> None:
    """1,000 is the last offset that is answered."""
    assert listed(queue, uuid4(), p_offset=1000) == []


def test_whose(queue: Queue) -> None:
    """Another user's list is refused; the service names the user."""
    with kit.refused("SV004", "p_user_id"):
        kit.call(queue.as_user(uuid4()), "get_user_jobs", p_user_id=uuid4())
    with kit.refused("SV001", "p_user_id"):
        kit.call(queue.service, "get_user_jobs", p_user_id=None)
    assert kit.call(queue.as_user(uuid4()), "get_user_jobs", p_user_id=None) == []


def fill_directly(queue: Queue, user_id: UUID, count: int) -> None:
    """Finished jobs, a microsecond apart, the last of them now."""
    queue.conn.execute(
        """
        INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, completed_at, job_priority)
        SELECT m.id, streamvibe.id_time(m.id), %s, 'email', 'completed', clock_timestamp() - m.n * interval '1 second',
               m.n %% 10
        FROM (SELECT n, streamvibe.make_id(clock_timestamp() - n * interval '1 microsecond') AS id
              FROM generate_series(1, %s) n OFFSET 0) m
        """,
        [user_id, count],
    )


def test_a_long_lists_total_is_five_minutes_old_at_most(clocked: Queue) -> None:
    """Up to 10,000 jobs are counted in each call; of more, the total is kept, and says since when."""
    user_id = uuid4()
    kit.register(clocked.conn)
    fill_directly(clocked, user_id, 9_999)

    def total(**filters: Any) -> tuple[int, float]:
        [row] = listed(clocked, user_id, p_limit=1, **filters)
        return row["total_count"], row["total_age"].total_seconds()

    kit.job_id(clocked.conn, user_id)
    assert total() == (10_000, 0)
    kit.job_id(clocked.conn, user_id)
    assert total() == (10_001, 0)
    kit.job_id(clocked.conn, user_id)
    clocked.advance(timedelta(seconds=299))
    count, age = total()
    assert (count, 299 <= age < 300) == (10_001, True), age
    assert total(p_status="pending") == (3, 0)
    assert total(p_status="completed") == (9_999, 0)
    clocked.advance(timedelta(seconds=1))
    assert total() == (10_002, 0)
    clocked.conn.execute("DELETE FROM job_queue WHERE job_priority = 3")
    assert total()[0] < 10_000


def test_only_10000_jobs_are_sorted(queue: Queue) -> None:
    """More are refused in any order but created_at's, with the way out; the page at 10,000 is right."""
    user_id = uuid4()
    kit.register(queue.conn)
    fill_directly(queue, user_id, 10_000)
    [row] = listed(queue, user_id, p_limit=1, p_order_by="completed_at", p_order_dir="ASC")
    oldest = kit.value(queue.conn, "SELECT id FROM job_queue ORDER BY completed_at LIMIT 1")
    assert (row["id"], row["total_count"]) == (oldest, 10_000)
    fill_directly(queue, user_id, 1)
    for order_by in ("completed_at", "job_priority"):
        with kit.refused("SV001", "p_order_by", order_by):
            listed(queue, user_id, p_order_by=order_by)
    assert len(listed(queue, user_id, p_offset=1000, p_limit=1000)) == 1000
