"""What was counted before an upgrade is counted after it, at every step of it."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.sql import kit
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe.db.migrate import migrate
from streamvibe.db.migrate_files import SQL_ROOT

HOURS = (0, 1, 5, 23, 24, 49)
# Four a step: one pending and three completed, whose waiting and processing times fall into these buckets.
WAITED, PROCESSED = [10, 10, 500], [-20, 3, 3]


SKETCH = """
SELECT measure, bucket, sum(jobs)::bigint FROM {} GROUP BY 1, 2 ORDER BY 1, 2
"""

OF_ALL_TIME = """
(SELECT g.measure, b.bucket, b.jobs
 FROM (SELECT DISTINCT measure, bucket_group FROM streamvibe.sketch_groups('{0}')) g,
      LATERAL streamvibe.sketch_total('{0}', g.measure, g.bucket_group) b) k
"""

LINT = (SQL_ROOT / "lints" / "statistics_wrong.sql").read_bytes()

# Of the release before, what must not run on the tables of this one.
OLD = (
    "public.compact_stats(integer)",
    "public.recount_stats()",
    "streamvibe.count_partition(text)",
    "streamvibe.drop_partition(text, interval)",
)


def with_old_functions(conn: Connection[Any]) -> None:
    """Stand-ins: whether they are still there is all that is looked at."""
    for name in OLD:
        conn.execute(f"CREATE OR REPLACE FUNCTION {name} RETURNS integer LANGUAGE sql AS 'SELECT 1'".encode())


def migrate_to(database: Database, root: Path, number: int) -> None:
    """Everything up to this migration, and no function: what is there before a release's functions come."""
    (root / "migrations").mkdir(parents=True, exist_ok=True)
    for file in (SQL_ROOT / "migrations").glob("*.sql"):
        if int(file.name[:4]) <= number:
            shutil.copy(file, root / "migrations")
    migrate(database.dsn, root=root)


def make_past(conn: Connection[Any]) -> datetime:
    """A leaf of three weeks ago and its jobs, as they were made and added up before sums knew days; its begin."""
    [(lower,)] = conn.execute(
        "SELECT date_bin('7 days', now() - interval '21 days', '2024-01-01 00:00+00')"
    ).fetchall()
    bounds = [lower, lower + timedelta(days=7)]
    conn.execute(
        "INSERT INTO streamvibe.partition (parent_name, lower_at, upper_at, upper_id, partition_name)"
        " VALUES ('job_queue', %s, %s, streamvibe.id_floor(%s), 'job_queue_past')",
        [*bounds, bounds[1]],
    )
    floors = conn.execute("SELECT streamvibe.id_floor(%s), streamvibe.id_floor(%s)", bounds).fetchone()
    conn.execute(
        "CREATE TABLE streamvibe.job_queue_past PARTITION OF public.job_queue"
        " FOR VALUES FROM ('{}') TO ('{}')".format(*(floors or ())).encode()
    )
    for hour in HOURS:
        at = lower + timedelta(hours=hour)
        statuses = ["pending", *["completed"] * 3]
        conn.execute(
            "INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, scheduled_for, started_at,"
            " completed_at, updated_at, expires_at)"
            " SELECT streamvibe.make_id(streamvibe.microseconds(%(at)s) + n, n), %(at)s, %(user)s, 'email', status,"
            " %(at)s, CASE WHEN status = 'completed' THEN %(at)s + wait END,"
            " CASE WHEN status = 'completed' THEN %(at)s + wait + took END, %(at)s, %(at)s + interval '1 year'"
            " FROM (SELECT n, status, make_interval(secs => streamvibe.sketch_seconds(w::smallint)) AS wait,"
            " make_interval(secs => streamvibe.sketch_seconds(p::smallint)) AS took"
            " FROM unnest(%(statuses)s::text[], %(waited)s::int[], %(processed)s::int[])"
            " WITH ORDINALITY u(status, w, p, n)) j",
            {
                "at": at,
                "user": uuid4(),
                "statuses": statuses,
                "waited": [0, *WAITED],
                "processed": [0, *PROCESSED],
            },
        )
    return lower  # type: ignore[no-any-return]


def add_up(conn: Connection[Any]) -> None:
    """Put what there is into the sums, as the releases before days and leaves did."""
    conn.execute(
        "WITH counted AS (SELECT job_type, status, streamvibe.minute_of(coalesce(completed_at, created_at)) AS minute,"
        " coalesce(streamvibe.duration_us(scheduled_for, started_at), 0) AS waiting_us,"
        " coalesce(streamvibe.duration_us(started_at, completed_at), 0) AS processing_us"
        " FROM public.job_queue)"
        " INSERT INTO streamvibe.stat (minutes, job_type, status, since, jobs, waiting_us, processing_us)"
        " SELECT w, job_type, status, CASE w WHEN 0 THEN 'epoch'"
        " ELSE date_bin(w * interval '1 minute', minute, '2000-01-01 00:00+00') END, count(*), sum(waiting_us),"
        " sum(processing_us) FROM counted, unnest('{0,1,60}'::smallint[]) w GROUP BY 1, 2, 3, 4"
    )
    conn.execute(
        "WITH counted AS (SELECT job_type, date_bin('1 hour', completed_at, '2000-01-01 00:00+00') AS hour, m.*"
        " FROM public.job_queue, LATERAL (VALUES ('waiting', streamvibe.sketch_bucket(scheduled_for, started_at)),"
        " ('processing', streamvibe.sketch_bucket(started_at, completed_at))) m(measure, bucket)"
        " WHERE status = 'completed')"
        " INSERT INTO streamvibe.stat_sketch (minutes, job_type, since, measure, bucket, jobs)"
        " SELECT w, job_type, CASE w WHEN 0 THEN 'epoch' ELSE hour END, measure, bucket, count(*)"
        " FROM counted, unnest('{0,60}'::smallint[]) w GROUP BY 1, 2, 3, 4, 5"
    )


def note_a_dropped_leaf(conn: Connection[Any], lower: datetime) -> None:
    """Three completed jobs and a cancelled one of a leaf that is gone: in the sums, and noted to be taken from them."""
    minute = lower + timedelta(minutes=7)
    for status, jobs, us in (("completed", 3, 10), ("cancelled", 1, 0)):
        conn.execute(
            "INSERT INTO streamvibe.stat AS s (minutes, job_type, status, since, jobs, waiting_us, processing_us)"
            " SELECT w, 'email', %(status)s, CASE w WHEN 0 THEN 'epoch'"
            " ELSE date_bin(w * interval '1 minute', %(minute)s, '2000-01-01 00:00+00') END, %(jobs)s, %(us)s, %(us)s"
            " FROM unnest('{0,1,60,1440}'::smallint[]) w"
            " ON CONFLICT (minutes, since, job_type, status) DO UPDATE SET jobs = s.jobs + excluded.jobs,"
            " waiting_us = s.waiting_us + excluded.waiting_us,"
            " processing_us = s.processing_us + excluded.processing_us",
            {"status": status, "minute": minute, "jobs": jobs, "us": us},
        )
        conn.execute(
            "INSERT INTO streamvibe.leaf_stat (leaf_number, job_type, status, minutes, jobs, waiting_us, processing_us)"
            " VALUES (777, 'email', %s, ARRAY[%s::timestamptz], ARRAY[-%s::int], ARRAY[-%s::bigint],"
            " ARRAY[-%s::bigint])",
            [status, minute, jobs, us, us],
        )
    buckets = [10, 10, 600]
    conn.execute(
        "INSERT INTO streamvibe.stat_sketch AS s (minutes, job_type, since, measure, bucket, jobs)"
        " SELECT w, 'email', CASE w WHEN 0 THEN 'epoch' ELSE %s::timestamptz END, m, b, count(*)"
        " FROM unnest('{0,60}'::smallint[]) w, unnest('{waiting,processing}'::text[]) m, unnest(%s::smallint[]) b"
        " GROUP BY 1, 2, 3, 4, 5 ON CONFLICT (minutes, since, job_type, measure, bucket)"
        " DO UPDATE SET jobs = s.jobs + excluded.jobs",
        [lower, buckets],
    )
    conn.execute(
        "INSERT INTO streamvibe.leaf_sketch (leaf_number, job_type, hour, waited, processed)"
        " VALUES (777, 'email', %s, %s, %s)",
        [lower, buckets, buckets],
    )
    conn.execute("INSERT INTO streamvibe.dropped_leaf (leaf_number) VALUES (777)")


def test_sums_of_every_release(empty_database: Database, tmp_path: Path) -> None:
    """Hours become days, and what knew no leaf says the same; the first leaf that is dropped takes its jobs with it."""
    with empty_database.connect() as conn:
        migrate_to(empty_database, tmp_path, 20)
        lower = make_past(conn)
        add_up(conn)
        by_day = (
            "SELECT date_trunc('day', coalesce(completed_at, created_at), 'UTC'), status, count(*)"
            " FROM public.job_queue GROUP BY 1, 2 ORDER BY 1, 2"
        )
        days = conn.execute(by_day).fetchall()
        assert len({day for day, *_ in days}) == 3

        with_old_functions(conn)
        migrate_to(empty_database, tmp_path, 21)
        assert kit.value(conn, "SELECT to_regproc('public.compact_stats')") is None
        kept = (
            "SELECT since, status, sum(jobs)::bigint FROM streamvibe.stat WHERE minutes = 1440"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )
        assert conn.execute(kept).fetchall() == days

        note_a_dropped_leaf(conn, lower)
        with_old_functions(conn)
        migrate_to(empty_database, tmp_path, 22)
        assert conn.execute(kept).fetchall() == days
        # Functions come in a transaction of their own: until then nobody adds up, or drops leaves.
        for name in OLD:
            assert kit.value(conn, "SELECT to_regproc(%s)", name.partition("(")[0]) is None

        migrate(empty_database.dsn)
        with empty_database.as_service() as service:
            kit.register(service)
            for kept in (OF_ALL_TIME.format(""), OF_ALL_TIME.format("email"), "streamvibe.sketch_now"):
                assert conn.execute(SKETCH.format(kept).encode()).fetchall() == [
                    (measure, bucket, buckets.count(bucket) * len(HOURS))
                    for measure, buckets in (("processing", PROCESSED), ("waiting", WAITED))
                    for bucket in sorted(set(buckets))
                ]
            assert conn.execute(LINT).fetchall() == []
            # Those that are there and the four that left.
            assert {"metric": "created", "labels": ["email"], "value": len(HOURS) * 4 + 4} in kit.call(
                service, "get_job_queue_metrics"
            )
            conn.execute(
                "UPDATE public.job_queue SET status = 'cancelled', completed_at = created_at WHERE status = 'pending'"
            )
            [change, other] = kit.call(service, "recount_stats")
            # Nothing but what was changed by hand was wrong.
            assert (change["status"], change["jobs_before"], change["jobs_now"]) == (
                "cancelled",
                0,
                len(HOURS),
            )
            assert (other["status"], other["jobs_before"], other["jobs_now"]) == ("pending", len(HOURS), 0)


def test_an_upgrade_beside_others(empty_database: Database, tmp_path: Path) -> None:
    """It waits for who counts a leaf, and for who writes and reads, in whatever order, and is not in their way; a leaf
    that was counted for the release before is not dropped by it any more.
    """
    migrate_to(empty_database, tmp_path, 20)
    with empty_database.connect() as conn:
        make_past(conn)
        conn.execute("UPDATE streamvibe.partition SET sealed_at = now(), row_count = 24")
    migrate_to(empty_database, tmp_path, 21)
    with (
        empty_database.connect() as counter,
        empty_database.connect() as writer,
        empty_database.connect() as reader,
        empty_database.connect() as dropper,
        ThreadPoolExecutor(1) as thread,
    ):
        for conn in (writer, reader):
            conn.execute("SET lock_timeout = '2s'")
        counter.execute("BEGIN")
        counter.execute("SELECT FROM streamvibe.partition FOR UPDATE")
        counter.execute(
            "INSERT INTO streamvibe.leaf_stat VALUES (1, 'email', 'completed', '{}', '{}', '{}', '{}')"
        )
        migrated = thread.submit(migrate_to, empty_database, tmp_path, 22)
        waits = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'streamvibe.partition'::regclass"
        )
        wait_until(lambda: kit.value(reader, waits) == 1, "the migration waits for who counts")
        # What it does last, which nobody else waits for.
        counter.execute("UPDATE streamvibe.partition SET row_count = 24")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO streamvibe.stat_delta VALUES ('email', 'pending', now(), 1)")
        counter.execute("COMMIT")
        held = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'ExclusiveLock' AND relation = {}::regclass"
        wait_until(
            lambda: kit.value(reader, held.format("'streamvibe.partition'")) == 1,
            "the migration goes on beside",
        )
        for _ in range(20):
            with reader.transaction():
                reader.execute("SELECT count(*) FROM streamvibe.stat")
                time.sleep(0.05)
                reader.execute("SELECT count(*) FROM streamvibe.stat_note")
            writer.execute("INSERT INTO streamvibe.stat_delta VALUES ('email', 'pending', now(), 1)")
        assert not migrated.done()
        dropper.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable), dropper.transaction():
            dropper.execute("LOCK TABLE streamvibe.partition IN ROW EXCLUSIVE MODE")
        writer.execute("COMMIT")
        migrated.result(60)
        assert kit.query(dropper, "SELECT row_count FROM streamvibe.partition") == [{"row_count": None}]
        assert kit.value(dropper, "SELECT sum(jobs) FROM streamvibe.stat_note") == 21


OLD_COMPACT = """
CREATE FUNCTION public.compact_stats() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep({});
    PERFORM FROM streamvibe.stat_keeper FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO streamvibe.stat_sketch (leaf_number, minutes, since, job_type, measure, bucket, jobs)
    VALUES (0, 0, 'epoch', '', 'waiting', -1, 5), (0, 0, 'epoch', '', 'waiting', 15, 3);
    PERFORM pg_sleep({});
    RETURN 1;
END $$
"""


@pytest.mark.parametrize("has_begun", [True, False])
def test_an_upgrade_while_somebody_adds_up(empty_database: Database, tmp_path: Path, has_begun: bool) -> None:
    """What was added up without groups gets them; who was called before, and begins afterwards, adds up nothing."""
    migrate_to(empty_database, tmp_path, 22)
    with (
        empty_database.connect() as conn,
        empty_database.connect() as keeper,
        ThreadPoolExecutor(2) as threads,
    ):
        conn.execute(OLD_COMPACT.format(*((0, 1) if has_begun else (2, 0))).encode())
        added = threads.submit(kit.value, keeper, "SELECT compact_stats()")
        sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: kit.value(conn, sleeps) == 1, "it is called")
        migrate_to(empty_database, tmp_path, 23)
        if has_begun:
            assert added.result(30) == 1
        else:
            with pytest.raises(psycopg.errors.UndefinedTable):
                added.result(30)
        groups = "SELECT bucket, jobs FROM streamvibe.stat_sketch WHERE minutes = -2 ORDER BY 1"
        expected = [{"bucket": -1, "jobs": 5}, {"bucket": 0, "jobs": 3}] if has_begun else []
        assert kit.query(conn, groups) == expected


def test_the_first_leaf_after_an_upgrade(empty_database: Database, tmp_path: Path) -> None:
    """Its sums know no leaf yet: it is dropped nevertheless, and no number stays behind."""
    with empty_database.connect() as conn:
        migrate_to(empty_database, tmp_path, 20)
        make_past(conn)
        conn.execute(
            "UPDATE public.job_queue SET status = 'failed', completed_at = created_at WHERE status = 'pending'"
        )
        add_up(conn)
        migrate(empty_database.dsn)
        with empty_database.as_service() as service:
            kit.register(service)
            stats = "get_job_queue_stats"
            assert kit.call_one(service, stats)["total_jobs"] == len(HOURS) * 4
            assert kit.value(service, "SELECT streamvibe.seal_partition('job_queue_past')")
            service.execute("SELECT streamvibe.place_sums('job_queue_past')")
            service.execute("SELECT streamvibe.drop_partition('job_queue_past')")
            assert kit.call_one(service, stats)["total_jobs"] == 0
            while kit.value(service, "SELECT compact_stats()"):
                assert kit.call_one(service, stats)["total_jobs"] == 0
            for table in ("stat", "stat_sketch", "stat_delta", "dropped_leaf"):
                assert kit.value(conn, f"SELECT count(*) FROM streamvibe.{table}") == 0
