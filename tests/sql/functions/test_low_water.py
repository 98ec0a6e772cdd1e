"""What claims read while a forgotten transaction keeps the finished jobs' rows from being removed."""

import contextlib
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue

JOBS = 30_000
BATCH = 500
FILL = """
SELECT count(*) FROM create_jobs((
    SELECT jsonb_agg(jsonb_build_object('user_id', gen_random_uuid(), 'job_type', 'email'))
    FROM generate_series(1, 10000)))
"""


@contextlib.contextmanager
def pinned(queue: Queue) -> Iterator[None]:
    """30,000 jobs, of which 25,000 were finished since another session's transaction began, which goes on."""
    kit.register(queue.conn)
    kit.worker(queue.conn, p_lease="1 hour")
    for _ in range(JOBS // 10_000):
        queue.conn.execute(FILL)
    other = queue.database.connect()
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT pg_current_xact_id()")
    for _ in range(25_000 // BATCH):
        assert kit.complete(queue.conn, kit.claim(queue.conn, limit=BATCH)) == []
    yield
    other.execute("ROLLBACK")


def forget_looks(queue: Queue) -> None:
    """The next look begins at the start, however long the last ones took."""
    queue.conn.execute("SELECT set_config('streamvibe.low_water', '', false)")


def note_a_long_look(queue: Queue) -> None:
    """As if the last look had taken a tenth of a second longer than its rows explain."""
    last = kit.value(
        queue.conn,
        "SELECT max(streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)) "
        "FROM job_queue q JOIN (SELECT unnest(job_ids) AS id FROM streamvibe.claim) c USING (id)",
    )
    forget_looks(queue)
    queue.conn.execute(
        "SELECT streamvibe.note_low_water(w, ARRAY['email'], clock_timestamp() - interval '0.1 s', "
        "streamvibe.now(), 500, %s) FROM streamvibe.low_water(ARRAY['email'], clock_timestamp()) w",
        [last],
    )


def claim_buffers(queue: Queue) -> int:
    """What claiming a batch reads."""
    [row] = kit.query(
        queue.conn,
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT * FROM claim_jobs('w1', 500, ARRAY['email'])",
    )
    plan = row["QUERY PLAN"][0]["Plan"]
    assert plan["Actual Rows"] == BATCH
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_finished_jobs_are_not_walked_over_again(queue: Queue) -> None:
    """Once a look took long beyond its rows, the next ones do not read the 25,000 finished jobs before its end."""
    with pinned(queue):
        forget_looks(queue)
        full = claim_buffers(queue)
        note_a_long_look(queue)
        assert claim_buffers(queue) < full - 500


def test_what_came_before_is_found_again(queue: Queue) -> None:
    """A job handed back, which stands before what was seen, and one of top priority do not wait for the backlog."""
    with pinned(queue):
        jobs = kit.claim(queue.conn, limit=BATCH)
        note_a_long_look(queue)
        kit.release(queue.conn, jobs[:1])
        urgent = kit.job_id(queue.conn, p_priority=9)
        assert kit.claim(queue.conn, limit=1)[0]["job_id"] == urgent
        until = time.monotonic() + 5
        while jobs[0]["job_id"] not in {job["job_id"] for job in kit.claim(queue.conn, limit=1)}:
            assert time.monotonic() < until, "the job handed back is not found"


@pytest.mark.parametrize("priority", [0, 5, 8, 9])
def test_new_jobs_are_seen_at_once(queue: Queue, priority: int) -> None:
    """Under a mark behind a backlog the next claim takes a new user's job of the same or a higher priority."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    heavy = str(uuid4())
    jobs = [
        {"user_id": heavy, "job_type": "email", "params": {"n": n}, "priority": priority} for n in range(100)
    ]
    kit.call(queue.conn, "create_jobs", p_jobs=Jsonb(jobs))
    kit.claim(queue.conn, limit=50)
    note_a_long_look(queue)
    new = kit.job_id(queue.conn, p_priority=priority)
    assert kit.claim(queue.conn, limit=10)[0]["job_id"] == new


def test_nothing_is_said_to_be_empty_under_a_mark(queue: Queue) -> None:
    """Where a look from the mark finds too little, the same claim looks at all, also at what was handed back."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    made = [kit.job_id(queue.conn) for _ in range(20)]
    # Long enough ago not to be looked for as what came since.
    queue.conn.execute(
        "UPDATE job_queue SET created_at = created_at - interval '1 hour', "
        "scheduled_for = scheduled_for - interval '1 hour'"
    )
    jobs = kit.claim(queue.conn, limit=20)
    note_a_long_look(queue)
    kit.release(queue.conn, jobs[:3])
    assert {job["job_id"] for job in kit.claim(queue.conn, limit=10)} == set(made[:3])


def test_what_other_workers_hold_is_not_walked_over(queue: Queue) -> None:
    """Beside workers that hold 4,000 jobs, a session whose looks take long begins where the last claim ended."""
    kit.register(queue.conn)
    kit.worker(queue.conn, p_lease="1 hour")
    kit.worker(queue.conn, "w2", p_lease="1 hour")
    queue.conn.execute(FILL)
    kit.claim(queue.conn, limit=BATCH)
    other = queue.database.connect()
    for _ in range(7):
        kit.claim(other, "w2", limit=BATCH)
    forget_looks(queue)
    full = claim_buffers(queue)
    # The first claim is as far as this session saw; what it is told by the last one counts.
    note_a_long_look(queue)
    queue.conn.execute(
        "UPDATE streamvibe.claim SET low_water = current_setting('streamvibe.low_water') "
        "WHERE token = (SELECT max(token) FROM streamvibe.claim)"
    )
    queue.conn.execute(
        "SELECT set_config('streamvibe.low_water', "
        "regexp_replace(current_setting('streamvibe.low_water'), '[0-9]+$', '0'), false)"
    )
    assert claim_buffers(queue) < full - 100
    [row] = kit.query(queue.conn, "SELECT low_water FROM streamvibe.claim ORDER BY token DESC LIMIT 1")
    assert row["low_water"], "the next claim is not told"
