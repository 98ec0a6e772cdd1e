"""Which claims there are: what a session remembers of them is exact, and spares it the rows of ended ones."""

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue

DEAD = 20_000
# Every one in a transaction of its own, as claims are.
END_CLAIMS = """
DO $$
BEGIN
    FOR n IN 1..%s LOOP
        INSERT INTO streamvibe.claim (worker_id, claimed_at, job_ids) VALUES ('w1', now(), ARRAY[gen_random_uuid()]);
        DELETE FROM streamvibe.claim c WHERE c.token = currval('streamvibe.claim_token_seq');
        COMMIT;
    END LOOP;
END
$$
"""
USER = uuid4()


def ready(queue: Queue) -> None:
    """Type `email` and worker `w1`."""
    kit.register(queue.conn)
    kit.worker(queue.conn, p_lease="1 hour")


@contextlib.contextmanager
def pinned(queue: Queue) -> Iterator[None]:
    """Another session's transaction goes on and keeps what ends from being removed."""
    with contextlib.closing(queue.database.connect()) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT pg_current_xact_id()")
        yield


def pass_transactions(conn: Connection[Any], count: int = 300) -> None:
    """So many that what a session remembers is brought up to date at its next look."""
    conn.execute((END_CLAIMS % count).encode())


def buffers(conn: Connection[Any], statement: str, *values: Any) -> int:
    """What a statement reads."""
    [row] = kit.query(conn, f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", *values)
    plan = row["QUERY PLAN"][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def costs(queue: Queue) -> dict[str, int]:
    """What claiming a job reads, reading it, listing a user's jobs, handing the job back and completing it."""
    found = {"claim_jobs": buffers(queue.conn, "SELECT * FROM claim_jobs('w1', 1)")}
    [job] = kit.query(queue.conn, "SELECT token, job_ids FROM streamvibe.claim ORDER BY token DESC LIMIT 1")
    held = [job["token"]], job["job_ids"]
    found["get_job"] = buffers(queue.conn, "SELECT * FROM get_job(%s)", job["job_ids"][0])
    found["get_user_jobs"] = buffers(queue.conn, "SELECT * FROM get_user_jobs(%s)", USER)
    for function, more in (
        ("report_job_progress", "'{0.5}', '{half}'"),
        ("complete_jobs", "'{null}'::jsonb[]"),
    ):
        statement = f"SELECT * FROM {function}('w1', %s::bigint[], %s::uuid[], {more})"
        found[function] = buffers(queue.conn, statement, *held)
    return found


def test_ended_claims_are_not_read(queue: Queue) -> None:
    """Claiming, reading and ending jobs read no ended claim, while a transaction keeps 20,000 of them and a live one
    stands before them.
    """
    ready(queue)
    for _ in range(19):
        kit.job_id(queue.conn, USER, p_enforce_limit=False)
    oldest = kit.claim(queue.conn)
    for _ in range(8):
        before = costs(queue)
    with pinned(queue):
        pass_transactions(queue.conn, DEAD)
        costs(queue)  # The first look is a full one.
        for _ in range(8):
            after = costs(queue)
        assert {name: cost for name, cost in after.items() if cost > before[name] + 100} == {}, before
        assert kit.complete(queue.conn, oldest) == []


def test_a_claim_that_is_committed_late_is_seen(queue: Queue) -> None:
    """A claim made long ago in a transaction that ends now is respected by sessions that looked in between."""
    ready(queue)
    job_id = kit.job_id(queue.conn)
    with contextlib.closing(queue.database.as_service(autocommit=False)) as late:
        assert [job["job_id"] for job in kit.claim(late)] == [job_id]
        for _ in range(3):
            pass_transactions(queue.conn)
            assert kit.claim(queue.conn) == []
            assert kit.status(queue.conn, job_id) == "pending"
        late.commit()
    assert kit.status(queue.conn, job_id) == "processing"
    assert kit.claim(queue.conn) == []


@pytest.mark.parametrize("writes_first", [False, True])
def test_a_claim_of_the_own_transaction_is_seen(queue: Queue, writes_first: bool) -> None:
    """In the transaction that made it, whether that had written before the session looked or not."""
    ready(queue)
    jobs = [kit.job_id(queue.conn) for _ in range(2)]
    with contextlib.closing(queue.database.as_service(autocommit=False)) as conn:
        if writes_first:
            kit.job_id(conn, p_priority=0)
        pass_transactions(queue.conn)
        assert kit.status(conn, jobs[0]) == "pending"
        assert [job["job_id"] for job in kit.claim(conn)] == jobs[:1]
        assert [job["job_id"] for job in kit.claim(conn)] == jobs[1:]
        assert [kit.status(conn, job_id) for job_id in jobs] == ["processing"] * 2


def test_a_claim_of_a_savepoint_is_seen(queue: Queue) -> None:
    """A claim belongs to the whole transaction, also when only a part of it made it."""
    ready(queue)
    job_id = kit.job_id(queue.conn)
    with contextlib.closing(queue.database.as_service(autocommit=False)) as late:
        with late.transaction():
            assert len(kit.claim(late)) == 1
        pass_transactions(queue.conn)
        assert kit.claim(queue.conn) == []
        late.commit()
    assert kit.claim(queue.conn) == []
    assert kit.status(queue.conn, job_id) == "processing"


def test_an_old_claim_is_still_seen(queue: Queue) -> None:
    """A claim that lives while thousands come and go holds its jobs, and gives them back."""
    ready(queue)
    job_id = kit.job_id(queue.conn)
    pass_transactions(queue.conn)
    assert (
        kit.status(queue.conn, job_id) == "pending"
    )  # What the session remembers now does not know the next claim.
    jobs = kit.claim(queue.conn)
    for _ in range(4):
        pass_transactions(queue.conn, 1000)
        assert kit.claim(queue.conn) == []
        assert kit.status(queue.conn, job_id) == "processing"
    kit.release(queue.conn, jobs)
    assert [job["job_id"] for job in kit.claim(queue.conn)] == [job_id]


def test_what_a_session_remembers_is_taken_back_with_its_transaction(queue: Queue) -> None:
    """A rolled back transaction leaves the session with what it knew before, which still holds."""
    ready(queue)
    jobs = [kit.job_id(queue.conn) for _ in range(2)]
    kit.claim(queue.conn)
    with contextlib.closing(queue.database.as_service(autocommit=False)) as conn:
        for end in (conn.rollback, conn.commit):
            pass_transactions(queue.conn)
            assert [kit.status(conn, job_id) for job_id in jobs] == ["processing", "pending"]
            end()
        assert [job["job_id"] for job in kit.claim(conn)] == jobs[1:]
