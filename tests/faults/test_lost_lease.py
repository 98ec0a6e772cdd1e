"""A worker that stops breathing, is given up, and comes back."""

import signal
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb
from tests.faults.processes import WorkerProcess, closing, read_journal
from tests.faults.worker_process import Journal, job_types
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe.db.registration import registration


def _request(conn: Connection[TupleRow], name: str, seconds: float) -> UUID:
    row = conn.execute(
        "SELECT job_id FROM request_job(p_user_id := %s, p_job_type := %s, p_params := %s)",
        [uuid4(), name, Jsonb({"seconds": seconds})],
    ).fetchone()
    assert row is not None
    job_id: UUID = row[0]
    return job_id


def _state(conn: Connection[TupleRow], job_ids: list[UUID]) -> list[TupleRow]:
    return conn.execute(
        "SELECT q.id, q.status, q.claim_token, q.result, q.xmin::text"
        " FROM job_queue q JOIN unnest(%s::uuid[]) r(id) ON r.id = q.id ORDER BY q.id",
        [job_ids],
    ).fetchall()


def _are(conn: Connection[TupleRow], job_ids: list[UUID], status: str) -> Callable[[], bool]:
    return lambda: {row[1] for row in _state(conn, job_ids)} == {status}


def test_a_worker_that_lost_its_lease_is_told_refused_and_goes_on(
    database18: Database, tmp_path: Path
) -> None:
    """Stopped (SIGSTOP) past its lease its jobs run elsewhere; continued, its handlers are told, its ends refused."""
    journal = tmp_path / "journal"
    conn = database18.connect()
    for job_type in job_types(Journal(str(journal))):
        conn.execute(*registration(job_type))
    jobs = [_request(conn, kind, 3600.0) for kind in ("nap", "thread")]
    # An hour between two looks: what it does after its return it is woken for.
    first = WorkerProcess(database18.dsn, journal, lease=0.5, poll=3600)
    second = WorkerProcess(database18.dsn, journal, lease=10)
    with closing(first, second):
        first.go()
        wait_until(_are(conn, jobs, "processing"), "the first worker runs both")
        first.signal(signal.SIGSTOP)
        recovered = wait_until(
            lambda: conn.execute("SELECT job_id, outcome FROM recover_stuck_jobs()").fetchall(),
            "its jobs are taken back",
        )
        assert sorted(recovered) == sorted((job_id, "isolated") for job_id in jobs)
        conn.execute("UPDATE job_queue SET params = %s", [Jsonb({"seconds": 0})])
        second.go()
        wait_until(_are(conn, jobs, "completed"), "the second worker completes both")
        second.close()
        before = _state(conn, jobs)

        first.signal(signal.SIGCONT)
        told = wait_until(
            lambda: (
                (found := [line for line in read_journal(journal) if line.event == "told"])
                and len(found) == 2
                and found
            ),
            "both handlers are told",
        )
        assert isinstance(told, list)
        assert {(line.job_id, line.pid) for line in told} == {(job_id, first.pid) for job_id in jobs}
        starts = [line for line in read_journal(journal) if line.event == "start"]
        for job_id, status, token, result, _ in before:
            own = [line for line in starts if line.job_id == job_id]
            assert [line.pid for line in own] == [first.pid, second.pid]
            assert (status, token, result) == ("completed", own[-1].token, {"token": own[-1].token})

        following = _request(conn, "noop", 0)
        wait_until(_are(conn, [following], "completed"), "the first worker goes on")
        assert _state(conn, jobs) == before
        assert conn.execute("SELECT count(*) FROM streamvibe.claim").fetchall() == [(0,)]
        first.signal(signal.SIGTERM)
        assert first.wait() == 0


def test_a_worker_told_to_end_hands_back_and_ends_well(database18: Database, tmp_path: Path) -> None:
    """SIGTERM with jobs running: exit status 0, the jobs pending without an attempt counted, no claim left."""
    journal = tmp_path / "journal"
    conn = database18.connect()
    for job_type in job_types(Journal(str(journal))):
        conn.execute(*registration(job_type))
    jobs = [_request(conn, kind, 3600.0) for kind in ("nap", "thread", "chatty")]
    worker = WorkerProcess(database18.dsn, journal)
    with closing(worker):
        worker.go()
        wait_until(_are(conn, jobs, "processing"), "the worker runs them")
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert worker.errors() == ""
    rows = conn.execute("SELECT status, retry_count, worker_id FROM job_queue").fetchall()
    assert rows == [("pending", 0, None)] * 3
    assert conn.execute("SELECT count(*) FROM streamvibe.claim").fetchall() == [(0,)]
