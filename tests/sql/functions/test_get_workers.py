"""get_workers: who takes which jobs, and whether it is alive."""

from tests.sql import kit
from tests.sql.conftest import Queue


def test_workers(clocked: Queue) -> None:
    """A row per worker, with its types, what it holds, and whether its lease still runs."""
    conn = clocked.conn
    kit.register(conn)
    kit.worker(conn, "all")
    clocked.advance(kit.MINUTE)
    kit.worker(conn, "some", p_job_types=["email", "sms"])
    jobs = [kit.job_id(conn) for _ in range(3)]
    assert len(kit.claim(conn, "some", limit=3)) == len(jobs)
    rows = kit.call(clocked.service, "get_workers")
    assert [(r["worker_id"], r["job_types"], r["is_alive"], r["claimed_jobs"]) for r in rows] == [
        ("all", None, False, 0),
        ("some", ["email", "sms"], True, 3),
    ]
    assert rows[1]["started_at"] - rows[0]["started_at"] >= kit.MINUTE
