"""A queue of a given size in a database of its own, kept between runs; filling it goes on where it stopped.

Two leaves of a week, jobs evenly in both, and one before them that is old enough to go: 100,000 finished jobs, or a
quarter of all. Two log lines a job. Users as they are: the most active has one in ten to twenty jobs, half of all users
have one or none. 92 of 100 jobs of the two leaves are finished. `DATA` names what may be otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from streamvibe.bench.databases import PREFIX, Server
from streamvibe.db.migrate import migrate
from streamvibe.errors import ConfigurationError

SCALES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
LINES_PER_JOB = 2
CHUNK = 100_000
TYPES = ("sync_youtube", "sync_instagram", "sync_tiktok", "report")
WEEK = timedelta(days=7)
#: Changes when what is filled does: a database of another layout is not gone on with.
LAYOUT = "three leaves, one ended"
#: How many jobs the design expects a cleanup to remove.
OLD_JOBS = 100_000
#: What the jobs are like. All but the first are what a queue would rather not hold.
DATA = {
    "mixed": "users as they are",
    "one-user": "every job is one user's",
    "same-time": "all jobs of a leaf were made in the same microsecond",
    "scheduled": "every other job waits for another day, at the highest priority",
    "large-params": "one job in a hundred has params of 100 KB",
}

#: n is the job's place in its leaf; every number in it is drawn from random(), whose seed is set for each chunk.
_JOBS = """
INSERT INTO streamvibe.{leaf} (
    id, created_at, user_id, job_type, status, job_priority, params, result, scheduled_for, started_at, completed_at,
    expires_at, updated_at, retry_at, retry_count, failure_kind, error_message, worker_id, claim_token)
SELECT streamvibe.make_id(streamvibe.microseconds(r.at), (r.key * 9007199254740991)::bigint), r.at, r.user_id,
       r.job_type, r.status, r.priority,
       jsonb_build_object('social_account_id', '@' || (r.key * 1000000)::integer, 'page', r.n %% 50)
       || CASE WHEN %(data)s = 'large-params' AND r.n %% 100 = 0
               THEN (SELECT jsonb_build_object('videos', jsonb_agg(jsonb_build_object(
                                'id', md5(r.n || '.' || v), 'seconds', v)))
                     FROM generate_series(1, 1700) v)
               ELSE '{{}}' END,
       CASE WHEN r.status = 'completed' THEN jsonb_build_object('videos_synced', (r.key * 1000)::integer) END,
       CASE WHEN r.is_scheduled THEN timestamptz '2100-01-01' ELSE r.at END, r.started_at,
       CASE WHEN r.status IN ('completed', 'failed', 'cancelled') THEN r.started_at + r.key * interval '30 s' END,
       r.at + interval '1 day', r.at,
       CASE WHEN r.status = 'failed' AND r.n %% 2 = 0 AND %(finished)s = 1 THEN r.started_at + interval '1 hour' END,
       CASE WHEN r.status = 'failed' THEN 1 + r.n %% 3 ELSE 0 END,
       CASE WHEN r.status = 'failed' THEN 'error' END,
       CASE WHEN r.status = 'failed' THEN 'HTTP 503 from the platform' END,
       CASE WHEN r.status IN ('completed', 'processing') THEN 'worker-1' END,
       CASE WHEN r.status IN ('completed', 'processing') THEN 1 END
FROM (SELECT b.n, b.at, b.key, b.user_id, b.is_scheduled,
             CASE WHEN b.is_scheduled THEN 9 ELSE b.priority END AS priority,
             CASE WHEN b.t < 0.60 THEN 'sync_youtube' WHEN b.t < 0.85 THEN 'sync_instagram'
                  WHEN b.t < 0.97 THEN 'sync_tiktok' ELSE 'report' END AS job_type,
             s.status, CASE WHEN s.status <> 'pending' THEN b.at + b.t * interval '20 s' END AS started_at
      FROM (SELECT n, %(lower)s::timestamptz + %(length)s::interval
                      * CASE WHEN %(data)s = 'same-time' THEN 0.5 ELSE (n - random()) / %(count)s END AS at,
                   random() AS key, random() AS t, random() * %(finished)s AS state,
                   (random() * random() * 9)::smallint AS priority,
                   %(data)s = 'scheduled' AND n %% 2 = 0 AND %(finished)s = 1 AS is_scheduled,
                   ('00000000-0000-4000-8000-'
                    || lpad(to_hex(floor(power(%(users)s, random()))::bigint), 12, '0'))::uuid AS user_id
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n OFFSET 0) b
      CROSS JOIN LATERAL (SELECT CASE WHEN b.is_scheduled THEN 'pending'
                                      WHEN b.state < 0.85 THEN 'completed' WHEN b.state < 0.90 THEN 'failed'
                                      WHEN b.state < 0.92 THEN 'cancelled' WHEN b.state < 0.99 THEN 'pending'
                                      ELSE 'processing' END AS status) s) r
"""
_LINES = """
INSERT INTO streamvibe.{leaf} (id, job_id, user_id, log_level, message, metadata)
SELECT streamvibe.make_id(streamvibe.microseconds(j.created_at) + l.n, hashint8extended(l.n, uuid_hash(j.id))),
       j.id, j.user_id,
       CASE WHEN k.h < 900 THEN 'info' WHEN k.h < 950 THEN 'debug' WHEN k.h < 980 THEN 'warning' ELSE 'error' END,
       CASE WHEN k.h < 900 THEN 'Fetched page ' || k.h || ' of the channel'
            WHEN k.h < 950 THEN 'Quota left: ' || k.h
            WHEN k.h < 980 THEN 'Rate limit reached, waiting for ' || k.h || ' seconds'
            ELSE 'Connection timeout while syncing, error ' || k.h END,
       CASE WHEN k.h %% 3 = 0 THEN jsonb_build_object('code', CASE WHEN k.h >= 950 THEN 'RATE_LIMIT' ELSE 'OK' END,
                                                      'page', k.h) END
FROM streamvibe.{jobs} j
CROSS JOIN generate_series(1, %(lines)s) l(n)
CROSS JOIN LATERAL (SELECT abs(hashint8extended(l.n, uuid_hash(j.id)) %% 1000)::integer AS h) k
"""


@dataclass(frozen=True)
class Filled:
    """A database with so many jobs."""

    url: str
    name: str
    jobs: int


def database_name(scale: str, data: str = "mixed") -> str:
    """Of the database that holds this many jobs of this kind."""
    name = f"{PREFIX}_queries_{scale}"
    return name if data == "mixed" else f"{name}_{data.replace('-', '_')}"


def drop(server: Server, scale: str, data: str) -> None:
    """Drop that database."""
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(database_name(scale, data))
            )
        )


def fill(server: Server, scale: str, data: str, progress: Callable[[int], None]) -> Filled:
    """The database of this scale and data, filled if need be. ``progress`` is told how many jobs were added."""
    name, jobs = database_name(scale, data), SCALES[scale]
    with psycopg.connect(server.url, autocommit=True) as conn:
        if conn.execute("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", [name]).fetchone() is None:
            conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    url = urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
    migrate(url)
    with psycopg.connect(url, autocommit=True) as conn:
        _fill(conn, jobs, data, progress)
    return Filled(url, name, jobs)


def _fill(conn: psycopg.Connection[Any], jobs: int, data: str, progress: Callable[[int], None]) -> None:
    conn.execute("CREATE SCHEMA IF NOT EXISTS bench")
    conn.execute(
        "CREATE TABLE IF NOT EXISTS bench.filled (step text PRIMARY KEY, at timestamptz DEFAULT now())"
    )
    done = dict(conn.execute("SELECT step, at FROM bench.filled").fetchall())
    if any(step.endswith(("leaf 0", "leaf 1")) and not step.startswith(LAYOUT) for step in done):
        raise ConfigurationError(
            "the database was filled by another version, with other jobs",
            field="--scale",
            received=conn.info.dbname,
            fix="Drop it with --drop, and run this again",
        )
    conn.execute("SET maintenance_work_mem = '1GB'")
    conn.execute("SET synchronous_commit = off")
    for name in TYPES:
        conn.execute("SELECT public.register_job_type(%s)", [name])
    if "leaves" not in done:
        with conn.transaction():
            # This week's leaves were made by the migration, empty, and with indexes: they are filled like those before.
            rows = conn.execute(
                "DELETE FROM streamvibe.partition p"
                " WHERE p.lower_at = (SELECT min(f.lower_at) FROM streamvibe.partition f)"
                " RETURNING p.partition_name, p.lower_at"
            ).fetchall()
            for name, lower in rows:
                conn.execute(sql.SQL("DROP TABLE streamvibe.{}").format(sql.Identifier(name)))
                done["leaves"] = lower
            conn.execute("INSERT INTO bench.filled VALUES ('leaves', %s)", [done["leaves"]])
    [now] = conn.execute("SELECT streamvibe.now()").fetchone() or (None,)
    first = done["leaves"]
    old = min(OLD_JOBS, jobs // 4)
    for place, (lower, share) in enumerate(
        ((first - 2 * WEEK, old), (first - WEEK, (jobs - old) // 2), (first, jobs - old - (jobs - old) // 2))
    ):
        step = f"{LAYOUT}: leaf {place}"
        if step in done:
            progress(share)
            continue
        drawn = {
            "data": data,
            "users": 1 if data == "one-user" else users(jobs),
            "finished": 0.92 if place == 0 else 1,
        }
        with conn.transaction():
            _leaf(conn, lower, min(WEEK, now - lower), share, jobs, place, drawn, progress)
            conn.execute("INSERT INTO bench.filled VALUES (%s)", [step])
    if "sums by leaf" not in done:
        conn.execute("VACUUM (ANALYZE, PARALLEL 0) public.job_queue, public.job_log")
        with conn.transaction():
            conn.execute("SELECT public.recount_stats()")
            conn.execute("INSERT INTO bench.filled VALUES ('sums by leaf')")
        while conn.execute("SELECT public.compact_stats()").fetchone() != (0,):
            pass
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")


def _leaf(
    conn: psycopg.Connection[Any],
    lower: datetime,
    length: timedelta,
    count: int,
    jobs: int,
    place: int,
    drawn: dict[str, object],
    progress: Callable[[int], None],
) -> None:
    names = {parent: f"{parent}_{lower:%Y%m%d}" for parent in ("job_queue", "job_log")}
    for parent, name in names.items():
        conn.execute("SELECT streamvibe.make_leaf(%s, %s)", [parent, name])
    leaves = {"leaf": sql.Identifier(names["job_queue"])}
    for start in range(1, count + 1, CHUNK):
        conn.execute("SELECT setseed(%s)", [(start + place * jobs) / (4 * jobs)])
        conn.execute(
            sql.SQL(_JOBS).format(**leaves),
            {
                "lower": lower,
                "length": length,
                "count": count,
                "first": start,
                "last": min(start + CHUNK - 1, count),
                **drawn,
            },
        )
        progress(min(CHUNK, count - start + 1))
    conn.execute(
        sql.SQL(_LINES).format(
            leaf=sql.Identifier(names["job_log"]), jobs=sql.Identifier(names["job_queue"])
        ),
        {"lines": LINES_PER_JOB},
    )
    for parent, name in names.items():
        conn.execute("SELECT streamvibe.attach_leaf(%s, %s, %s, %s)", [parent, name, lower, lower + WEEK])


def users(jobs: int) -> int:
    """How many users have jobs."""
    return max(1000, jobs // 100)


def size(conn: psycopg.Connection[Any]) -> dict[str, int]:
    """Jobs, lines, and bytes on disk."""
    row = conn.execute(
        "SELECT (SELECT count(*) FROM public.job_queue), (SELECT count(*) FROM public.job_log),"
        " pg_catalog.pg_database_size(pg_catalog.current_database())"
    ).fetchone()
    assert row is not None
    return dict(zip(("jobs", "lines", "bytes"), row, strict=True))
