"""A month of a queue in minutes: its clock is moved by the hour, workers and maintenance are killed, and everything
that retention, archive and statistics promise is checked at the end.

python tests/faults/simulate_month.py --json tests/faults/results/month.json
"""

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[2]))

import psycopg
from psycopg import sql
from tests.faults import month_process
from tests.support.databases import TEMPLATE, Database, make_template, new_database
from tests.support.servers import pg18_bin, running

from streamvibe import SyncClient
from streamvibe.archive.duty import archive_duty
from streamvibe.archive.query import Archive
from streamvibe.archive.store import Store
from streamvibe.maintenance.duties import DUTIES, Duty
from streamvibe.maintenance.loop import Maintenance
from streamvibe.maintenance.schedule import parse_schedule
from streamvibe.model import NewJob

HOUR = timedelta(hours=1)
#: In the queue's time: who is killed is noticed after so long.
LEASE_HOURS = 11.0
USERS = [UUID(int=n) for n in range(1, 60)]
#: Each table and index takes at most so many times what a fresh copy takes, or a page.
MOST = 1.3
PAGE_BYTES = 8192
#: Of steps in which a worker, or the leader of maintenance, is killed; in some others a worker is told to stop.
WORKER_KILLS, LEADER_KILLS, WORKER_STOPS = 0.25, 0.1, 0.1
#: A leaf leaves when the next run of its duty comes, which is every step; so many allow for one that failed.
SLACK_STEPS = 2


@dataclass
class Report:
    """What happened, and what did not hold: ``violations`` is empty when every promise did."""

    days: int
    requested: int = 0
    cancelled: int = 0
    workers_killed: int = 0
    workers_stopped: int = 0
    maintenance_killed: int = 0
    leaves_dropped: int = 0
    archived_jobs: int = 0
    archived_lines: int = 0
    hot_jobs: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    sizes: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


class Month:
    """The queue, who asks it, and who serves it."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        days: int,
        jobs_per_hour: int,
        seed: int,
        step: timedelta,
    ) -> None:
        self.database = database
        self.folder = folder
        self.jobs_per_hour = jobs_per_hour
        self.step = step
        self.random = random.Random(seed)
        self.report = Report(days)
        self.requested: set[UUID] = set()
        self.worker: subprocess.Popen[bytes] | None = None
        self.conn = database.connect()
        self.types = month_process.job_types()

    def run(self) -> Report:
        """All days, hour by hour, then the checks."""
        began = time.monotonic()
        self.database.advance_clock(timedelta())
        self.conn.execute("CREATE EXTENSION pgstattuple")
        archive_id = Store(self.folder.as_uri()).claim(None)
        self.conn.execute("SELECT set_archive(%s, %s)", [self.folder.as_uri(), archive_id])
        with SyncClient(self.database.dsn) as client:
            for job_type in self.types:
                client.register(job_type)
            # The platform's own types would keep everybody's lines for a month.
            self.conn.execute("UPDATE streamvibe.job_type SET log_retention = '10 days'")
            for user in USERS:
                self.conn.execute("SELECT set_user_limit(%s, 10000)", [user])
            try:
                steps = timedelta(days=self.report.days) // self.step
                for n in range(1, steps + 1):
                    self._hour(client)
                    if n * self.step % timedelta(days=1) == timedelta():
                        self._say(n * self.step // timedelta(days=1))
                self._end()
            finally:
                self._stop_worker(signal.SIGKILL)
        self._check()
        self.report.seconds = time.monotonic() - began
        return self.report

    # An hour.

    def _hour(self, client: SyncClient) -> None:
        self.database.advance_clock(self.step)
        if self.worker is None:
            command = [sys.executable, month_process.__file__, self.database.dsn, str(LEASE_HOURS)]
            self.worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._request(client)
        chance = self.random.random()
        if chance < WORKER_KILLS:
            # In the middle of what was asked for.
            time.sleep(self.random.uniform(0.0, 0.15))
            self._stop_worker(signal.SIGKILL)
            self.report.workers_killed += 1
        elif chance < WORKER_KILLS + WORKER_STOPS:
            self._stop_worker(signal.SIGTERM)
            self.report.workers_stopped += 1
        else:
            self._wait_idle()
        if self.random.random() < LEADER_KILLS:
            self._kill_maintenance()
        self._maintain()

    def _request(self, client: SyncClient) -> None:
        # Nights are quiet.
        count = self.random.randint(1, 2 * self.jobs_per_hour * (self.step // HOUR))
        new = []
        for _ in range(count):
            kind = self.random.choices(self.types, weights=(6, 2, 1, 3))[0]
            later = self.random.random() < 0.02
            at = self._now() + timedelta(hours=self.random.randint(1, 72)) if later else None
            params = {"n": self.random.randint(0, 10**9)}
            new.append(NewJob(self.random.choice(USERS), kind, params, scheduled_for=at))
        for outcome in client.create_many(new):
            assert outcome.job_id is not None
            self.requested.add(outcome.job_id)
        for job in new[:5]:
            # The same again joins, or is answered from the cache; one of these is cancelled.
            asked = client.request(job.job_type, job.params, user_id=job.user_id)
            self.requested.add(asked.job_id)
            if self.random.random() < 0.1:
                self.report.cancelled += len(client.cancel([asked.job_id], user_id=job.user_id))

    def _now(self) -> datetime:
        [now] = self.conn.execute("SELECT streamvibe.now()").fetchone() or (None,)
        assert isinstance(now, datetime)
        return now

    def _wait_idle(self) -> None:
        """Until nothing is due that nobody holds, or holds no longer."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            [busy] = self.conn.execute(
                "SELECT EXISTS (SELECT FROM job_queue q WHERE q.status IN ('pending', 'processing')"
                " AND q.scheduled_for <= streamvibe.now()"
                " AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.claim c"
                " JOIN streamvibe.worker w ON w.id = c.worker_id WHERE w.metadata->>'pid' IS DISTINCT FROM %s)"
                " AND NOT q.isolated)",
                [str(self.worker.pid) if self.worker else None],
            ).fetchone() or (False,)
            if not busy:
                return
            time.sleep(0.01)
        self.report.violations.append(f"jobs are due, and nobody runs them: {self._now()}")

    def _stop_worker(self, how: signal.Signals) -> None:
        if self.worker is not None:
            self.worker.send_signal(how)
            self.worker.wait()
            self.worker = None

    # Maintenance.

    def _duties(self) -> list[Duty]:
        return [*DUTIES, Duty("archive", "27 * * * *", run=partial(archive_duty, self.database.dsn))]

    def _maintain(self) -> None:
        """Let a leader do what is due at this hour."""
        began = self._now()
        until = time.monotonic() + 120

        async def lead() -> None:
            maintenance = Maintenance(self.database.dsn, duties=self._duties(), settle=timedelta())
            running = asyncio.create_task(maintenance.run())
            while not running.done() and not await asyncio.to_thread(self._is_done, began):
                if time.monotonic() > until:
                    self.report.violations.append(f"maintenance is not done: {began}")
                    break
                await asyncio.sleep(0.02)
            maintenance.stop()
            await running

        asyncio.run(lead())

    def _is_done(self, began: datetime) -> bool:
        with psycopg.connect(self.database.dsn, autocommit=True) as conn:
            rows = conn.execute(
                "SELECT duty, schedule, running_since, last_started_at, last_error FROM get_maintenance()"
            ).fetchall()
            # A leader judges nobody at its first look.
            [now, dead] = conn.execute(
                "SELECT streamvibe.now(), EXISTS (SELECT FROM streamvibe.worker w WHERE w.left_over IS NULL"
                " AND w.heartbeat_at + w.lease < streamvibe.now())"
            ).fetchone() or (None, None)
        if dead:
            return False
        for duty, schedule, running_since, started_at, _ in rows:
            if running_since is not None or started_at is None:
                return False
            if started_at < began and parse_schedule(schedule)(started_at) <= now:
                return False
            if duty in ("archive", "drop_old_partitions") and started_at < began - HOUR:
                return False
        return len(rows) == len(self._duties())

    def _kill_maintenance(self) -> None:
        """A leader that is killed while it works."""
        command = [sys.executable, "-m", "streamvibe", "maintain", "run"]
        environment = {
            "STREAMVIBE_DATABASE_URL": self.database.dsn,
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
        }
        leader = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(self.random.uniform(0.5, 2.5))
        leader.kill()
        leader.wait()
        self.report.maintenance_killed += 1
        # The lease of the dead leader, and of an archiver, runs out.
        self.database.advance_clock(timedelta(minutes=2))

    def _say(self, day: int) -> None:
        [hot, leaves] = self.conn.execute(
            "SELECT (SELECT count(*) FROM job_queue), (SELECT count(*) FROM streamvibe.partition)"
        ).fetchone() or (0, 0)
        print(
            f"day {day}: {len(self.requested)} jobs requested, {hot} in the queue, {leaves} leaves,"
            f" {self.report.workers_killed} workers killed",
            flush=True,
        )

    # The end.

    def _end(self) -> None:
        """Dead workers are noticed, what is due is done, and after a night's packing nobody works any more."""
        soonest = (self._now() + HOUR * (LEASE_HOURS + 3)).astimezone(UTC)
        night = soonest.replace(hour=2, minute=50)
        night += timedelta(days=night < soonest)
        while (left := night - self._now()) > timedelta():
            self.database.advance_clock(min(HOUR, left))
            if self.worker is None:
                command = [sys.executable, month_process.__file__, self.database.dsn, str(LEASE_HOURS)]
                self.worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            self._maintain()
            self._wait_idle()
        self._stop_worker(signal.SIGTERM)
        # Past the duties that vacuum and pack, one after the other.
        for _ in range(2):
            self.database.advance_clock(timedelta(minutes=12))
            self._maintain()

    def _check(self) -> None:
        self._check_leaves()
        self._check_ids()
        self._check_statistics()
        self._check_sizes()

    def _check_leaves(self) -> None:
        report = self.report
        [report.leaves_dropped] = self.conn.execute(
            "SELECT count(DISTINCT f.source) FROM streamvibe.archive_file f WHERE f.source NOT LIKE 'leaving-%%'"
            " AND f.source NOT IN (SELECT partition_name FROM streamvibe.partition)"
        ).fetchone() or (0,)
        for name, parent, upper_at, now in self.conn.execute(
            "SELECT partition_name, parent_name, upper_at, streamvibe.now() FROM streamvibe.partition"
        ):
            kept = timedelta(days=7 if parent == "job_queue" else 10)
            # A job that was asked for in it may be scheduled up to three days ahead.
            late = timedelta(hours=72) if parent == "job_queue" else timedelta()
            if upper_at + kept + late + SLACK_STEPS * self.step < now:
                report.violations.append(f"{name} is older than retention: {upper_at}, now {now}")
        errors = self.conn.execute(
            "SELECT duty, last_error FROM get_maintenance() WHERE last_error IS NOT NULL"
        ).fetchall()
        report.violations += [f"{duty} failed: {error}" for duty, error in errors]

    def _check_ids(self) -> None:
        report = self.report
        hot = Counter(row[0] for row in self.conn.execute("SELECT id FROM job_queue"))
        waiting = Counter(row[0] for row in self.conn.execute("SELECT id FROM streamvibe.leaving_job"))
        with Archive(self.database.dsn) as archive:
            archived = Counter(UUID(str(row[0])) for row in archive.ask("SELECT id FROM jobs"))
            [[report.archived_lines, lines]] = archive.ask("SELECT count(*), count(DISTINCT id) FROM logs")
            if report.archived_lines != lines:
                report.violations.append(f"of {report.archived_lines} archived lines {lines} are different")
        report.requested, report.hot_jobs = len(self.requested), hot.total()
        report.archived_jobs = archived.total()
        everywhere = hot + waiting + archived
        twice = [job for job, count in everywhere.items() if count > 1]
        report.violations += [f"{len(twice)} jobs are there twice, such as {twice[0]}"] if twice else []
        lost = self.requested - set(everywhere)
        report.violations += [f"{len(lost)} jobs are lost, such as {next(iter(lost))}"] if lost else []
        strange = set(everywhere) - self.requested
        report.violations += [f"{len(strange)} jobs were never asked for"] if strange else []
        live = self.conn.execute(
            "SELECT count(*) FROM job_queue WHERE status IN ('pending', 'processing')"
            " AND scheduled_for < streamvibe.now() - interval '1 hour'"
        ).fetchone()
        if live != (0,):
            rows = self.conn.execute(
                "SELECT id, job_type, status, isolated, retry_count, scheduled_for, streamvibe.now() FROM job_queue"
                " WHERE status IN ('pending', 'processing')"
                " AND scheduled_for < streamvibe.now() - interval '1 hour' LIMIT 5"
            ).fetchall()
            report.violations.append(f"{live} jobs are due and not done: {rows}")

    def _check_statistics(self) -> None:
        # As get_job_queue_stats() adds up; that one also shows who is held as processing.
        said = {
            (job_type, status): jobs
            for job_type, status, jobs in self.conn.execute(
                "SELECT job_type, status, sum(jobs)::bigint"
                " FROM (SELECT job_type, status, jobs FROM streamvibe.stat_note"
                " UNION ALL SELECT job_type, status, jobs FROM streamvibe.stat WHERE minutes = 0) s"
                " GROUP BY 1, 2 HAVING sum(jobs) <> 0"
            )
        }
        counted = {
            (job_type, status): jobs
            for job_type, status, jobs in self.conn.execute(
                "SELECT job_type, status, count(*) FROM job_queue GROUP BY 1, 2"
            )
        }
        self.report.statuses = {f"{kind} {status}": jobs for (kind, status), jobs in sorted(counted.items())}
        if said != counted:
            self.report.violations.append(f"statistics say {said}, and it is {counted}")

    def _check_sizes(self) -> None:
        """Each table and index beside a copy that is loaded now, in the order of its ids."""
        conn = self.conn
        names = conn.execute(
            "SELECT c.oid, n.nspname, c.relname, coalesce(p.parent_name, c.relname) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " LEFT JOIN streamvibe.partition p ON p.partition_name = c.relname"
            " WHERE c.relkind = 'r' AND n.nspname = 'streamvibe'"
        ).fetchall()
        totals: dict[tuple[str, str], list[int]] = {}
        for oid, schema, name, whole in names:
            table = sql.Identifier(schema, name)
            # What autovacuum does when it is its turn: tables that rows only pass through are empty then.
            conn.execute(sql.SQL("VACUUM {}").format(table))
            copy = sql.Identifier("public", "copy_of_it")
            conn.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(copy, table))
            key = conn.execute(
                "SELECT array_agg(a.attname ORDER BY u.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY u(k, n)"
                " JOIN pg_attribute a ON a.attrelid = %s AND a.attnum = u.k WHERE i.indrelid = %s AND i.indisprimary",
                [oid, oid],
            ).fetchone()
            order: sql.Composable = sql.SQL("")
            if key and key[0]:
                order = sql.SQL(" ORDER BY ") + sql.SQL(", ").join(map(sql.Identifier, key[0]))
            [options] = conn.execute("SELECT reloptions FROM pg_class WHERE oid = %s", [oid]).fetchone() or (
                None,
            )
            for option in options or []:
                if option.startswith("fillfactor"):
                    conn.execute(sql.SQL("ALTER TABLE {} SET ({})").format(copy, sql.SQL(option)))
            columns = conn.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
                " AND attgenerated = '' ORDER BY attnum",
                [oid],
            ).fetchall()
            given = sql.SQL(", ").join(sql.Identifier(row[0]) for row in columns)
            conn.execute(
                sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                    copy, given, given, table
                )
                + order
            )
            conn.execute(sql.SQL("VACUUM {}").format(copy))
            rows = conn.execute(_SIZES, [oid, oid, "public.copy_of_it", "public.copy_of_it"]).fetchall()
            for what, size, fresh in rows:
                ratio = size / max(fresh, PAGE_BYTES)
                self._judge_size(f"{name} {what}", size, fresh)
                self.report.sizes.append(
                    {
                        "table": name,
                        "what": what,
                        "bytes": size,
                        "fresh_bytes": fresh,
                        "ratio": round(ratio, 2),
                    }
                )
                if whole != name:
                    total = totals.setdefault((whole, what), [0, 0])
                    total[0] += size
                    total[1] += fresh
            conn.execute(sql.SQL("DROP TABLE {}").format(copy))
        for (whole, what), (size, fresh) in sorted(totals.items()):
            self._judge_size(f"all leaves of {whole}, {what}", size, fresh)

    def _judge_size(self, name: str, size: int, fresh: int) -> None:
        if size > MOST * max(fresh, PAGE_BYTES):
            self.report.violations.append(f"{name}: {size} bytes beside {fresh} of a fresh copy")


#: The heap, and each index by what it is of.
_SIZES = """
WITH found AS (
    SELECT regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '') AS what,
           pg_relation_size(i.indexrelid) AS size
    FROM pg_index i WHERE i.indrelid = %s
    UNION ALL SELECT 'heap', pg_relation_size(%s)
), fresh AS (
    SELECT regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '') AS what,
           pg_relation_size(i.indexrelid) AS size
    FROM pg_index i WHERE i.indrelid = %s::regclass
    UNION ALL SELECT 'heap', pg_relation_size(%s::regclass)
)
SELECT what, sum(found.size)::bigint, sum(fresh.size)::bigint
FROM found JOIN fresh USING (what) GROUP BY what ORDER BY what
"""


def simulate(days: int, jobs_per_hour: int, seed: int, step: timedelta) -> Report:
    """So many days on a server of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="streamvibe-month-") as folder,
        running("month", pg18_bin()) as server,
    ):
        with server.connect() as admin:
            # The month passes in minutes, and with it the time between two looks of autovacuum.
            admin.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
            admin.execute("SELECT pg_reload_conf()")
        make_template(server)
        with new_database(server, TEMPLATE) as database:
            return Month(database, Path(folder), days, jobs_per_hour, seed, step).run()


def main() -> int:
    """0 when every promise held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--jobs-per-hour", type=int, default=60)
    parser.add_argument("--step-hours", type=int, default=1, help="by which the clock is moved")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write what happened to this file")
    options = parser.parse_args()
    report = simulate(options.days, options.jobs_per_hour, options.seed, options.step_hours * HOUR)
    shown = {name: value for name, value in asdict(report).items() if name not in ("sizes", "violations")}
    print(json.dumps(shown, indent=1, default=str))
    for violation in report.violations:
        print(f"VIOLATION {violation}", flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(report), indent=1, default=str) + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
