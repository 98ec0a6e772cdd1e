"""kill -9 of PostgreSQL itself in the middle of a queue: the worker waits, and nothing is lost or done twice."""

from collections import Counter
from pathlib import Path
from uuid import uuid4

from psycopg.types.json import Jsonb
from tests.faults.processes import WorkerProcess, closing, read_journal
from tests.faults.worker_process import Journal, job_types
from tests.support.databases import TEMPLATE, make_template, new_database
from tests.support.servers import pg18_bin, running
from tests.support.waiting import wait_until

from streamvibe.db.registration import registration

JOBS = 150


def test_the_database_is_killed_three_times(tmp_path: Path) -> None:
    """After three crashes of the server every job has completed, and each handler started exactly once."""
    journal = tmp_path / "journal"
    kinds = ["noop", "nap", "chatty", "thread"]
    with running("crash", pg18_bin()) as server:
        make_template(server)
        with new_database(server, TEMPLATE) as database:
            with database.connect() as conn:
                for job_type in job_types(Journal(str(journal))):
                    conn.execute(*registration(job_type))
                wanted = [
                    {
                        "user_id": str(uuid4()),
                        "job_type": kinds[n % 4],
                        "params": {"n": n, "seconds": 0.05 + n % 4 / 10},
                    }
                    for n in range(JOBS)
                ]
                conn.execute("SELECT count(*) FROM create_jobs(%s)", [Jsonb(wanted)])
            worker = WorkerProcess(database.dsn, journal, lease=10, concurrency=8)
            with closing(worker):
                worker.go()
                for share in (20, 60, 100):
                    wait_until(
                        lambda: len(read_journal(journal)) >= share,  # noqa: B023
                        f"{share} jobs have started",
                    )
                    database.close()
                    server.crash()
                    server.restart()
                with database.connect() as conn:
                    wait_until(
                        lambda: (
                            conn.execute(
                                "SELECT count(*) FROM job_queue WHERE status = 'completed'"
                            ).fetchall()
                            == [(JOBS,)]
                        ),
                        "all jobs complete",
                    )
                    assert conn.execute("SELECT count(*) FROM streamvibe.claim").fetchall() == [(0,)]
                    assert conn.execute("SELECT max(retry_count) FROM job_queue").fetchall() == [(0,)]
                assert not worker.is_dead
    starts = Counter(line.job_id for line in read_journal(journal))
    assert len(starts) == JOBS
    assert set(starts.values()) == {1}
