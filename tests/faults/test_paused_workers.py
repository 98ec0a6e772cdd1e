"""Workers that are stopped (SIGSTOP) and come back, and workers that are only slow: whose a job is, and stays."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.faults.paused_process import Gate, job_types
from tests.faults.processes import Start, WorkerProcess, closing, read_journal
from tests.faults.worker_process import Journal
from tests.faults.worker_process import job_types as ordinary_job_types
from tests.sql import kit
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe.db.registration import registration

SCRIPT = Path(__file__).with_name("paused_process.py")
LEASE = 0.5
NEVER = 3600.0
SETUP = """
CREATE TABLE public.ended (job_id uuid, status text, token bigint, result jsonb);
CREATE FUNCTION public.note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.ended VALUES (new.id, new.status, new.claim_token, new.result);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_end AFTER UPDATE ON public.job_queue FOR EACH ROW
    WHEN (new.status IN ('completed', 'failed', 'cancelled')) EXECUTE FUNCTION public.note_end();
"""


class Scene:
    """A database that notes every end of a job, and the processes' journal and gates."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.journal = folder / "journal"
        self.gate = folder / "gate"
        self.conn = database.connect()
        self.conn.execute(SETUP.encode())
        for job_type in job_types(Journal(str(self.journal)), Gate(str(self.gate))):
            self.conn.execute(*registration(job_type))

    def worker(self, **options: object) -> WorkerProcess:
        """A process that waits until ``go``."""
        options = {"gate": self.gate, "lease": LEASE, **options}
        return WorkerProcess(self.database.dsn, self.journal, script=SCRIPT, **options)

    def open(self, whose: WorkerProcess | None = None) -> None:
        """Let handlers end: those of one process, or all."""
        Path(f"{self.gate}.{whose.pid if whose else 'all'}").touch()

    def request(self, *kinds: str) -> list[UUID]:
        """A job of each kind."""
        return [kit.job_id(self.conn, uuid4(), kind) for kind in kinds]

    def lines(self, event: str, pid: int | None = None) -> list[Start]:
        """What the journal says of this event."""
        return [
            line
            for line in read_journal(self.journal)
            if line.event == event and (pid is None or line.pid == pid)
        ]

    def stored(self, jobs: list[UUID]) -> list[kit.Row]:
        """The jobs' rows with their versions, and their log lines."""
        return kit.query(
            self.conn,
            "SELECT q.*, q.xmin::text AS version,"
            " ARRAY(SELECT l.metadata FROM job_log l WHERE l.job_id = q.id ORDER BY l.id) AS lines"
            " FROM job_queue q WHERE q.id = ANY (%s) ORDER BY q.id",
            jobs,
        )

    def are(self, jobs: list[UUID], status: str) -> bool:
        """Whether the service sees all of them so."""
        return {kit.status(self.conn, job_id) for job_id in jobs} == {status}

    def recover(self) -> list[kit.Row]:
        """What maintenance takes back now."""
        return kit.call(self.conn, "recover_stuck_jobs")


@pytest.fixture
def scene(database: Database, tmp_path: Path) -> Scene:
    """On PostgreSQL 18 and 15."""
    return Scene(database, tmp_path)


@pytest.mark.parametrize("when", ["at once", "once told"])
@pytest.mark.parametrize("rows", ["ordinary", "leased"])
def test_what_a_stopped_worker_sends_later_is_refused(scene: Scene, rows: str, when: str) -> None:
    """Its jobs are finished by another; back again, its results, log lines and progress change nothing.

    ordinary: nothing of a job but the claim was written when it stopped; leased: its row is 'processing'. Its
    handlers end before it can know, or after they were told.
    """
    first = scene.worker(**{"lease-after": NEVER if rows == "ordinary" else 0.0})
    second = scene.worker()
    with closing(first, second):
        first.go()
        jobs = scene.request("waits", "thread")
        wait_until(lambda: len(scene.lines("start")) == 2, "both handlers run")
        if rows == "leased":
            wait_until(
                lambda: {row["status"] for row in scene.stored(jobs)} == {"processing"}, "both are leased"
            )
        else:
            assert {row["status"] for row in scene.stored(jobs)} == {"pending"}
        first.signal(signal.SIGSTOP)
        taken = wait_until(scene.recover, "they are taken back")
        assert sorted(row["job_id"] for row in taken) == sorted(jobs)
        scene.open(second)
        second.go()
        wait_until(lambda: scene.are(jobs, "completed"), "another worker completes them")
        second.signal(signal.SIGTERM)
        assert second.wait() == 0, second.errors()
        before = scene.stored(jobs)

        if when == "at once":
            scene.open(first)
        first.signal(signal.SIGCONT)
        if when == "once told":
            wait_until(lambda: len(scene.lines("told")) == 2, "both handlers are told")
            assert {line.job_id for line in scene.lines("told")} == set(jobs)
            scene.open(first)
        wait_until(lambda: len(scene.lines("end", first.pid)) == 2, "its handlers end")
        # It has sent whatever it sends once it has done another job, and it leaves well.
        following = scene.request("waits", "thread")
        wait_until(lambda: scene.are(following, "completed"), "the first worker goes on")
        first.signal(signal.SIGTERM)
        assert first.wait() == 0, first.errors()
    assert scene.stored(jobs) == before
    tokens = {line.job_id: line.token for line in scene.lines("start", second.pid)}
    for row in before:
        token = tokens[row["id"]]
        assert (row["status"], row["claim_token"], row["result"]) == ("completed", token, {"token": token})
        assert row["lines"] == [{"token": token}]
        assert row["progress_message"] in (f"token {token}", None)
    ends = "SELECT job_id, status, token, result FROM public.ended WHERE job_id = ANY (%s)"
    assert sorted((row["job_id"], row["token"]) for row in kit.query(scene.conn, ends, jobs)) == sorted(
        tokens.items()
    ), "each ended once"
    assert kit.value(scene.conn, "SELECT count(*) FROM streamvibe.claim") == 0


@pytest.mark.parametrize("rows", ["ordinary", "leased"])
def test_what_it_sends_while_another_runs_the_job_is_refused(scene: Scene, rows: str) -> None:
    """One job runs elsewhere, one waits for its turn there, when it is back: what it sends of both changes neither."""
    first = scene.worker(**{"lease-after": NEVER if rows == "ordinary" else 0.0})
    second = scene.worker()
    with closing(first, second):
        first.go()
        jobs = scene.request("waits", "thread")
        wait_until(lambda: len(scene.lines("start")) == 2, "both handlers run")
        if rows == "leased":
            wait_until(
                lambda: {row["status"] for row in scene.stored(jobs)} == {"processing"}, "both are leased"
            )
        first.signal(signal.SIGSTOP)
        wait_until(scene.recover, "they are taken back")
        second.go()
        # What two jobs' worker died with is tried one by one.
        wait_until(lambda: scene.lines("start", second.pid), "one runs elsewhere")
        running = {line.job_id for line in scene.lines("start", second.pid)}
        wait_until(
            lambda: sorted(row["status"] for row in scene.stored(jobs)) == ["pending", "processing"],
            "it is leased there",
        )
        kit.call(scene.conn, "pause_jobs")
        before = scene.stored(jobs)
        scene.open(first)
        first.signal(signal.SIGCONT)
        wait_until(lambda: len(scene.lines("end", first.pid)) == 2, "the first worker's handlers end")
        first.signal(signal.SIGTERM)
        assert first.wait() == 0, first.errors()
        assert scene.stored(jobs) == before
        assert kit.value(scene.conn, "SELECT count(*) FROM public.ended") == 0
        kit.call(scene.conn, "resume_jobs")
        scene.open(second)
        wait_until(lambda: scene.are(jobs, "completed"), "the second worker completes both")
    tokens = {line.job_id: line.token for line in scene.lines("start", second.pid)}
    assert running < tokens.keys() == set(jobs)
    for row in scene.stored(jobs):
        token = tokens[row["id"]]
        assert (row["claim_token"], row["result"], row["lines"]) == (
            token,
            {"token": token},
            [{"token": token}],
        )
    assert kit.value(scene.conn, "SELECT count(*) FROM public.ended") == 2


def test_a_worker_that_comes_back_before_anybody_looked_keeps_its_jobs(scene: Scene) -> None:
    """Its lease was over, but nobody took its jobs: it completes them, each in one attempt."""
    worker = scene.worker()
    with closing(worker):
        worker.go()
        jobs = scene.request("waits", "thread")
        wait_until(lambda: len(scene.lines("start")) == 2, "both handlers run")
        worker.signal(signal.SIGSTOP)
        over = "SELECT heartbeat_at + lease < streamvibe.now() FROM streamvibe.worker"
        wait_until(lambda: kit.value(scene.conn, over), "its lease is over")
        scene.open()
        worker.signal(signal.SIGCONT)
        wait_until(lambda: scene.are(jobs, "completed"), "it completes both")
    assert len(scene.lines("start")) == 2 and scene.lines("told") == []
    for row in scene.stored(jobs):
        assert (row["retry_count"], row["lines"]) == (0, [{"token": row["claim_token"]}])


@pytest.mark.parametrize("rows", ["ordinary", "leased"])
@pytest.mark.parametrize("kind", ["waits", "thread", "blocks"])
def test_a_slow_live_job_is_never_taken_away(
    database18: Database, tmp_path: Path, kind: str, rows: str
) -> None:
    """It runs for five leases, on the loop, in a thread, or blocking the loop, and somebody looks all the time."""
    scene = Scene(database18, tmp_path)
    worker, idle = scene.worker(**{"lease-after": NEVER if rows == "ordinary" else 0.0}), scene.worker()
    with closing(worker, idle):
        worker.go()
        [job_id] = scene.request(kind)
        wait_until(lambda: scene.lines("start"), "the handler runs")
        idle.go()
        started = "SELECT clock_timestamp() FROM streamvibe.worker LIMIT 1"
        began = kit.value(scene.conn, started)
        renewed = "SELECT heartbeat_at - %s > %s * interval '1 second' FROM streamvibe.worker WHERE id = %s"

        def lasted() -> bool:
            assert scene.recover() == []
            return bool(kit.value(scene.conn, renewed, began, 5 * LEASE, worker.worker_id))

        wait_until(lasted, "its lease was renewed for five leases")
        scene.open()
        wait_until(lambda: scene.are([job_id], "completed"), "it completes the job")
    [start] = scene.lines("start")
    [row] = scene.stored([job_id])
    assert (row["claim_token"], row["retry_count"], row["result"]) == (start.token, 0, {"token": start.token})
    assert scene.lines("told") == [] and kit.value(scene.conn, "SELECT count(*) FROM public.ended") == 1


@contextmanager
def maintained(database: Database) -> Iterator[None]:
    """Jobs of dead workers are taken back, failed ones brought back, all the time."""
    over = threading.Event()

    def look() -> None:
        with database.connect() as conn:
            while not over.wait(0.05):
                for function in ("recover_stuck_jobs", "retry_failed_jobs"):
                    kit.call(conn, function)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_workers_that_are_stopped_again_and_again(database18: Database, tmp_path: Path) -> None:
    """300 jobs, three workers, each stopped for longer or shorter than its lease at random moments: one end each."""
    dice = random.Random(1)
    journal = tmp_path / "journal"
    conn = database18.connect()
    conn.execute(SETUP.encode())
    for job_type in ordinary_job_types(Journal(str(journal))):
        conn.execute(*registration(job_type))
    kinds = ("noop", "nap", "chatty", "flaky", "thread")
    wanted: list[dict[str, Any]] = [
        {
            "user_id": str(uuid4()),
            "job_type": dice.choice(kinds),
            "params": {"n": n, "seconds": dice.uniform(0, 0.3)},
        }
        for n in range(300)
    ]
    jobs = [row["job_id"] for row in kit.call(conn, "create_jobs", p_jobs=Jsonb(wanted))]
    workers = [WorkerProcess(database18.dsn, journal, lease=LEASE, poll=0.05) for _ in range(3)]
    unfinished = "SELECT count(*) FROM job_queue WHERE completed_at IS NULL OR retry_at IS NOT NULL"
    with closing(*workers), maintained(database18):
        for worker in workers:
            worker.go()
        for _ in range(12):
            worker = dice.choice(workers)
            time.sleep(dice.uniform(0, 0.2))
            worker.signal(signal.SIGSTOP)
            time.sleep(dice.uniform(0.2, 3) * LEASE)
            worker.signal(signal.SIGCONT)
        wait_until(lambda: kit.value(conn, unfinished) == 0, "every job has ended", 60)
        for worker in workers:
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0, worker.errors()
    starts = [line for line in read_journal(journal) if line.event == "start"]
    last = {job_id: max(line.token for line in starts if line.job_id == job_id) for job_id in jobs}
    ends = kit.query(conn, "SELECT job_id, token, result FROM public.ended WHERE status = 'completed'")
    assert sorted(row["job_id"] for row in ends) == sorted(jobs), "each is completed once"
    for row in kit.query(conn, "SELECT id, status, claim_token, result FROM job_queue"):
        token = last[row["id"]]
        assert (row["status"], row["claim_token"], row["result"]) == ("completed", token, {"token": token})
    assert kit.value(conn, "SELECT count(*) FROM streamvibe.claim") == 0
    assert kit.call(conn, "recount_stats") == []
