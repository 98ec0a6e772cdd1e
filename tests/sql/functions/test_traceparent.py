"""The trace context that goes with a job: kept, claimed, told to who joins, and never a reason to refuse a job."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00"
BAD = [
    "",
    "what",
    GOOD.upper(),
    GOOD[:-1],
    GOOD + "-more",  # of version 00 that is too long
    GOOD + "0",
    GOOD.replace("00-", "ff-", 1),
    f"00-{'0' * 32}-00f067aa0ba902b7-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"01-{TRACE}-00f067aa0ba902b7-010",
    f" {GOOD}",
    f"{GOOD}\n",
    GOOD * 1000,
    "01-" + "a" * 100_000,
    "'; DROP TABLE job_queue; --",
]


def stored(conn: Connection[Any], job_id: UUID) -> str | None:
    """What is kept with the job."""
    found: str | None = kit.stored(conn, job_id)["traceparent"]
    return found


def create(conn: Connection[Any], how: str, traceparent: str | None) -> UUID:
    """A new job, made in one of the ways there are."""
    user_id, given = uuid4(), {} if traceparent is None else {"p_traceparent": traceparent}
    one = {"user_id": str(user_id), "job_type": "email"}
    match how:
        case "request_job":
            row = kit.request(conn, user_id, **given)
        case "request_jobs":
            asked = [one if traceparent is None else {**one, "traceparent": traceparent}]
            row = kit.call_one(conn, "request_jobs", p_requests=Jsonb(asked))
            assert row["outcome"] == "created", row
        case "find_or_create_job":
            row = kit.call_one(conn, how, p_user_id=user_id, p_job_type="email", **given)
        case "create_jobs":
            row = kit.call_one(conn, how, p_jobs=Jsonb([one]), **given)
        case _:
            row = kit.call_one(conn, "create_jobs", p_jobs=Jsonb([one]), p_dedupe=True, **given)
    job_id: UUID = row["job_id"]
    return job_id


WAYS = ["request_job", "request_jobs", "find_or_create_job", "create_jobs", "create_jobs, dedupe"]


@pytest.mark.parametrize("how", WAYS)
def test_it_is_claimed_with_the_job(queue: Queue, how: str) -> None:
    """Also after a failed attempt; of a job without one there is none."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    traced, plain = create(conn, how, GOOD), create(conn, how, None)
    assert (stored(conn, traced), stored(conn, plain)) == (GOOD, None)
    for _ in range(2):
        jobs = kit.claim(conn, limit=2)
        assert {job["job_id"]: job["traceparent"] for job in jobs} == {traced: GOOD, plain: None}
        kit.fail(conn, jobs, failure={**kit.ERROR, "retry_after_seconds": 0})


@pytest.mark.parametrize("how", WAYS)
def test_one_that_cannot_be_read_is_passed_over(queue: Queue, how: str) -> None:
    """The job is made as if there were none: a tracing header never loses a job."""
    kit.register(queue.conn)
    for bad in BAD:
        assert stored(queue.conn, create(queue.conn, how, bad)) is None, bad[:80]


def test_of_a_later_version_what_is_known_counts(queue: Queue) -> None:
    """As the standard says, whatever comes behind the flags."""
    kit.register(queue.conn)
    for more in ("", "-what-the-future-holds"):
        later = f"cc-{TRACE}-00f067aa0ba902b7-01"
        assert stored(queue.conn, create(queue.conn, "request_job", later + more)) == later


def test_who_joins_learns_it(queue: Queue) -> None:
    """A traced request that finds a job, live or completed, is told that job's; the job keeps its own."""
    conn, user_id = queue.conn, uuid4()
    kit.register(conn)
    kit.worker(conn)

    def ask(**arguments: Any) -> kit.Row:
        return kit.request(conn, user_id, p_params={}, **arguments)

    first = ask(p_traceparent=GOOD)
    assert (first["outcome"], first["traceparent"]) == ("created", None)
    joined = ask(p_traceparent=OTHER)
    assert (joined["outcome"], joined["traceparent"]) == ("joined", GOOD)
    # Who does not trace is not told: it would be a look for nothing.
    assert ask()["traceparent"] is None
    kit.complete(conn, kit.claim(conn))
    assert stored(conn, first["job_id"]) == GOOD
    again = [{"user_id": str(user_id), "job_type": "email", "params": {}, "traceparent": OTHER}]
    cached = kit.call_one(conn, "request_jobs", p_requests=Jsonb(again))
    assert (cached["outcome"], cached["traceparent"]) == ("cached", GOOD)


def test_a_job_without_one_is_stored_as_before(queue: Queue) -> None:
    """Its row is no larger for the column, which is the last: the bitmap of NULLs had a bit left."""
    kit.register(queue.conn)
    job_id = kit.job_id(queue.conn)
    columns = (
        "SELECT attname, attnum FROM pg_attribute WHERE attrelid = 'public.job_queue'::regclass AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum"
    )
    names = [row["attname"] for row in kit.query(queue.conn, columns)]
    before = ", ".join(f"q.{name}" for name in names if name != "traceparent")
    size = (
        f"SELECT pg_column_size(q.*) - pg_column_size(ROW({before})) AS more FROM job_queue q WHERE id = %s"
    )
    assert kit.value(queue.conn, size, job_id) == 0
