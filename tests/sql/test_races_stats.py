"""The statistics while other sessions do everything that changes a job: equal to a count by hand in every snapshot."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection, IsolationLevel
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue

SNAPSHOTS = 8
USERS = [uuid4() for _ in range(6)]
FAILURES = (
    kit.ERROR,
    kit.PERMANENT,
    {**kit.ERROR, "retry_after_seconds": 0},
    {**kit.ERROR, "retry_after_seconds": 3600},
)

# By hand: nothing of ours is used to count.
BY_HAND = """
SELECT job_type, status, date_trunc('minute', coalesce(completed_at, created_at)) AS since, count(*) AS jobs,
       coalesce(sum(extract(epoch FROM started_at - scheduled_for) * 1000000) FILTER (WHERE status = 'completed'), 0)
           ::bigint AS waiting_us,
       coalesce(sum(extract(epoch FROM completed_at - started_at) * 1000000) FILTER (WHERE status = 'completed'), 0)
           ::bigint AS processing_us
FROM public.job_queue GROUP BY 1, 2, 3
"""
KEPT = """
SELECT job_type, status, since, sum(jobs)::bigint AS jobs, sum(waiting_us)::bigint AS waiting_us,
       sum(processing_us)::bigint AS processing_us
FROM (SELECT job_type, status, CASE WHEN %(minutes)s = 0 THEN 'epoch' WHEN %(minutes)s = 1 THEN minute
                               WHEN %(minutes)s = 10 THEN date_bin('10 min', minute, '2000-01-01 00:00+00')
                               WHEN %(minutes)s = 60 THEN date_trunc('hour', minute)
                               ELSE date_trunc('day', minute, 'UTC') END AS since, jobs,
             coalesce(waiting_us, 0) AS waiting_us, coalesce(processing_us, 0) AS processing_us
      FROM streamvibe.stat_note
      UNION ALL
      SELECT job_type, status, since, jobs, waiting_us, processing_us
      FROM streamvibe.stat_now WHERE minutes = %(minutes)s) s
GROUP BY 1, 2, 3
HAVING sum(jobs) <> 0 OR sum(waiting_us) <> 0 OR sum(processing_us) <> 0
"""
SKETCHED_BY_HAND = """
SELECT measure, bucket, count(*) AS jobs FROM (
    SELECT 'waiting' AS measure, streamvibe.sketch_bucket(scheduled_for, started_at) AS bucket
    FROM public.job_queue WHERE status = 'completed'
    UNION ALL
    SELECT 'processing', streamvibe.sketch_bucket(started_at, completed_at)
    FROM public.job_queue WHERE status = 'completed') b
GROUP BY 1, 2
"""
SKETCH_KEPT = """
SELECT measure, bucket, sum(jobs)::bigint AS jobs FROM (
    SELECT measure, bucket, jobs FROM streamvibe.sketch_now
    UNION ALL
    SELECT measure, bucket, jobs FROM streamvibe.sketch_note) s
GROUP BY 1, 2 HAVING sum(jobs) <> 0
"""
# Of all time, as they are read: the buckets of each group that there is.
OF_TYPES = """(
    SELECT g.measure, b.bucket, b.jobs
    FROM (SELECT DISTINCT t.name, g.measure, g.bucket_group
          FROM ({}) t(name), LATERAL streamvibe.sketch_groups(t.name) g) g,
         LATERAL streamvibe.sketch_total(g.name, g.measure, g.bucket_group) b) k"""
SKETCH_IN_ALL = SKETCH_KEPT.replace("streamvibe.sketch_now", OF_TYPES.format("SELECT ''"))
SKETCH_BY_TYPE = SKETCH_KEPT.replace(
    "streamvibe.sketch_now", OF_TYPES.format("SELECT name FROM streamvibe.job_type")
)
GROUPS_BY_HAND = f"SELECT measure, bucket >> 4, sum(jobs)::bigint FROM ({SKETCHED_BY_HAND}) b GROUP BY 1, 2"
GROUPS_KEPT = """
SELECT measure, bucket_group, sum(jobs)::bigint FROM (
    SELECT measure, bucket_group, jobs FROM streamvibe.sketch_groups('')
    UNION ALL
    SELECT measure, bucket >> 4, jobs FROM streamvibe.sketch_note) s
GROUP BY 1, 2 HAVING sum(jobs) <> 0
"""


# What would leave with each leaf.
OF_LEAVES_BY_HAND = """
SELECT p.leaf_number, q.job_type, q.status, count(*) AS jobs
FROM public.job_queue q JOIN pg_class c ON c.oid = q.tableoid
JOIN streamvibe.partition p ON p.partition_name = c.relname
GROUP BY 1, 2, 3
"""
OF_LEAVES_KEPT = """
SELECT leaf_number, job_type, status, sum(jobs)::bigint AS jobs
FROM (SELECT leaf_number, job_type, status, jobs FROM streamvibe.stat_delta
      UNION ALL
      SELECT leaf_number, job_type, status, jobs FROM streamvibe.stat WHERE minutes = -1) s
WHERE leaf_number NOT IN (SELECT leaf_number FROM streamvibe.dropped_leaf)
GROUP BY 1, 2, 3 HAVING sum(jobs) <> 0
"""


STATES = {"pending", "processing", "completed", "failed", "cancelled"}
ROUNDS = {"_ask", "_ask_for_many", "_work", "_change", "_maintain", "_drop"}


class Everything:
    """Sessions that do all that changes jobs, at random, until they are told to stop."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._stop = threading.Event()
        self.rounds: dict[str, int] = {}
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """From here on, to the end of the block; raises what one of them met."""
        acts = (
            self._ask,
            self._ask_for_many,
            self._work,
            self._work,
            self._change,
            self._maintain,
            self._drop,
        )
        threads = [
            threading.Thread(target=self._repeat, args=[act, number]) for number, act in enumerate(acts)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self.errors:
            raise self.errors[0]

    def _repeat(self, act: Callable[[Connection[Any], random.Random, str], None], number: int) -> None:
        chance = random.Random(number)
        try:
            with self._queue.database.connect() as conn:
                while not self._stop.is_set():
                    # One in four ends otherwise than it seemed.
                    with conn.transaction(force_rollback=chance.random() < 0.25):
                        act(conn, chance, f"w{number}")
                    self.rounds[act.__name__] = self.rounds.get(act.__name__, 0) + 1
        except BaseException as error:
            self.errors.append(error)

    def _ask(self, conn: Connection[Any], chance: random.Random, _: str) -> None:
        requests = [
            {
                "user_id": str(chance.choice(USERS)),
                "job_type": chance.choice(("email", "sms")),
                "params": {"n": n},
            }
            for n in chance.sample(range(50), 5)
        ]
        kit.call(conn, "request_jobs", p_requests=Jsonb(requests))
        with contextlib.suppress(psycopg.errors.RaiseException, psycopg.DatabaseError), conn.transaction():
            kit.request(conn, chance.choice(USERS), p_params={"n": chance.randrange(50)})

    def _ask_for_many(self, conn: Connection[Any], chance: random.Random, _: str) -> None:
        jobs = [{"user_id": str(uuid4()), "job_type": "sms"} for _ in range(chance.randrange(1, 9))]
        promises = chance.random() < 0.5
        kit.call(conn, "create_jobs", p_jobs=Jsonb(jobs), p_dedupe=promises, p_enforce_limit=promises)

    def _work(self, conn: Connection[Any], chance: random.Random, name: str) -> None:
        kit.worker(conn, name, p_lease="1 hour")
        jobs = kit.claim(conn, name, limit=12)
        chance.shuffle(jobs)
        kit.lease(conn, jobs[:6], name)
        kit.complete(conn, jobs[2:5] + jobs[8:], name)
        for job, failure in zip(jobs[5:8], chance.sample(FAILURES, 3), strict=False):
            kit.fail(conn, [job], name, failure=failure)
        if chance.random() < 0.7:
            kit.release(conn, jobs[:2], name)

    def _change(self, conn: Connection[Any], chance: random.Random, _: str) -> None:
        user_id = chance.choice(USERS)
        some: list[UUID] = [
            row["id"]
            for row in kit.query(
                conn, "SELECT id FROM public.job_queue WHERE user_id = %s ORDER BY random() LIMIT 6", user_id
            )
        ]
        if len(some) > 2:
            kit.call(conn, "retry_jobs", p_user_id=user_id, p_job_ids=some[2:])
            kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=some[:2] * 2)

    def _maintain(self, conn: Connection[Any], chance: random.Random, _: str) -> None:
        conn.execute(
            "UPDATE public.job_queue SET expires_at = created_at WHERE id IN "
            "(SELECT id FROM public.job_queue WHERE status = 'pending' ORDER BY random() LIMIT 1"
            " FOR UPDATE SKIP LOCKED)"
        )
        kit.call(conn, "expire_stale_jobs")
        conn.execute(
            "UPDATE public.job_queue SET retry_at = completed_at WHERE id IN "
            "(SELECT id FROM public.job_queue WHERE retry_at > now() ORDER BY random() LIMIT 1"
            " FOR UPDATE SKIP LOCKED)"
        )
        kit.call(conn, "retry_failed_jobs")
        kit.kill_worker(conn, chance.choice(("w2", "w3")))
        kit.call(conn, "recover_stuck_jobs")
        if chance.random() < 0.2:
            assert kit.call(conn, "recount_stats") == []
        kit.call(conn, "compact_stats", p_limit=chance.choice((3, 50, 10000)))

    def _drop(self, conn: Connection[Any], chance: random.Random, _name: str) -> None:
        time.sleep(0.05)
        # Its rows come and go in one transaction: to a snapshot from before a DDL that is what it is, too.
        conn.execute("LOCK TABLE public.job_queue IN ACCESS EXCLUSIVE MODE")
        leaf = kit.old_leaf(conn, rows=3)
        conn.execute(f"SELECT streamvibe.count_jobs(1, array_agg(id)) FROM streamvibe.{leaf}".encode())
        if chance.random() < 0.5:
            kit.call(conn, "compact_stats")
        assert kit.call_one(conn, "streamvibe.seal_partition", p_partition_name=leaf)["seal_partition"]
        kit.call(conn, "streamvibe.drop_partition", p_partition_name=leaf)


def _rows(conn: Connection[Any], text: str, minutes: int | None = None) -> list[tuple[Any, ...]]:
    return sorted(conn.execute(text.encode(), {"minutes": minutes}).fetchall(), key=str)


@pytest.mark.timeout(300)
def test_every_snapshot_is_exact(queue: Queue) -> None:
    """By minute, hour, day and in all: counts, sums and sketches, through creation, joining, work, failure, cancelling,
    retries, expiry, recovery, dropped leaves, rollbacks and compaction.
    """
    for name in ("email", "sms"):
        kit.register(queue.conn, name, p_cache_ttl="0")
    everything = Everything(queue)
    seen: set[str] = set()
    states: set[str] = set()
    with everything.running(), queue.database.connect() as reader:
        reader.isolation_level = IsolationLevel.REPEATABLE_READ
        deadline = time.monotonic() + 240
        # On a busy machine it takes more snapshots until each kind of round has been, and each status been seen.
        while not (len(seen) >= SNAPSHOTS and states == STATES and set(everything.rounds) >= ROUNDS):
            assert time.monotonic() < deadline, f"{len(seen)} snapshots, {states}, {everything.rounds}"
            if everything.errors:
                break
            with reader.transaction():
                by_hand = _rows(reader, BY_HAND)
                assert _rows(reader, KEPT, 1) == by_hand
                for minutes, since in (
                    (10, "date_bin('10 min', since, '2000-01-01 00:00+00')"),
                    (1440, "date_trunc('day', since, 'UTC')"),
                    (60, "date_trunc('hour', since)"),
                    (0, "'epoch'::timestamptz"),
                ):
                    added = (
                        f"SELECT job_type, status, {since}, sum(jobs)::bigint, sum(waiting_us)::bigint, "
                        f"sum(processing_us)::bigint FROM ({BY_HAND}) b GROUP BY 1, 2, 3"
                    )
                    assert _rows(reader, KEPT, minutes) == _rows(reader, added)
                for kept in (SKETCH_KEPT, SKETCH_IN_ALL, SKETCH_BY_TYPE):
                    assert _rows(reader, kept) == _rows(reader, SKETCHED_BY_HAND)
                assert _rows(reader, GROUPS_KEPT) == _rows(reader, GROUPS_BY_HAND)
                assert _rows(reader, OF_LEAVES_KEPT) == _rows(reader, OF_LEAVES_BY_HAND)
                seen.add(str(by_hand))
                states |= {row[1] for row in by_hand}
