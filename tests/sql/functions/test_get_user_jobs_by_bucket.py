"""get_user_jobs_by_bucket: the jobs of one hour, day, week or month, with the bucket's total."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

HOUR = timedelta(hours=1)
BUCKETS = ("hour", "day", "week", "month")


def at(queue: Queue, moment: datetime) -> None:
    """Set the clock."""
    queue.conn.execute("UPDATE streamvibe.test_clock SET shift = %s - clock_timestamp()", [moment])


def add(queue: Queue, user_id: UUID, moment: datetime, count: int = 1) -> list[UUID]:
    """Jobs of one moment, oldest first; partitions are there from the present week on."""
    return [
        kit.value(
            queue.conn,
            "INSERT INTO public.job_queue (id, created_at, user_id, job_type) "
            "SELECT i.id, streamvibe.id_time(i.id), %s, 'email' "
            "FROM (SELECT streamvibe.make_id(%s::timestamptz) AS id OFFSET 0) i RETURNING id",
            user_id,
            moment + timedelta(microseconds=n),
        )
        for n in range(count)
    ]


def page(queue: Queue, user_id: UUID, **arguments: Any) -> list[kit.Row]:
    """A page, asked by the user."""
    return kit.call(queue.as_user(user_id), "get_user_jobs_by_bucket", p_user_id=user_id, **arguments)


def bounds(moment: datetime, bucket: str, back: int, zone: str = "UTC") -> tuple[datetime, datetime]:
    """Start and end of the bucket so many before that of the moment, computed here."""
    local = moment.astimezone(ZoneInfo(zone)).replace(minute=0, second=0, microsecond=0)
    if bucket == "hour":
        start = local.astimezone(UTC) - back * HOUR
        return start, start + HOUR
    local = local.replace(hour=0, tzinfo=None)

    def month(number: int) -> datetime:
        return local.replace(year=number // 12, month=number % 12 + 1, day=1)

    if bucket == "month":
        number = local.year * 12 + local.month - 1 - back
        days = (month(number), month(number + 1))
    else:
        width = timedelta(days=7 if bucket == "week" else 1)
        first = local - (timedelta(days=local.weekday()) if bucket == "week" else timedelta()) - back * width
        days = (first, first + width)
    start, end = (day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for day in days)
    return start, end


def monday(queue: Queue) -> datetime:
    """A Monday at noon, next week: for which there are partitions, and for three weeks after."""
    now: datetime = kit.value(queue.conn, "SELECT clock_timestamp()")
    return (now + timedelta(days=7 - now.weekday())).replace(hour=12, minute=30, second=0, microsecond=0)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_each_job_is_in_one_bucket(clocked: Queue, bucket: str, zone: str) -> None:
    """Jobs at every bucket's very start and end: a page has exactly those of its bucket, with its bounds and total."""
    user_id = uuid4()
    kit.register(clocked.conn)
    now = monday(clocked) + timedelta(days=38)
    for moment in (now - timedelta(days=20), now):
        at(clocked, moment)
        kit.call(clocked.conn, "ensure_partitions")
    edge = timedelta(milliseconds=1)
    pages = 4 if bucket in ("hour", "day") else 2
    jobs: dict[UUID, datetime] = {}
    for back in range(pages):
        start, end = bounds(now, bucket, back, zone)
        for moment in (start, start + edge, end - edge):
            if now - timedelta(days=38) < moment < now + timedelta(days=6):
                jobs[add(clocked, user_id, moment)[0]] = moment
    add(clocked, uuid4(), now)
    for back in range(pages):
        start, end = bounds(now, bucket, back, zone)
        rows = page(clocked, user_id, p_bucket=bucket, p_page=back + 1, p_time_zone=zone)
        assert {(row["bucket_start"], row["bucket_end"]) for row in rows} == {(start, end)}
        wanted = [job for job, moment in jobs.items() if start <= moment < end]
        wanted.sort(key=lambda job: (jobs[job], str(job)), reverse=True)
        assert [row["id"] for row in rows if row["id"] is not None] == wanted, (back, start, end)
        assert {row["bucket_total"] for row in rows} == {len(wanted)}
    assert len(jobs) >= 3


def test_a_long_bucket_is_paged(clocked: Queue) -> None:
    """A cursor goes on in its bucket, also when the next one has begun meanwhile; then it is over."""
    user_id = uuid4()
    kit.register(clocked.conn)
    now = monday(clocked)
    at(clocked, now)
    yesterday = add(clocked, user_id, now - timedelta(days=1), 3)
    today = add(clocked, user_id, now, 7)
    seen: list[UUID] = []
    cursor = None
    while True:
        rows = page(clocked, user_id, p_limit=3, p_cursor=cursor)
        seen += [row["id"] for row in rows]
        assert {(row["bucket_total"], row["bucket_start"]) for row in rows} == {
            (7, now.replace(hour=0, minute=0))
        }
        [(cursor, has_more)] = {(row["next_cursor"], row["has_more"]) for row in rows}
        assert has_more == (cursor is not None)
        if not has_more:
            break
        at(clocked, now + timedelta(days=1))
    assert seen == today[::-1]
    assert [row["id"] for row in page(clocked, user_id, p_page=3)] == yesterday[::-1]


def test_an_empty_bucket_says_which_it_is(clocked: Queue) -> None:
    """One row with the bounds and a total of 0; everything of a job is NULL."""
    kit.register(clocked.conn)
    now = monday(clocked)
    at(clocked, now)
    [row] = page(clocked, uuid4(), p_bucket="month", p_page=1000)
    start, end = bounds(now, "month", 999)
    assert {name: value for name, value in row.items() if value is not None} == {
        "bucket_start": start,
        "bucket_end": end,
        "bucket_total": 0,
        "bucket_total_age": timedelta(0),
        "has_more": False,
    }


def test_filters(clocked: Queue) -> None:
    """Status, as readers see it, and type count for rows and total."""
    user_id = uuid4()
    for name in ("email", "sms"):
        kit.register(clocked.conn, name)
    kit.worker(clocked.conn)
    for name in ("email", "email", "sms"):
        kit.job_id(clocked.conn, user_id, name)
    [held] = kit.claim(clocked.conn, p_job_types=["email"])
    for filters, count in (
        ({}, 3),
        ({"p_job_type": "sms"}, 1),
        ({"p_status": "pending"}, 2),
        ({"p_status": "pending", "p_job_type": "email"}, 1),
    ):
        rows = page(clocked, user_id, p_bucket="week", **filters)
        assert (len(rows), rows[0]["bucket_total"]) == (count, count), filters
    assert [row["id"] for row in page(clocked, user_id, p_status="processing")] == [held["job_id"]]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_what_ended_is_counted_within_its_bucket(clocked: Queue, status: str) -> None:
    """Jobs that ended alike and are of days before, or after, are not in a day's total."""
    user_id = uuid4()
    kit.register(clocked.conn)
    now = monday(clocked)
    at(clocked, now)
    days = [add(clocked, user_id, now + timedelta(days=number), 3 + number) for number in (-1, 0, 1)]
    clocked.conn.execute("UPDATE public.job_queue SET status = %s, completed_at = %s", [status, now])
    for number, ids in ((1, days[1]), (2, days[0])):
        rows = page(clocked, user_id, p_page=number, p_status=status)
        assert [row["id"] for row in rows] == ids[::-1]
        assert {row["bucket_total"] for row in rows} == {len(ids)}
    counted = {"p_user_id": user_id, "p_status": status, "p_job_type": None}
    for bounds, count in (((None, now), 2), ((now, None), 7), ((None, None), 9)):
        asked = dict(zip(("p_from", "p_end"), bounds, strict=True))
        assert (
            kit.call_one(clocked.conn, "streamvibe.total_of_user_jobs", **counted, **asked)["total"] == count
        )


def test_an_hour_that_comes_twice(clocked: Queue) -> None:
    """Where clocks are set back, each hour that passes has its own page."""
    kit.register(clocked.conn)
    at(clocked, datetime(2027, 10, 31, 2, 30, tzinfo=UTC))
    starts = [
        page(clocked, uuid4(), p_bucket="hour", p_page=number, p_time_zone="Europe/Berlin")[0]["bucket_start"]
        for number in (1, 2, 3, 4)
    ]
    first = datetime(2027, 10, 31, 2, 0, tzinfo=UTC)
    assert starts == [first - number * HOUR for number in range(4)]


def test_other_lists_cursors(clocked: Queue) -> None:
    """A cursor is good for its bucket, page, zone and filters alone."""
    user_id = uuid4()
    kit.register(clocked.conn)
    for _ in range(3):
        kit.job_id(clocked.conn, user_id)
    cursor = page(clocked, user_id, p_limit=1)[0]["next_cursor"]
    for other in (
        {"p_bucket": "week"},
        {"p_page": 2},
        {"p_time_zone": "Europe/Berlin"},
        {"p_status": "pending"},
        {"p_job_type": "email"},
    ):
        with kit.refused("SV014", "p_cursor"):
            page(clocked, user_id, p_limit=1, p_cursor=cursor, **other)
    with kit.refused("SV014", "p_cursor"):
        kit.call(clocked.conn, "get_user_jobs_by_cursor", p_user_id=user_id, p_cursor=cursor)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("p_bucket", "year"),
        ("p_bucket", None),
        ("p_page", 0),
        ("p_page", 1001),
        ("p_page", None),
        ("p_time_zone", "Mars/Olympus"),
        ("p_time_zone", ""),
        ("p_time_zone", None),
        ("p_limit", 0),
        ("p_limit", 10_000_000),
        ("p_status", "done"),
    ],
)
def test_refused(queue: Queue, field: str, value: Any) -> None:
    """Each parameter has its bounds, and says what was given."""
    with kit.refused("SV001", field, "NULL" if value is None else str(value)):
        page(queue, uuid4(), **{field: value})


def test_only_ones_own(queue: Queue) -> None:
    """Another user's jobs are refused."""
    with kit.refused("SV004", "p_user_id"):
        kit.call(queue.as_user(uuid4()), "get_user_jobs_by_bucket", p_user_id=uuid4())
