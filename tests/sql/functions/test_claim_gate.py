"""Claims of many jobs go one after the other, but wait for nobody for long."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.waiting import DEADLINE_SECONDS, wait_until

from streamvibe.db.migrate_files import SQL_ROOT

MANY = 200
USER = UUID("018f4e2a-7c31-7b0e-9d51-3f5d1c2b6a90")
GATE = SQL_ROOT / "functions/internal/enter_claim_gate.sql"

Two = tuple[Connection[Any], Connection[Any]]


@pytest.fixture
def two(queue: Queue) -> Iterator[Two]:
    """Two sessions, the first in a transaction that stays open, beside 600 jobs and a worker for each."""
    kit.register(queue.conn)
    for name in ("w1", "w2"):
        kit.worker(queue.conn, name)
    jobs = [{"user_id": str(USER), "job_type": "email", "params": {"n": n}} for n in range(3 * MANY)]
    kit.call(queue.conn, "create_jobs", p_jobs=Jsonb(jobs))
    with queue.database.as_service(autocommit=False) as first, queue.database.as_service() as second:
        second.execute("SET statement_timeout = '30s'")
        yield first, second


@contextmanager
def endless(queue: Queue) -> Iterator[None]:
    """Whoever waits at the gate waits for as long as it takes."""
    queue.conn.execute("ALTER FUNCTION streamvibe.enter_claim_gate() SET lock_timeout = 0")
    try:
        yield
    finally:
        queue.conn.execute(GATE.read_bytes())


def ids(jobs: list[kit.Row]) -> set[UUID]:
    """Which jobs these are."""
    return {job["job_id"] for job in jobs}


def test_one_after_the_other(queue: Queue, two: Two) -> None:
    """A claim of 200 waits while another is under way, and takes what comes after it once that has committed."""
    first, second = two
    waits = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = %s"
        " AND relation = 'streamvibe.claim_gate'::regclass)"
    )
    with endless(queue), ThreadPoolExecutor(1) as thread:
        before = kit.claim(first, "w1", MANY)
        answer = thread.submit(kit.claim, second, "w2", MANY)
        wait_until(lambda: kit.value(queue.conn, waits, second.info.backend_pid), "the second claim waits")
        first.commit()
        after = answer.result(DEADLINE_SECONDS)
    assert len(before) == len(after) == MANY
    assert not ids(before) & ids(after)


def test_nobody_waits_for_long(two: Two) -> None:
    """Beside a claim whose transaction stays open another goes on without the gate, after a moment."""
    first, second = two
    before, after = kit.claim(first, "w1", MANY), kit.claim(second, "w2", MANY)
    assert len(after) == MANY
    assert not ids(before) & ids(after)


def test_who_waited_in_vain_does_not_wait_again_at_once(queue: Queue, two: Two) -> None:
    """The claims that follow do not ask for the gate."""
    first, second = two
    kit.claim(first, "w1", MANY)
    kit.claim(second, "w2", MANY)
    noted = kit.value(second, "SELECT current_setting('streamvibe.claim_gate_after')::timestamptz - now()")
    assert noted.total_seconds() <= 1
    # As if it were just now: a machine may be slow.
    second.execute("SELECT set_config('streamvibe.claim_gate_after', (now() + '1 hour')::text, false)")
    with endless(queue):
        assert len(kit.claim(second, "w2", MANY)) == MANY


def test_few_jobs_wait_for_nobody(queue: Queue, two: Two) -> None:
    """Claims of fewer jobs pass by, whoever has the gate."""
    first, second = two
    kit.claim(first, "w1", MANY)
    with endless(queue):
        assert len(kit.claim(second, "w2", MANY - 1)) == MANY - 1
