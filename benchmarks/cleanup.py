"""Removing 100,000 finished jobs, by a dropped leaf and by deletion in batches: the figures behind "cleanup".

    .venv/bin/python -m benchmarks.cleanup [--jobs 100000] [--rounds 7] [--write]

Each round makes databases on the embedded server, with commits that are durable, for the ways in turn. A leaf of
the past is full of jobs that ended, vacuumed, analyzed and in the statistics; then maintenance's own statements remove
them, each in a transaction of its own: once alone, and once while another connection asks for a job, and starts and
completes it, again and again. The longest of its calls is what others wait. `--write` keeps the figures in
benchmarks/results/cleanup.json.
"""

import argparse
import json
import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from streamvibe.bench.databases import Server
from streamvibe.bench.machine import machine, versions
from streamvibe.maintenance import DUTIES

RESULT = Path(__file__).parent / "results" / "cleanup.json"
DUTY = {duty.name: duty for duty in DUTIES}
TARGET_MS = 500

# 85 of 92 completed, 5 failed, 2 cancelled, as in the queues of `bench queries`; params and results of some 60 bytes.
FILL = """
INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type, status, params, result, scheduled_for, started_at,
                               completed_at, updated_at, retry_count, worker_id, claim_token)
SELECT streamvibe.make_id(streamvibe.microseconds(j.at), hashint8extended(j.n, 1)), j.at,
       ('00000000-0000-4000-8000-' || lpad(to_hex((j.n * 7919) %% 2000), 12, '0'))::uuid, %(job_type)s, j.status,
       jsonb_build_object('social_account_id', md5(j.n::text)),
       CASE WHEN j.status = 'completed' THEN jsonb_build_object('videos_synced', j.n %% 500, 'pages', j.n %% 10) END,
       j.at, CASE WHEN j.status <> 'cancelled' THEN j.at + interval '1 second' END,
       j.at + (j.n %% 20 + 2) * interval '1 second', j.at, 0,
       CASE WHEN j.status = 'completed' THEN 'worker-1' END, CASE WHEN j.status = 'completed' THEN 1 END
FROM (SELECT n, %(lower)s::timestamptz + n * (interval '6 days' / %(jobs)s) AS at,
             CASE WHEN n %% 92 < 85 THEN 'completed' WHEN n %% 92 < 90 THEN 'failed' ELSE 'cancelled' END AS status
      FROM generate_series(1, %(jobs)s) n) j
"""
LAST_WEEK = (
    "SELECT min(lower_at) - %s * interval '7 days' FROM streamvibe.partition WHERE parent_name = 'job_queue'"
)


def fill(conn: Connection[Any], jobs: int, *, weeks: int, retention: str) -> str:
    """A leaf of so many weeks ago, full of finished jobs of a type with this retention; its name."""
    conn.execute(
        "SELECT register_job_type('other'), register_job_type('done', p_retention => %s)", [retention]
    )
    row = conn.execute(LAST_WEEK.encode(), [weeks]).fetchone()
    assert row is not None
    lower = row[0]
    leaf = f"job_queue_{lower:%Y%m%d}"
    conn.execute("SELECT streamvibe.make_leaf('job_queue', %s)", [leaf])
    conn.execute(FILL.format(leaf=leaf).encode(), {"lower": lower, "jobs": jobs, "job_type": "done"})
    conn.execute(
        "SELECT streamvibe.attach_leaf('job_queue', %s, %s, %s + interval '7 days')", [leaf, lower, lower]
    )
    conn.execute(f"VACUUM (FREEZE, ANALYZE) streamvibe.{leaf}".encode())
    conn.execute("SELECT * FROM recount_stats()")
    # As maintenance does, every five seconds.
    while conn.execute("SELECT compact_stats()").fetchone() != (0,):
        pass
    conn.execute("VACUUM streamvibe.stat_delta, streamvibe.stat, streamvibe.stat_sketch")
    conn.execute("CHECKPOINT")
    return leaf


class Bystander:
    """Asks for jobs and does them on a connection of its own while something else goes on."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)
        self._conn.execute("SELECT * FROM heartbeat_worker('bystander', ARRAY['other'], '1 hour')")
        self._over = threading.Event()
        self.calls: list[float] = []
        for _ in range(20):  # plans are made, pages are there
            self._one()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Call all the time."""
        self.calls.clear()
        self._over.clear()
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self._one()

    def _one(self) -> None:
        for statement in (
            b"SELECT * FROM request_job(gen_random_uuid(), 'other', '{}')",
            b"SELECT complete_jobs('bystander', ARRAY[c.token], ARRAY[c.job_id], ARRAY['{}'::jsonb])"
            b" FROM claim_jobs('bystander', 1) c",
        ):
            self.calls.append(milliseconds(self._conn, statement))

    def close(self) -> None:
        self._conn.close()


def milliseconds(conn: Connection[Any], statement: bytes, *values: Any) -> float:
    """How long a statement takes, in a transaction of its own."""
    started = time.perf_counter()
    conn.execute(statement, values)
    return round((time.perf_counter() - started) * 1000, 2)


def processor_ms(conn: Connection[Any]) -> float:
    """The processor time that this connection's server process has taken: the same on a busy machine."""
    return int(Path(f"/proc/{conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1e6


def wal(conn: Connection[Any]) -> int:
    """Where the WAL ends, in bytes."""
    row = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


def by_leaf(conn: Connection[Any], leaf: str) -> list[tuple[str, float]]:
    """The duty drop_old_partitions, statement by statement, by the names of the functions they call."""
    duty = DUTY["drop_old_partitions"]
    took = [(_function(duty.sql), milliseconds(conn, duty.sql.encode()))]
    for step in duty.steps:
        took.append((_function(step), milliseconds(conn, step.encode(), leaf)))
    return took


def by_batch(conn: Connection[Any], leaf: str) -> list[tuple[str, float]]:
    """The duty cleanup_old_jobs, as often as it finds something."""
    duty = DUTY["cleanup_old_jobs"]
    took = []
    done = 1
    while done:
        started = time.perf_counter()
        row = conn.execute(duty.sql.encode()).fetchone()
        took.append((_function(duty.sql), (time.perf_counter() - started) * 1000))
        assert row is not None
        done = row[0]
    return took


def _function(sql: str) -> str:
    return str(re.findall(r"(\w+)\(", sql.replace("EXISTS (", ""))[0])


WAYS = {
    # Long enough ago that its retention is over for the whole leaf.
    "dropped leaf": (by_leaf, 2, "7 days"),
    # Not old for its leaf: another type's jobs stay longer.
    "batch delete": (by_batch, 1, "1 hour"),
}


def one_round(server: Server, way: str, jobs: int, *, watched: bool) -> dict[str, float | dict[str, float]]:
    """Fill, remove, and check that all is gone and counted. watched: beside others, whose calls are timed.

    Times are in milliseconds.
    """
    remove, weeks, retention = WAYS[way]
    with (
        server.database(f"cleanup {way}", migrated=True) as url,
        psycopg.connect(url, autocommit=True) as conn,
    ):
        leaf = fill(conn, jobs, weeks=weeks, retention=retention)
        found: dict[str, float | dict[str, float]]
        if watched:
            bystander = Bystander(url)
            with bystander.watching():
                time.sleep(1)
            undisturbed = list(bystander.calls)
            with bystander.watching():
                took = remove(conn, leaf)
            found = {
                "total_ms": total(took),
                "others_p50_ms": round(statistics.median(bystander.calls), 2),
                "others_longest_ms": round(max(bystander.calls), 1),
                "others_p50_undisturbed_ms": round(statistics.median(undisturbed), 2),
                "others_longest_undisturbed_ms": round(max(undisturbed), 1),
            }
            bystander.close()
        else:
            before, worked = wal(conn), processor_ms(conn)
            took = remove(conn, leaf)
            worked = processor_ms(conn) - worked
            steps = {name: total([one for one in took if one[0] == name]) for name, _ in took}
            found = {
                "total_ms": total(took),
                "longest_transaction_ms": round(max(one for _, one in took), 1),
                "processor_ms": round(worked, 1),
                "transactions": len(took),
                "steps_ms": steps,
                "wal_bytes_per_job": round((wal(conn) - before) / jobs, 1),
                "compact_stats_afterwards_ms": milliseconds(conn, b"SELECT compact_stats(10000)"),
                "vacuum_afterwards_ms": milliseconds(conn, f"VACUUM streamvibe.{leaf}".encode())
                if remove is by_batch
                else 0.0,
            }
        left = conn.execute("SELECT count(*) FROM job_queue WHERE job_type = 'done'").fetchone()
        assert left == (0,), f"{left} jobs are left"
        wrong = conn.execute("SELECT * FROM recount_stats()").fetchall()
        assert wrong == [], wrong
    return found


def total(took: Sequence[tuple[str, float]]) -> float:
    """Added up."""
    return round(sum(one for _, one in took), 1)


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure, or of each of its steps, the median."""
    return {
        name: medians([one[name] for one in rounds])
        if isinstance(value, dict)
        else round(statistics.median(one[name] for one in rounds), 2)
        for name, value in rounds[0].items()
    }


def main() -> int:
    """Print the medians."""
    parser = argparse.ArgumentParser(description="Removing finished jobs: by a dropped leaf, and in batches.")
    parser.add_argument("--jobs", type=int, default=100_000, help="finished jobs (default: 100000)")
    parser.add_argument("--rounds", type=int, default=7, help="of each way, of which the median counts")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    arguments = parser.parse_args()
    server = Server()
    about = {**machine(), "postgres": server.settings()}
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {
        way: {"alone": [], "beside others": []} for way in WAYS
    }
    for number in range(arguments.rounds):
        for way, found in rounds.items():
            for beside, kept in found.items():
                kept.append(one_round(server, way, arguments.jobs, watched=beside != "alone"))
                print(f"{number + 1}. {way}, {beside}: {kept[-1]}", file=sys.stderr)
    document = {
        "machine": about,
        "versions": versions(),
        "jobs": arguments.jobs,
        "target_ms": TARGET_MS,
        "batch": DUTY["cleanup_old_jobs"].sql,
        "medians": {
            way: {beside: medians(kept) for beside, kept in found.items()} for way, found in rounds.items()
        },
        "rounds": rounds,
    }
    print(json.dumps(document["medians"], indent=1))
    if arguments.write:
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
        print(f"Wrote {RESULT.relative_to(Path(__file__).parents[1])}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
