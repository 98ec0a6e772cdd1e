"""kill -9 of workers at every point of a transaction: each job's effect is there exactly once, and so is its end."""

import random
import signal
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.faults.processes import WorkerProcess, closing
from tests.faults.transactional_process import CRASH_ATTEMPTS, KILL, POINTS, STOP, Fuse, job_types
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server
from tests.support.waiting import wait_until

from streamvibe.db.registration import registration

SCRIPT = Path(__file__).with_name("transactional_process.py")
SETUP = """
CREATE TABLE public.effect (job_id uuid, token bigint, pid integer);
CREATE TABLE public.ended (job_id uuid, status text, token bigint);
CREATE FUNCTION public.note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.ended VALUES (new.id, new.status, new.claim_token);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_end AFTER UPDATE ON public.job_queue FOR EACH ROW
    WHEN (new.status IN ('completed', 'failed', 'cancelled')) EXECUTE FUNCTION public.note_end();
"""
WRONG = """
SELECT q.id, q.status, q.error_message, q.claim_token, e.tokens, d.ends, l.lines
FROM job_queue q
CROSS JOIN LATERAL (SELECT array_agg(token) AS tokens FROM effect e WHERE e.job_id = q.id) e
CROSS JOIN LATERAL (SELECT array_agg(status) AS ends FROM ended d WHERE d.job_id = q.id) d
CROSS JOIN LATERAL (SELECT count(*) AS lines FROM job_log l WHERE l.job_id = q.id) l
WHERE q.job_type = 'pay' AND NOT coalesce(
    q.status = 'completed' AND e.tokens = ARRAY[q.claim_token] AND d.ends = '{completed}' AND l.lines = 1
    AND q.result = jsonb_build_object('token', q.claim_token), false)
"""

HOLDING = """
SELECT (SELECT min(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'streamvibe transaction%' AND state = 'idle in transaction')
"""


class Scene:
    """A database with the effects' table, and jobs."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.journal = folder / "journal"
        self.dsn = database.dsn
        self.conn = database.connect()
        self.conn.execute(SETUP.encode())
        for job_type in job_types(Fuse("", 1)):
            self.conn.execute(*registration(job_type))

    def request(self, name: str, count: int = 1, **params: object) -> list[UUID]:
        """Jobs of as many users."""
        wanted = [
            {"user_id": str(uuid4()), "job_type": name, "params": {"n": n, **params}} for n in range(count)
        ]
        rows = self.conn.execute("SELECT job_id FROM create_jobs(%s)", [Jsonb(wanted)]).fetchall()
        return [row[0] for row in rows]

    def workers(self, **options: object) -> WorkerProcess:
        """A process that waits until ``go``, and then runs one worker after another, each until it is killed."""
        return WorkerProcess(self.dsn, self.journal, script=SCRIPT, **options)

    def pids(self) -> list[int]:
        """The processes of all workers so far."""
        return [int(line) for line in self.journal.read_text().split()] if self.journal.exists() else []

    def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.conn.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    def is_over(self) -> bool:
        """Whether every job has ended."""
        return not self.value("SELECT count(*) FROM job_queue WHERE completed_at IS NULL")


def test_effects_take_place_exactly_once_wherever_workers_die(pg15: Server, tmp_path: Path) -> None:
    """One worker after another dies at each point, others are killed at random moments; nobody runs maintenance."""
    with new_database(pg15, TEMPLATE) as database:
        _let_workers_die(Scene(database, tmp_path), random.Random(15))


def _let_workers_die(scene: Scene, dice: random.Random) -> None:
    jobs = scene.request("pay", 120)
    points = dice.sample(POINTS, len(POINTS))
    doomed = scene.workers(fuses=",".join(f"{point}:{dice.randint(1, 8)}" for point in points))
    hunted = scene.workers()
    with closing(doomed, hunted):
        doomed.go()
        hunted.go()
        for _ in range(6):
            jobs += scene.request("pay", 20)
            time.sleep(dice.uniform(0, 0.4))
            dice.choice((doomed, hunted)).signal(KILL)
        wait_until(scene.is_over, "every job has ended", 60)
        wrong = scene.conn.execute(WRONG.encode()).fetchall()
        assert not wrong, wrong
        assert scene.value("SELECT count(*) FROM effect") == len(jobs)
        wait_until(lambda: not scene.value("SELECT count(*) FROM streamvibe.claim"), "no claim is left")


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_at_this_point(database18: Database, tmp_path: Path, point: str) -> None:
    """In its third transaction, or job: what was committed stays, the rest is done by the next worker, once each."""
    scene = Scene(database18, tmp_path)
    jobs = scene.request("pay", 20)
    workers = scene.workers(fuses=f"{point}:3")
    with closing(workers):
        workers.go()
        wait_until(scene.is_over, "every job has ended")
        assert len(scene.pids()) == 2
        wrong = scene.conn.execute(WRONG.encode()).fetchall()
        assert not wrong, wrong
        assert scene.value("SELECT count(*) FROM effect") == len(jobs)
        # It was killed once: nobody knows with which job, so none is charged.
        assert scene.value("SELECT max(retry_count) FROM job_queue") == 0


def test_a_job_that_kills_its_process_takes_no_neighbour_with_it(
    database18: Database, tmp_path: Path
) -> None:
    """It fails as a crash after its attempts and has no effect; no attempt is counted against the others."""
    scene = Scene(database18, tmp_path)
    scene.request("pay", 10)
    [killer] = scene.request("kill")
    scene.request("pay", 10)
    workers = scene.workers()
    with closing(workers):
        workers.go()
        wait_until(scene.is_over, "every job has ended")
        deaths = len(scene.pids()) - 1
    row = scene.conn.execute(
        "SELECT status, failure_kind, retry_count FROM job_queue WHERE id = %s", [killer]
    ).fetchone()
    assert row == ("failed", "crash", CRASH_ATTEMPTS)
    assert deaths == CRASH_ATTEMPTS + 1
    assert scene.conn.execute(WRONG.encode()).fetchall() == []
    assert scene.value("SELECT max(retry_count) FROM job_queue WHERE job_type = 'pay'") == 0
    assert scene.value("SELECT count(*) FROM effect WHERE job_id = %s", killer) == 0


def test_a_stopped_worker_keeps_its_transaction_until_the_server_ends_it(
    database18: Database, tmp_path: Path
) -> None:
    """SIGSTOP in a handler: its job is nobody else's while its session lives, and then runs elsewhere, once."""
    scene = Scene(database18, tmp_path)
    first, second = scene.workers(silence=0.5), scene.workers()
    with closing(first, second):
        first.go()
        [job_id] = scene.request("dwell", seconds=0.7)
        wait_until(lambda: scene.value(HOLDING), "its handler runs")
        session = scene.value(HOLDING)
        first.signal(STOP)
        second.go()
        wait_until(lambda: len(scene.pids()) == 2, "another worker is there")
        while scene.value(HOLDING) == session:
            rows = scene.conn.execute("SELECT * FROM recover_stuck_jobs()").fetchall()
            # The session may have ended between the two looks.
            assert not rows or scene.value(HOLDING) != session
            time.sleep(0.05)
        wait_until(scene.is_over, "another worker runs it")
        first.signal(signal.SIGCONT)
        first.signal(signal.SIGTERM)
        assert first.wait() == 0, first.errors()
        effects = scene.conn.execute("SELECT job_id, pid FROM effect").fetchall()
    assert effects == [(job_id, scene.pids()[1])]
    assert scene.conn.execute("SELECT status, retry_count FROM job_queue").fetchall() == [("completed", 0)]


def test_a_stopped_worker_that_goes_on_in_time_completes_its_job(
    database18: Database, tmp_path: Path
) -> None:
    """Its lease is over and it counts as dead, yet nobody else had the job: what it commits is the only effect."""
    scene = Scene(database18, tmp_path)
    workers = scene.workers(silence=20)
    with closing(workers):
        workers.go()
        scene.request("dwell", seconds=0.3)
        wait_until(lambda: scene.value(HOLDING), "its handler runs")
        workers.signal(STOP)
        wait_until(
            lambda: (
                scene.conn.execute("SELECT * FROM recover_stuck_jobs()").fetchall() == []
                and scene.value("SELECT count(*) = 0 FROM streamvibe.worker")
            ),
            "its worker is buried",
        )
        workers.signal(signal.SIGCONT)
        wait_until(scene.is_over, "it completes the job")
        workers.signal(signal.SIGTERM)
        assert workers.wait() == 0, workers.errors()
    assert scene.value("SELECT count(*) FROM effect") == 1
