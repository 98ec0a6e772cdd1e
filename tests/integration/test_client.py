"""What both clients do with jobs: each test runs with both, on PostgreSQL 18 and 15."""

import asyncio
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import BaseModel
from tests.support import hands
from tests.support.databases import Database

from streamvibe import Client, Context, JobFailed, JobNotFound, JobStatus, Outcome, WaitTimeout, job_type
from streamvibe.errors import IdempotencyConflict, InvalidArgument, LimitReached, StreamVibeError
from streamvibe.model import Job


class SumParams(BaseModel):
    """Numbers to add."""

    numbers: list[int]


@dataclass
class SumResult:
    """Their sum."""

    total: int


@job_type("sum", max_attempts=2, cache_ttl=timedelta(minutes=10))
async def add_up(ctx: Context, params: SumParams) -> SumResult:
    return SumResult(sum(params.numbers))


@pytest.fixture
def user_id() -> UUID:
    """A user that no other test has."""
    return uuid4()


async def test_a_request_creates_joins_and_answers_from_the_cache(
    client: Client, database: Database, user_id: UUID
) -> None:
    """The same request is created once, joined while it is live, cached once completed, and new when forced."""
    await client.register(add_up)
    created = await client.request(add_up, SumParams(numbers=[1, 2]), user_id=user_id)
    joined = await client.request("sum", {"numbers": [1, 2]}, user_id=str(user_id))
    assert (created.outcome, created.status) == (Outcome.CREATED, JobStatus.PENDING)
    assert (joined.outcome, joined.job_id) == (Outcome.JOINED, created.job_id)
    hands.complete(database.dsn, {"total": 3})

    cached = await client.request(add_up, {"numbers": [1, 2]}, user_id=user_id)
    assert (cached.outcome, cached.job_id, cached.status) == ("cached", created.job_id, "completed")
    assert cached.result == SumResult(3)
    assert cached.result_age is not None and timedelta(0) <= cached.result_age < timedelta(minutes=1)
    by_name = await client.request("sum", SumParams(numbers=[1, 2]), user_id=user_id)
    assert by_name.result == {"total": 3}

    forced = await client.request(add_up, SumParams(numbers=[1, 2]), user_id=user_id, force=True)
    assert (forced.outcome, forced.job_id != created.job_id) == (Outcome.CREATED, True)


async def test_every_option_of_a_request_arrives(client: Client, user_id: UUID) -> None:
    """Priority, time, key and windows are sent as given, and come back on the job."""
    await client.register(add_up)
    later = datetime.now(UTC) + timedelta(hours=2)
    asked = await client.request(
        add_up,
        SumParams(numbers=[5]),
        user_id=user_id,
        priority=9,
        scheduled_for=later,
        idempotency_key="key-1",
        dedupe_window=timedelta(0),
        cache_ttl=timedelta(0),
    )
    job = await client.get(asked.job_id)
    assert isinstance(job, Job)
    assert (job.user_id, job.job_type, job.status) == (user_id, "sum", JobStatus.PENDING)
    assert (job.params, job.job_priority, job.idempotency_key) == ({"numbers": [5]}, 9, "key-1")
    assert (job.scheduled_for, job.retry_count, job.result, job.is_over) == (later, 0, None, False)
    assert job.expires_at == later + timedelta(hours=24)

    twin = await client.request(add_up, SumParams(numbers=[5]), user_id=user_id, dedupe_window=timedelta(0))
    assert twin.outcome == Outcome.CREATED
    with pytest.raises(IdempotencyConflict):
        await client.request(add_up, SumParams(numbers=[6]), user_id=user_id, idempotency_key="key-1")


async def test_a_job_is_read_as_it_was_written(client: Client, database: Database, user_id: UUID) -> None:
    """Nothing is lost on the way: progress as reported, numbers of any length, time to the microsecond."""
    await client.register(add_up)
    params = {"numbers": [2**80, -(10**18), 0], "text": "\u00e9\U0001f600"}
    job_id = (await client.request("sum", params, user_id=user_id, dedupe_window=timedelta(0))).job_id
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("SELECT heartbeat_worker('w', p_lease := '1 hour')")
        [(token, created)] = conn.execute("SELECT token, created_at FROM claim_jobs('w', 1)").fetchall()
        held = [[token], [job_id]]
        conn.execute("SELECT lease_jobs('w', %s::bigint[], %s::uuid[], ARRAY[now()])", held)
        for fraction in (0.3, 1 / 3, 0.1234567):
            conn.execute(
                "SELECT report_job_progress('w', %s::bigint[], %s::uuid[], ARRAY[%s::real], ARRAY['on'])",
                [*held, fraction],
            )
            job = await client.get(job_id)
            [listed] = (await client.list(user_id)).items
            assert job.progress == pytest.approx(fraction, rel=1e-7) and job.progress == listed.progress
            assert len(str(job.progress)) <= len("0.33333334"), "a double that is near the real"
    assert (job.params, listed.params, job.created_at) == (params, params, created)


async def test_the_eleventh_live_job_is_refused(client: Client, user_id: UUID) -> None:
    """A user has at most ten live jobs; the limit can be changed, reset and passed by the service."""
    await client.register(add_up)
    for number in range(10):
        await client.request(add_up, SumParams(numbers=[number]), user_id=user_id)
    with pytest.raises(LimitReached) as caught:
        await client.request(add_up, SumParams(numbers=[10]), user_id=user_id)
    assert (caught.value.received, caught.value.sqlstate) == (str(user_id), "SV005")
    await client.request(add_up, SumParams(numbers=[10]), user_id=user_id, enforce_limit=False)
    await client.set_user_limit(user_id, 12)
    await client.request(add_up, SumParams(numbers=[11]), user_id=user_id)
    await client.set_user_limit(user_id, None)
    with pytest.raises(LimitReached):
        await client.request(add_up, SumParams(numbers=[12]), user_id=user_id)


async def test_waiting_returns_the_typed_result(client: Client, database: Database, user_id: UUID) -> None:
    """wait() ends when the job does; its result is of the job type's model where that is known."""
    await client.register(add_up)
    asked = await client.request(add_up, SumParams(numbers=[4, 4]), user_id=user_id)
    seen: list[JobStatus] = []
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look(job: Job) -> None:
        seen.append(job.status)
        loop.call_soon_threadsafe(looked.set)

    waiting = asyncio.create_task(client.wait(asked, timeout=60, on_look=look))
    await asyncio.wait_for(looked.wait(), 30)
    await asyncio.to_thread(hands.complete, database.dsn, {"total": 8})
    done = await waiting
    assert (done.job_id, done.status, done.result) == (asked.job_id, JobStatus.COMPLETED, SumResult(8))
    assert (seen[0], seen[-1]) == (JobStatus.PENDING, JobStatus.COMPLETED)

    assert (await client.wait(asked.job_id)).result == {"total": 8}
    assert (await client.wait(str(asked.job_id), job_type=add_up)).result == SumResult(8)
    assert (await client.result(asked.job_id, job_type=add_up)).result == SumResult(8)
    assert (await client.result(asked.job_id)).result == {"total": 8}


async def test_waiting_for_a_failed_or_cancelled_job_raises(
    client: Client, database: Database, user_id: UUID
) -> None:
    """A job that ended without a result raises JobFailed, which carries the job and its reason."""
    await client.register(add_up)
    asked = await client.request(add_up, SumParams(numbers=[1]), user_id=user_id)
    hands.fail(database.dsn, kind="permanent", message="no such number")
    with pytest.raises(JobFailed, match="no such number") as caught:
        await client.wait(asked, timeout=60)
    assert (caught.value.job.id, caught.value.job.failure_kind) == (asked.job_id, "permanent")
    assert caught.value.received == f"{asked.job_id} (failed, permanent)"
    assert caught.value.fix == "Mend the cause, then request it again"

    asked = await client.request(add_up, SumParams(numbers=[2]), user_id=user_id)
    await client.cancel(asked.job_id, user_id=user_id)
    with pytest.raises(JobFailed) as caught:
        await client.wait(asked)
    assert caught.value.job.status == JobStatus.CANCELLED
    assert (caught.value.received, caught.value.fix) == (f"{asked.job_id} (cancelled)", "Request it again")


async def test_waiting_ends_at_its_timeout(client: Client, database: Database, user_id: UUID) -> None:
    """WaitTimeout leaves the job alone; a failed job that is retried by itself is still waited for."""
    await client.register(add_up)
    asked = await client.request(add_up, SumParams(numbers=[1]), user_id=user_id)
    with pytest.raises(WaitTimeout) as caught:
        await client.wait(asked, timeout=0.05)
    assert caught.value.received == "0.05 s"
    assert (await client.get(asked.job_id)).status == JobStatus.PENDING

    hands.fail(database.dsn, retryable=True, retry_after_seconds=3000)
    job = await client.get(asked.job_id)
    assert (job.status, job.is_over, job.retry_at is not None) == (JobStatus.FAILED, False, True)
    with pytest.raises(WaitTimeout):
        await client.wait(asked, timeout=0)


async def test_lists_are_paged_both_ways(client: Client, user_id: UUID) -> None:
    """Offset pages know the total, cursor pages go on to the end, and other users' jobs are in neither."""
    await client.register(add_up)
    made = [
        (
            await client.request(
                add_up, SumParams(numbers=[n]), user_id=user_id, priority=n, enforce_limit=False
            )
        ).job_id
        for n in range(5)
    ]
    await client.request(add_up, SumParams(numbers=[1]), user_id=uuid4())

    first = await client.list(user_id, limit=2)
    assert ([job.id for job in first.items], first.total_count, first.has_more) == (made[:2:-1], 5, True)
    last = await client.list(user_id, limit=2, offset=4)
    assert ([job.id for job in last.items], last.has_more) == (made[:1], False)
    beyond = await client.list(user_id, limit=2, offset=100)
    assert (beyond.items, beyond.total_count, beyond.has_more) == ([], None, False)
    lowest = await client.list(
        user_id, order_by="job_priority", order_dir="ASC", status="pending", job_type=add_up
    )
    assert [job.job_priority for job in lowest.items] == [0, 1, 2, 3, 4]
    nobody = await client.list(uuid4(), status=JobStatus.PENDING)
    assert (nobody.items, nobody.total_count) == ([], 0)

    page = await client.list_by_cursor(user_id, limit=3)
    assert (len(page.items), page.has_more, page.total_count) == (3, True, None)
    rest = await client.list_by_cursor(user_id, limit=3, cursor=page.next_cursor)
    assert [job.id for job in page.items + rest.items] == made[::-1]
    assert (rest.has_more, rest.next_cursor) == (False, None)

    today = await client.list_by_bucket(user_id, "week", limit=3, job_type=add_up)
    assert (today.total_count, today.total_age, today.has_more) == (5, timedelta(0), True)
    assert today.start is not None and today.end is not None
    assert today.end - today.start == timedelta(days=7)
    others = await client.list_by_bucket(user_id, "week", limit=3, job_type=add_up, cursor=today.next_cursor)
    assert [job.id for job in today.items + others.items] == made[::-1]
    empty = await client.list_by_bucket(user_id, "month", 900)
    assert (empty.items, empty.total_count, empty.has_more, empty.next_cursor) == ([], 0, False, None)
    assert [job.id async for job in client.iter_jobs(user_id, page_size=2)] == made[::-1]
    assert [job.id async for job in client.iter_jobs(user_id, status="failed")] == []


async def test_jobs_and_lines_are_searched(client: Client, database: Database, user_id: UUID) -> None:
    """By what params and results contain; by words, level, time and metadata; across users unless one is named."""
    await client.register(add_up)
    asked = [
        await client.request(add_up, SumParams(numbers=[n, 7]), user_id=owner)
        for n, owner in ((1, user_id), (2, uuid4()))
    ]
    found = await client.search(params={"numbers": [7]})
    assert [job.id for job in found.items] == [asked[1].job_id, asked[0].job_id]
    mine = await client.search(params={"numbers": [7]}, user_id=user_id, status="pending", job_type=add_up)
    assert ([job.id for job in mine.items], mine.has_more) == ([asked[0].job_id], False)
    claimed = hands.claim(database.dsn)
    for one in claimed:
        hands.log(database.dsn, [one], ("info", "adding numbers"), ("error", "one number is missing"))
    third = await client.request(add_up, SumParams(numbers=[8]), user_id=user_id)
    hands.complete(database.dsn, {"total": 8, "ok": True})
    assert [job.id for job in (await client.search(result={"total": 8})).items] == [third.job_id]
    lines = await client.search_logs("number -adding", level="error", limit=1)
    assert [line.snippet for line in lines.items] == ["one **number** is missing"]
    more = await client.search_logs("number -adding", level="error", limit=1, cursor=lines.next_cursor)
    assert {line.user_id for line in lines.items + more.items} == {job.user_id for job in found.items}
    now = datetime.now(UTC)
    own = await client.search_logs(
        user_id=user_id, since=now - timedelta(hours=1), until=now + timedelta(hours=1)
    )
    assert [line.message for line in own.items] == ["one number is missing", "adding numbers"]
    assert (await client.search_logs(job_id=asked[0].job_id, metadata={"a": 1})).items == []
    for arguments, field in (({"params": {}}, "params"), ({"params": [1]}, "params"), ({}, "params")):
        with pytest.raises(InvalidArgument) as caught:
            await client.search(**arguments)
        assert (caught.value.field, bool(caught.value.fix)) == (field, True)
    with pytest.raises(InvalidArgument) as caught:
        await client.search_logs("the")
    assert caught.value.field == "search"


async def test_logs_are_paged(client: Client, database: Database, user_id: UUID) -> None:
    """A job's log comes newest first, filtered by level, page by page."""
    await client.register(add_up)
    asked = await client.request(add_up, SumParams(numbers=[1]), user_id=user_id)
    lines = [("info", "one"), ("warning", "two"), ("info", "three")]
    hands.log(database.dsn, hands.claim(database.dsn), *lines)
    page = await client.logs(asked.job_id, limit=2)
    assert [(line.log_level, line.message) for line in page.items] == lines[:0:-1]
    assert (page.has_more, page.items[0].job_id, page.items[0].user_id) == (True, asked.job_id, user_id)
    rest = await client.logs(asked.job_id, limit=2, cursor=page.next_cursor)
    assert [line.message for line in rest.items] == ["one"]
    assert [line.message async for line in client.iter_logs(asked.job_id, page_size=1)] == [
        "three",
        "two",
        "one",
    ]
    assert [line.message async for line in client.iter_logs(asked.job_id, level="warning")] == ["two"]
    assert (await client.logs(asked.job_id, user_id=uuid4())).items == []


async def test_cancel_and_retry_say_what_became_of_each_job(
    client: Client, database: Database, user_id: UUID
) -> None:
    """Each id gets an outcome; another user's job is not found and stays as it is."""
    await client.register(add_up)
    live = await client.request(add_up, SumParams(numbers=[1]), user_id=user_id)
    other = await client.request(add_up, SumParams(numbers=[1]), user_id=uuid4())
    changes = await client.cancel([live.job_id, str(other.job_id)], user_id=user_id)
    assert [(change.job_id, change.outcome, change.status) for change in changes] == [
        (live.job_id, "cancelled", JobStatus.CANCELLED),
        (other.job_id, "not_found", None),
    ]
    assert (await client.get(other.job_id)).status == JobStatus.PENDING
    assert (await client.cancel(live.job_id, user_id=user_id))[0].outcome == "unchanged"

    hands.fail(database.dsn, retryable=True, retry_after_seconds=3000)
    [change] = await client.retry(other.job_id, user_id=(await client.get(other.job_id)).user_id)
    assert (change.outcome, change.status) == ("retried", JobStatus.PENDING)
    [change] = await client.retry(live.job_id, user_id=user_id)
    assert (change.outcome, change.status) == ("not_failed", JobStatus.CANCELLED)


async def test_another_users_job_is_not_there(client: Client, user_id: UUID) -> None:
    """With a user_id, only that user's jobs are found; the error does not tell missing from foreign."""
    await client.register(add_up)
    asked = await client.request(add_up, SumParams(numbers=[1]), user_id=user_id)
    assert (await client.get(asked.job_id, user_id=user_id)).id == asked.job_id
    for job_id, owner in [(asked.job_id, uuid4()), (uuid4(), user_id), (uuid4(), None)]:
        with pytest.raises(JobNotFound) as caught:
            await client.get(job_id, user_id=owner)
        assert caught.value.received == str(job_id)
        with pytest.raises(JobNotFound):
            await client.result(job_id, user_id=owner)
        with pytest.raises(JobNotFound):
            await client.wait(job_id, user_id=owner, timeout=60)


async def test_stats_count_everything(client: Client, database: Database, user_id: UUID) -> None:
    """The numbers are those of the jobs that are there."""
    await client.register(add_up)
    for number in range(3):
        await client.request(add_up, SumParams(numbers=[number]), user_id=user_id)
    hands.complete(database.dsn, {"total": 1}, limit=1)
    hands.fail(database.dsn, limit=1)
    stats = await client.stats()
    assert (stats.total_jobs, stats.pending_jobs, stats.completed_jobs, stats.failed_jobs) == (3, 1, 1, 1)
    assert (stats.error_rate, stats.processing_jobs, stats.cancelled_jobs) == (0.5, 0, 0)
    assert stats.jobs_by_type == {"sum": {"pending": 1, "completed": 1, "failed": 1}}
    assert stats.avg_processing_seconds is not None and stats.avg_wait_seconds is not None


async def test_params_are_validated_before_they_are_sent(client: Client, user_id: UUID) -> None:
    """A job type's params are refused by name here, whether or not the database knows the type."""
    with pytest.raises(InvalidArgument) as caught:
        await client.request(add_up, {"numbers": [1, "two"]}, user_id=user_id)
    assert (caught.value.field, caught.value.received) == ("params.numbers[1]", "'two'")


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"limit": 0}, "limit", "limit is out of range. Received: 0. Ask for 1 to 1000 rows a page."),
        (
            {"offset": 1001},
            "offset",
            "Received: 1001. Use list_by_cursor, which costs the same at any depth.",
        ),
        ({"status": "done"}, "status", "status is unknown. Received: done. Use pending,"),
        ({"order_by": "params"}, "order_by", "order_by is unknown. Received: params."),
    ],
)
async def test_errors_of_sql_speak_python(
    client: Client, user_id: UUID, options: dict[str, Any], field: str, words: str
) -> None:
    """The field is the method's parameter, the fix a call of Python; NULL and p_ are SQL's alone."""
    with pytest.raises(StreamVibeError) as caught:
        await client.list(user_id, **options)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert not re.search(r"\bp_|NULL|SELECT|get_user_jobs", str(caught.value))


async def test_a_name_cannot_be_registered(client: Client) -> None:
    """What is no job type is refused by its place, before anything is registered."""
    with pytest.raises(InvalidArgument, match="not a job type") as caught:
        await client.register(add_up, "greet")  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.received) == ("job_types[1]", "'greet'")
    assert "@job_type" in (caught.value.fix or "")


async def test_a_log_level_is_called_level(client: Client, user_id: UUID) -> None:
    """SQL's p_log_level is the method's level."""
    with pytest.raises(InvalidArgument) as caught:
        await client.logs(user_id, level="loud")
    assert (caught.value.field, caught.value.received) == ("level", "loud")
    assert (caught.value.fix or "").endswith("or None for all")


async def test_workers_are_told(client: Client, database: Database) -> None:
    """Which there are, what they take, and whether they live."""
    hands.claim(database.dsn)
    [found] = await client.workers()
    assert (found.is_alive, found.claimed_jobs, found.takes("anything")) == (True, 0, True)
    assert not replace(found, is_alive=False).takes("anything")
    assert not replace(found, job_types=["other"]).takes("anything")
    assert replace(found, job_types=["other"]).takes("other")
