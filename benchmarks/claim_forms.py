"""Two ways to claim without writing the job's row, beside each other: the committed list that we have, and a held lock.

    .venv/bin/python -m benchmarks.claim_forms [--jobs 20000] [--runs 3] [--json benchmarks/results/claim-forms.json]

- **committed list**: ``claim_jobs`` locks jobs, commits their ids and a token as one row, and holds nothing;
  ``complete_jobs`` checks the token. Two transactions a batch, on one connection.
- **held lock**: jobs stay locked in an open transaction, in which they are completed in the end; before any handler may
  start, their ids and a token are committed to the worker's row on another connection. Two transactions as well.

Both look for jobs with the same functions (``due_priorities``, ``pickup_order``, ``lock_due_jobs``), write the same
columns and note the same statistics; no handler runs. Every cell has a database of its own, and the two take turns.
"""

import argparse
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from streamvibe.bench.databases import Server
from streamvibe.bench.machine import machine, versions

FORMS = ("committed list", "held lock")
#: What a held lock needs beside our schema.
HELD = """
CREATE SCHEMA bench;
CREATE TABLE bench.worker (id text PRIMARY KEY, token bigint NOT NULL, ids uuid[] NOT NULL) WITH (fillfactor = 50);
CREATE SEQUENCE bench.token;

CREATE FUNCTION bench.hold(p_limit integer) RETURNS text
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
    v_below uuid := streamvibe.id_floor(v_now + interval '1 minute');
    v_types text[] := ARRAY(SELECT t.name FROM streamvibe.job_type t WHERE t.name = 'bench.noop');
    v_step record;
    v_ids uuid[] := '{}';
BEGIN
    FOR v_step IN SELECT o.* FROM streamvibe.pickup_order(
            streamvibe.due_priorities(v_types, v_now, v_below), false, v_now, NULL, NULL) o LOOP
        v_ids := v_ids || ARRAY(SELECT d.id FROM streamvibe.lock_due_jobs(
            v_types, v_step.lows, v_step.highs, p_limit - cardinality(v_ids), true, v_ids, v_now, v_below) d);
        EXIT WHEN cardinality(v_ids) >= p_limit;
    END LOOP;
    -- The worker is given what it is given by a claim.
    PERFORM q.params, q.user_id, q.retry_count, t.timeout FROM unnest(v_ids) u(id)
    CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    JOIN streamvibe.job_type t ON t.name = q.job_type;
    RETURN v_ids::text;
END
$$;

CREATE FUNCTION bench.finish(p_worker_id text, p_token bigint, p_job_ids uuid[], p_results jsonb[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_nestloop = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
    v_ids uuid[] := ARRAY(SELECT unnest(p_job_ids) ORDER BY 1);
BEGIN
    PERFORM FROM unnest(p_results) r(result)
    WHERE streamvibe.has_wild_number(r.result) OR octet_length(r.result::text) > 1048576;
    WITH done AS (
        UPDATE public.job_queue q
        SET status = 'completed', result = r.result, completed_at = v_now, updated_at = v_now, worker_id = p_worker_id,
            claim_token = p_token, isolated = false, failure_kind = NULL, error_message = NULL,
            progress = CASE WHEN q.progress IS NOT NULL THEN 1 END, started_at = coalesce(q.started_at, v_now)
        FROM unnest(p_job_ids, p_results) r(job_id, result)
        WHERE q.id = r.job_id AND coalesce(q.status, '') IN ('pending', 'processing') AND q.id = ANY (v_ids)
          AND q.id BETWEEN v_ids[1] AND v_ids[cardinality(v_ids)]
        RETURNING q.id, q.job_type, q.created_at, q.scheduled_for, q.started_at
    )
    INSERT INTO streamvibe.stat_delta (job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
    SELECT d.job_type, 'pending', streamvibe.minute_of(d.created_at), -count(*), NULL, NULL, NULL, NULL
    FROM done d GROUP BY d.job_type, streamvibe.minute_of(d.created_at)
    UNION ALL
    SELECT d.job_type, 'completed', streamvibe.minute_of(v_now), count(*),
           sum(streamvibe.duration_us(d.scheduled_for, d.started_at)),
           sum(streamvibe.duration_us(d.started_at, v_now)),
           array_agg(streamvibe.sketch_bucket(d.scheduled_for, d.started_at)),
           array_agg(streamvibe.sketch_bucket(d.started_at, v_now))
    FROM done d GROUP BY d.job_type;
END
$$;
"""
CLAIM = """
SELECT coalesce(min(c.token), 0), count(*), coalesce(array_agg(c.job_id), '{}')::text FROM public.claim_jobs(%s, %s) c
"""
COMPLETE = """
SELECT coalesce(array_agg(c.job_id), '{}')::text, count(*)
FROM public.complete_jobs(%s, array_fill(%s::bigint, ARRAY[%s::integer]), %s::uuid[],
                          array_fill('{"number": 1}'::jsonb, ARRAY[%s::integer])) c
"""
NOTE = (
    "UPDATE bench.worker SET token = nextval('bench.token'), ids = %s::uuid[] WHERE id = %s RETURNING token"
)
FINISH = """
SELECT bench.finish(%s, %s, %s::uuid[], array_fill('{"number": 1}'::jsonb, ARRAY[cardinality(%s::uuid[])]))
"""


def committed_list(url: str, name: str, batch: int, gate: Any) -> None:
    """One worker, until there is nothing left."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SELECT public.heartbeat_worker(%s, NULL, '1 hour')", [name])
        gate.wait()
        while True:
            [token, count, ids] = conn.execute(CLAIM.encode(), [name, batch], prepare=True).fetchone() or (
                0,
                0,
                "",
            )
            if not count:
                return
            while count:  # busy: another worker's claim has locked them for a moment, and lets them go
                given = [name, token, count, ids, count]
                [ids, count] = conn.execute(COMPLETE.encode(), given, prepare=True).fetchone() or ("{}", 0)


def held_lock(url: str, name: str, batch: int, gate: Any) -> None:
    """The same."""
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as other:
        conn.execute("INSERT INTO bench.worker VALUES (%s, 0, '{}')", [name])
        gate.wait()
        while True:
            with conn.transaction():
                [ids] = conn.execute("SELECT bench.hold(%s)", [batch], prepare=True).fetchone() or ("{}",)
                if ids == "{}":
                    return
                [token] = other.execute(NOTE.encode(), [ids, name], prepare=True).fetchone() or (0,)
                conn.execute(FINISH.encode(), [name, token, ids, ids], prepare=True)


def measured(url: str, form: str, workers: int, batch: int) -> float:
    """Jobs per second: from the moment when all workers are connected to the end of the last one."""
    run = committed_list if form == FORMS[0] else held_lock
    gate = multiprocessing.get_context("spawn").Barrier(workers + 1)
    processes = [
        multiprocessing.get_context("spawn").Process(target=run, args=(url, f"worker-{n}", batch, gate))
        for n in range(workers)
    ]
    for process in processes:
        process.start()
    gate.wait()
    begun = time.monotonic()
    for process in processes:
        process.join()
    took = time.monotonic() - begun
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"a worker of the form {form!r} failed: see above")
    with psycopg.connect(url) as conn:
        [jobs, left] = conn.execute(
            "SELECT count(*), count(*) FILTER (WHERE status <> 'completed') FROM public.job_queue"
        ).fetchone() or (0, 0)
    if left or not jobs:
        raise RuntimeError(f"{left} of {jobs} jobs were not completed")
    return float(jobs) / took


@contextmanager
def queue(server: Server, jobs: int, leaves: int) -> Iterator[str]:
    """A database with so many jobs of 2,000 users, and so many leaves that a claim looks at; all but one are empty."""
    with server.database("claim forms", migrated=True) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(HELD.encode())
            conn.execute("SELECT public.register_job_type('bench.noop')")
            conn.execute(
                "SELECT streamvibe.make_leaf('job_queue', n.name),"
                "       streamvibe.attach_leaf('job_queue', n.name, n.at, n.at + interval '7 days')"
                " FROM (SELECT p.lower_at - w * interval '7 days' AS at,"
                "              'job_queue_' || to_char(p.lower_at - w * interval '7 days', 'YYYYMMDD') AS name"
                "       FROM (SELECT min(lower_at) AS lower_at FROM streamvibe.partition"
                "             WHERE parent_name = 'job_queue') p, generate_series(1, %s) w OFFSET 0) n",
                [leaves - 1],
            )
            for first in range(0, jobs, 1000):
                conn.execute(
                    "SELECT count(*) FROM public.create_jobs((SELECT jsonb_agg(jsonb_build_object("
                    " 'user_id', ('00000000-0000-4000-8000-' || lpad((n %% 2000)::text, 12, '0')),"
                    " 'job_type', 'bench.noop', 'params', jsonb_build_object('number', n)))"
                    " FROM generate_series(%s::integer, %s::integer) n))",
                    [first, min(first + 1000, jobs) - 1],
                )
            conn.execute("CHECKPOINT")
        yield url


def main() -> None:
    """Measure all cells, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Claims by a committed list and by a held lock.")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    server = Server()
    settings = server.settings()
    about = machine()
    found: dict[tuple[int, int, int, str], list[float]] = {}
    cells = list(itertools.product((3, 12), (1, 4), (100, 500)))
    for _ in range(given.runs):
        for (leaves, workers, batch), form in itertools.product(cells, FORMS):
            with queue(server, given.jobs, leaves) as url:
                found.setdefault((leaves, workers, batch, form), []).append(
                    measured(url, form, workers, batch)
                )
    rows = [
        {
            "leaves": leaves,
            "workers": workers,
            "batch": batch,
            **{form: round(statistics.median(found[leaves, workers, batch, form])) for form in FORMS},
            "held by committed": round(
                statistics.median(found[leaves, workers, batch, FORMS[1]])
                / statistics.median(found[leaves, workers, batch, FORMS[0]]),
                2,
            ),
            "runs": {form: [round(rate) for rate in found[leaves, workers, batch, form]] for form in FORMS},
        }
        for leaves, workers, batch in cells
    ]
    for row in rows:
        print(
            f"{row['leaves']:3} leaves, {row['workers']} workers, batch {row['batch']}: "
            f"committed list {row[FORMS[0]]:6,} jobs/s, held lock {row[FORMS[1]]:6,}, {row['held by committed']} times"
        )
    if given.json:
        document = {
            "machine": {**about, "postgres": settings},
            "versions": versions(),
            "jobs": given.jobs,
            "rows": rows,
        }
        given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
