"""One run of the proof: workers are killed in the middle of a queue of jobs, and every promise is checked after.

What is checked, per run:
- every job ends once: completed, or failed by its own rule;
- a handler starts at most 1 + (kills that hit its job) + (retries it asked for itself) times; a kill hits a job
  that the killed process held;
- an attempt is counted as a crash exactly when the killed process held that job alone;
- the token of a completion is the one of the last start, and whatever is sent under a dead worker's tokens is refused.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tests.faults.processes import Start, WorkerProcess, read_journal
from tests.faults.worker_process import CRASH_ATTEMPTS, Journal, job_types
from tests.support.databases import Database

from streamvibe.db.registration import registration

DEADLINE_SECONDS = 60.0
LEASE_SECONDS = 1.0
#: Where a kill is made to land: inside claim_jobs with the rows locked, right after the claim was committed,
#: while handlers run, inside the statement that writes ends, or at any moment.
PHASES = ("lock", "claim", "handler", "completion", "random")
CLAIM_GATE, END_GATE = 101, 102

SETUP = """
CREATE TABLE public.audit (n bigserial PRIMARY KEY, job_id uuid, before text, after text, token bigint, result jsonb);
CREATE FUNCTION public.note_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.audit (job_id, before, after, token, result)
    VALUES (new.id, old.status, new.status, new.claim_token, new.result);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_update AFTER UPDATE ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.note_update();

-- Whoever holds the gate's lock stops the statement in the middle.
CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(tg_argv[0]::bigint);
    RETURN new;
END
$$;
CREATE TRIGGER gate BEFORE INSERT ON streamvibe.claim FOR EACH ROW EXECUTE FUNCTION public.gate(101);
CREATE TRIGGER gate BEFORE UPDATE ON public.job_queue FOR EACH ROW
    WHEN (new.status IN ('completed', 'failed')) EXECUTE FUNCTION public.gate(102);
"""


@dataclass
class Kill:
    """One worker's death: where it landed and what it held."""

    phase: str
    held: int
    started: int


@dataclass
class Report:
    """What one run showed; ``violations`` is empty when every promise held."""

    seed: int
    jobs: int
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    most_starts: int = 0
    jobs_hit: int = 0
    jobs_started_again: int = 0
    crash_attempts: int = 0
    stale_tried: int = 0
    stale_accepted: int = 0
    failed_by_crash: int = 0
    violations: list[str] = field(default_factory=list)


class Trial:
    """200 jobs, a worker, a few kills, more workers until everything has ended."""

    def __init__(
        self, database: Database, seed: int, jobs: int = 200, *, killers: int = 0, longest: float = 0.4
    ) -> None:
        """``killers``: jobs that kill their own process. ``longest``: seconds that a handler takes at most."""
        self._database = database
        self._random = random.Random(seed)
        self.report = Report(seed, jobs)
        self._folder = tempfile.TemporaryDirectory(prefix="streamvibe-fault-")
        self._journal = Path(self._folder.name) / "journal"
        self._conn = database.connect()
        self._conn.execute(SETUP.encode())
        for job_type in job_types(Journal(str(self._journal))):
            self._conn.execute(*registration(job_type))
        self._kind: dict[UUID, str] = self._create(jobs, killers, longest)
        self._hits: Counter[UUID] = Counter()
        self._crashes: Counter[UUID] = Counter()
        self._unburied: dict[str, list[tuple[int, UUID]]] = {}
        self._spares = [self._spawn(), self._spawn()]
        self._worker = self._next_worker()

    def run(self, kills: int) -> Report:
        """Kill a worker ``kills`` times, let the last one finish, and check everything."""
        began = time.monotonic()
        try:
            for _ in range(kills):
                phase = self._random.choice(PHASES)
                landed = self._reach(phase)
                if self._is_over():
                    break
                self._replace(landed)
            self._wait(self._is_over, "every job has ended", DEADLINE_SECONDS)
            self._wait(lambda: not self._unburied, "every dead worker is buried")
            self._check()
        finally:
            for process in (self._worker, *self._spares):
                process.close()
            self._folder.cleanup()
        self.report.seconds = round(time.monotonic() - began, 2)
        return self.report

    def _create(self, jobs: int, killers: int, longest: float) -> dict[UUID, str]:
        kinds = ["noop"] * 8 + ["nap"] * 3 + ["chatty"] * 3 + ["flaky"] * 3 + ["thread"] * 3
        chosen = [self._random.choice(kinds) for _ in range(jobs - killers)] + ["killer"] * killers
        self._random.shuffle(chosen)
        users = [str(uuid4()) for _ in range(10)]
        wanted = [
            {
                "user_id": self._random.choice(users),
                "job_type": kind,
                "params": {"n": n, "seconds": round(self._random.uniform(0.05, longest), 3)},
            }
            for n, kind in enumerate(chosen)
        ]
        rows = self._conn.execute(
            "SELECT ordinal, job_id FROM create_jobs(%s) ORDER BY ordinal", [Jsonb(wanted)]
        ).fetchall()
        return {job_id: kind for (_, job_id), kind in zip(rows, chosen, strict=True)}

    # Workers

    def _spawn(self) -> WorkerProcess:
        return WorkerProcess(self._database.dsn, self._journal, lease=LEASE_SECONDS)

    def _next_worker(self) -> WorkerProcess:
        worker = self._spares.pop(0)
        worker.go()
        self._spares.append(self._spawn())
        return worker

    def _replace(self, phase: str) -> None:
        """Note what the dead (or now killed) worker held, and let the next one begin."""
        dead = self._worker
        dead.close()
        self._open_gates()
        self._worker = self._next_worker()
        # What it had sent is still carried out; only then is it certain what it held.
        self._wait(
            lambda: (
                not self._value(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s",
                    f"%{dead.worker_id}",
                )
            ),
            "the dead worker's sessions end",
            maintain=lambda: None,  # nothing may be recovered before it is noted
        )
        held = self._conn.execute(
            "SELECT c.token, q.id FROM streamvibe.claim c CROSS JOIN unnest(c.job_ids) u(id)"
            " JOIN job_queue q ON q.id = u.id WHERE c.worker_id = %s AND q.status IN ('pending', 'processing')",
            [dead.worker_id],
        ).fetchall()
        started = {(start.token, start.job_id) for start in read_journal(self._journal)}
        self._hits.update(job_id for _, job_id in held)
        if len(held) == 1:
            self._crashes[held[0][1]] += 1
        self.report.kills.append(Kill(phase, len(held), sum(pair in started for pair in held)))
        self._unburied[dead.worker_id] = held

    def _reach(self, phase: str) -> str:
        """Wait for the moment to kill at; returns where it is, which is "random" when the moment did not come."""
        match phase:
            case "lock" | "completion":
                gate = CLAIM_GATE if phase == "lock" else END_GATE
                self._conn.execute("SELECT pg_advisory_lock(%s)", [gate])
                waits = (
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
                )
                reached = self._come(lambda: bool(self._value(waits, gate)))
            case "claim":
                newest = "SELECT coalesce(max(token), 0) FROM streamvibe.claim WHERE worker_id = %s"
                before = self._value(newest, self._worker.worker_id)
                reached = self._come(lambda: self._value(newest, self._worker.worker_id) > before)
            case "handler":
                count = len(read_journal(self._journal)) + self._random.randint(1, 20)
                reached = self._come(lambda: len(read_journal(self._journal)) >= count)
                time.sleep(self._random.uniform(0, 0.03))
            case _:
                time.sleep(self._random.uniform(0, 0.6))
                reached = True
        if self._worker.is_dead:
            return "itself"
        return phase if reached else "random"

    def _come(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + 2.0
        while time.monotonic() < end and not self._worker.is_dead:
            if condition():
                return True
        return False

    def _open_gates(self) -> None:
        self._conn.execute("SELECT pg_advisory_unlock_all()")

    # Time

    def _wait(
        self,
        condition: Callable[[], bool],
        what: str,
        seconds: float = 20.0,
        maintain: Callable[[], None] | None = None,
    ) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:g} s: {what} (seed {self.report.seed})")
            (maintain or self._maintain)()
            time.sleep(0.02)

    def _maintain(self) -> None:
        """What the maintenance loop does, and workers for those that killed themselves."""
        self._conn.execute("SELECT recover_stuck_jobs()")
        self._conn.execute("SELECT retry_failed_jobs()")
        alive = {row[0] for row in self._conn.execute("SELECT id FROM streamvibe.worker").fetchall()}
        for worker_id in self._unburied.keys() - alive:
            self._try_stale(worker_id, self._unburied.pop(worker_id))
        if self._worker.is_dead and not self._is_over():
            self._replace("itself")

    def _try_stale(self, worker_id: str, held: list[tuple[int, UUID]]) -> None:
        """Send everything a late worker could send under the tokens it held."""
        tokens, jobs = [token for token, _ in held], [job_id for _, job_id in held]
        columns: list[Any] = [worker_id, tokens, jobs]
        stale = [Jsonb({"token": -1})] * len(held)
        failures = [Jsonb({"kind": "error", "message": "stale", "retryable": True})] * len(held)
        calls: list[tuple[str, list[Any]]] = [
            (
                "SELECT job_id FROM complete_jobs(%s, %s::bigint[], %s::uuid[], %s::jsonb[])",
                [*columns, stale],
            ),
            (
                "SELECT job_id FROM fail_jobs(%s, %s::bigint[], %s::uuid[], %s::jsonb[]) WHERE NOT accepted",
                [*columns, failures],
            ),
            ("SELECT job_id FROM release_jobs(%s, %s::bigint[], %s::uuid[])", columns),
            (
                "SELECT job_id FROM append_job_logs(%s, %s::bigint[], %s::uuid[],"
                " array_fill('info'::text, ARRAY[%s]), array_fill('stale'::text, ARRAY[%s]))",
                [*columns, len(held), len(held)],
            ),
        ]
        for call, arguments in calls:
            refused = {row[0] for row in self._conn.execute(call.encode(), arguments).fetchall()}
            self.report.stale_tried += len(held)
            self.report.stale_accepted += len(set(jobs) - refused)

    def _is_over(self) -> bool:
        return bool(
            self._value(
                "SELECT NOT EXISTS (SELECT FROM job_queue WHERE completed_at IS NULL OR retry_at IS NOT NULL)"
            )
        )

    def _value(self, query: str, *values: Any) -> Any:
        row = self._conn.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    # Checks

    def _check(self) -> None:
        starts: dict[UUID, list[Start]] = {}
        for start in read_journal(self._journal):
            starts.setdefault(start.job_id, []).append(start)
        ends = Counter(
            row[0]
            for row in self._conn.execute(
                "SELECT job_id FROM audit WHERE after IN ('completed', 'failed', 'cancelled')"
            ).fetchall()
        )
        with self._conn.cursor(row_factory=dict_row) as cursor:
            rows = {row["id"]: row for row in cursor.execute("SELECT * FROM job_queue").fetchall()}
        for job_id, kind in self._kind.items():
            for problem in self._problems(rows[job_id], kind, starts.get(job_id, []), ends[job_id]):
                self.report.violations.append(f"{kind} {job_id}: {problem}")
        if self.report.stale_accepted:
            self.report.violations.append(f"{self.report.stale_accepted} stale calls were accepted")
        if leftover := self._value("SELECT count(*) FROM job_log WHERE message = 'stale'"):
            self.report.violations.append(f"{leftover} stale log lines were written")
        self.report.starts = sum(len(found) for found in starts.values())
        self.report.most_starts = max(len(found) for found in starts.values())
        self.report.jobs_hit = len(self._hits)
        self.report.jobs_started_again = sum(
            len(found) > 1 + (self._kind[job_id] == "flaky") for job_id, found in starts.items()
        )
        self.report.crash_attempts = sum(self._crashes.values())
        self.report.failed_by_crash = sum(row["failure_kind"] == "crash" for row in rows.values())

    def _problems(self, row: dict[str, Any], kind: str, starts: list[Start], ends: int) -> list[str]:
        found = []
        job_id = row["id"]
        own_retries = int(kind == "flaky")
        if ends != 1:
            found.append(f"ended {ends} times")
        if len(starts) > 1 + self._hits[job_id] + own_retries:
            found.append(f"started {len(starts)} times, hit by {self._hits[job_id]} kills")
        if row["retry_count"] != self._crashes[job_id] + own_retries:
            found.append(
                f"{row['retry_count']} attempts counted, {self._crashes[job_id]} crashes, {own_retries} own"
            )
        if kind == "killer":
            if (row["status"], row["failure_kind"]) != ("failed", "crash"):
                found.append(f"{row['status']}, {row['failure_kind']} instead of failed, crash")
            if row["retry_count"] != CRASH_ATTEMPTS:
                found.append(f"{row['retry_count']} crashes counted")
        elif row["status"] != "completed":
            found.append(f"{row['status']}: {row['error_message']}")
        elif not starts or not row["result"]["token"] == row["claim_token"] == starts[-1].token:
            found.append(
                f"completed under token {row['claim_token']} with the result of {row['result']},"
                f" last started under {starts[-1].token if starts else None}"
            )
        return found
