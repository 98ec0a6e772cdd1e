"""How fast the database alone is: the floor under the worker (claim and completion in SQL), and bare rows."""

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from streamvibe.bench.processes import BenchError
from streamvibe.bench.stage import Figure, Stage
from streamvibe.db.embedded import binary

BATCHES = (100, 500)
#: The largest of them by two sessions as well: what both processors can do without a worker.
SESSIONS = 2

#: What a worker sends for each batch, each statement a transaction: the ids travel as they do for a worker.
FLOOR = """
SELECT coalesce(min(c.token), 0) AS token, count(*) AS jobs, coalesce(array_agg(c.job_id), '{}') AS ids
FROM public.claim_jobs('floor' || :client_id, :batch) c \\gset
SELECT count(*) AS refused
FROM public.complete_jobs('floor' || :client_id, array_fill(:token::bigint, ARRAY[:jobs::integer]), :ids::uuid[],
                          array_fill('{"number": 1}'::jsonb, ARRAY[:jobs::integer])) \\gset
"""

#: The same columns, their checks and defaults, and no index but the primary key.
BARE = """
CREATE TABLE public.bench_bare (LIKE public.job_queue INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS);
ALTER TABLE public.bench_bare ADD PRIMARY KEY (id), ALTER created_at SET DEFAULT pg_catalog.clock_timestamp();
"""
COLUMNS = "(user_id, job_type, params)"
INSERT = f"""
INSERT INTO public.bench_bare {COLUMNS}
VALUES ('00000000-0000-4000-8000-000000000001', 'bench.noop', '{{"number": 1, "sent": 0}}');
"""  # noqa: S608 - constants


def floor(stage: Stage) -> list[Figure]:
    """Claim and complete the backlog by pgbench: prepared statements, no Python. One connection; then two at once."""
    largest = max(BATCHES)
    found = [Figure(f"floor_{batch}", _claimed_and_completed(stage, batch, 1), "jobs/s") for batch in BATCHES]
    together = _claimed_and_completed(stage, largest, SESSIONS)
    return [*found, Figure(f"floor_{largest}_{SESSIONS}_sessions", together, "jobs/s")]


def _claimed_and_completed(stage: Stage, batch: int, sessions: int) -> float:
    """Jobs a second, by so many sessions at once, each with batches of its own.

    Beside each other they may find less than a batch, and a job locked by the other's look when they complete it, which
    a worker would try again: what was completed is counted. A session that is alone must leave nothing.
    """
    warm, rounds = 10, max(1, stage.sizes.jobs // batch // sessions)
    with stage.producer() as producer, stage.connect() as conn:
        producer.ask("bulk", count=(rounds + warm) * batch * sessions)
        for number in range(sessions):
            conn.execute("SELECT * FROM heartbeat_worker('floor' || %s, NULL, '1 hour')", [number])
        _pgbench(stage.url, FLOOR, warm, sessions, batch=batch)
        before, _ = _completed_and_left(conn)
        rate = _pgbench(stage.url, FLOOR, rounds, sessions, batch=batch)
        completed, left = _completed_and_left(conn)
    if left and sessions == 1:
        raise BenchError(
            "The floor left jobs unfinished", received=f"{left} jobs", fix="Look at FLOOR in floors.py"
        )
    return rate * (completed - before) / (rounds * sessions)


def _completed_and_left(conn: psycopg.Connection[tuple[Any, ...]]) -> tuple[int, int]:
    """How many jobs are completed, and how many are not."""
    row = conn.execute(
        "SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status <> 'completed')"
        " FROM public.job_queue"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def bare(stage: Stage) -> list[Figure]:
    """Rows into the same table with only its primary key: by COPY, and one INSERT and commit at a time."""
    jobs = stage.sizes.jobs
    with stage.connect() as conn:
        conn.execute(BARE)
        line = b'00000000-0000-4000-8000-000000000001\tbench.noop\t{"number": 1, "sent": 0}\n'
        copy = b"COPY public.bench_bare " + COLUMNS.encode() + b" FROM STDIN"
        begun, rows = time.monotonic(), 0
        while rows < 10 * jobs and time.monotonic() - begun < 2:
            with conn.cursor().copy(copy) as stream:
                stream.write(line * jobs)
            rows += jobs
        copied = rows / (time.monotonic() - begun)
    count = max(100, jobs // 4)
    return [
        Figure("bare_copy", copied, "jobs/s"),
        Figure("bare_insert_1", _pgbench(stage.url, INSERT, count), "jobs/s"),
        Figure("bare_insert_10", _pgbench(stage.url, INSERT, count // 10, clients=10), "jobs/s"),
    ]


def _pgbench(url: str, script: str, transactions: int, clients: int = 1, **variables: int) -> float:
    """Run a script so often on each connection; how often a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.sql"
        path.write_text(script)
        defined = [argument for name, value in variables.items() for argument in ("-D", f"{name}={value}")]
        done = subprocess.run(
            [
                str(binary("pgbench")), "--no-vacuum", "--protocol=prepared", f"--client={clients}",
                f"--transactions={transactions}", f"--file={path}", *defined, url,
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or rate is None:
        error = BenchError("The program pgbench failed", fix="Read what it says below")
        error.add_note((done.stderr or done.stdout)[-2000:])
        raise error
    return float(rate[1])
