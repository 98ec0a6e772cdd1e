"""get_job_queue_metrics: every number is that of a count by hand, counters never fall, and jobs are not scanned."""

import math
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from benchmarks.pickup import nodes
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.plans import nested_plans
from tests.support.databases import Database

Found = dict[tuple[str, ...], float]
STATES = ("pending", "processing", "completed", "failed", "cancelled")


def metrics(conn: Connection[Any], *, ages: bool = True) -> Found:
    """Every number, by metric and labels."""
    rows = kit.call(conn, "get_job_queue_metrics", p_ages=ages)
    found = {(row["metric"], *row["labels"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def of(found: Found, metric: str) -> dict[Any, float]:
    """What is there of one metric and not zero, by its only label or by all of them."""
    rows = {key[1:]: value for key, value in found.items() if key[0] == metric and value}
    return {key[0] if len(key) == 1 else key: value for key, value in rows.items()}


def ask(queue: Queue, n: int, user_id: UUID, **arguments: Any) -> str:
    """The outcome of a request with these params."""
    return str(kit.request(queue.conn, user_id, p_params={"n": n}, **arguments)["outcome"])


def test_an_empty_queue(queue: Queue) -> None:
    """Counters of a type that is known are there before they count: a rate would miss what they count first."""
    kit.register(queue.conn)
    found = metrics(queue.service)
    for state in STATES:
        assert found["jobs", "email", state] == 0
    for state in ("completed", "failed", "cancelled"):
        assert found["ended", "email", state] == 0
    assert (found["created", "email"], found["oldest_due_seconds", "email"], found["leader",]) == (0, 0, 0)
    assert of(found, "workers") == of(found, "pauses") == {}
    assert {key[0] for key in found} >= {"table_rows", "partitions_ahead_seconds", "now"}


def test_only_the_service(queue: Queue) -> None:
    """A signed-in user learns nothing of the others' jobs."""
    with pytest.raises(InsufficientPrivilege):
        queue.as_user(uuid4()).execute("SELECT get_job_queue_metrics()")


@pytest.mark.parametrize("compacted", [False, True])
def test_jobs_and_what_became_of_them(queue: Queue, compacted: bool) -> None:
    """Jobs by type and status as readers see them; created, ended, failed by kind and deduplicated since ever."""
    conn = queue.conn
    for name in ("email", "sms"):
        kit.register(conn, name)
    kit.worker(conn)
    for n in range(40):
        kit.job_id(conn, job_type=("email", "sms")[n % 4 == 0])
    jobs = kit.claim(conn, limit=30)
    kit.complete(conn, jobs[:10])
    kit.fail(conn, jobs[10:13], failure=kit.PERMANENT)
    kit.fail(conn, jobs[13:15], failure={**kit.ERROR, "retry_after_seconds": 3600})
    kit.fail(conn, jobs[15:17], failure={**kit.ERROR, "kind": "my own", "retry_after_seconds": 0})
    kit.lease(conn, jobs[17:20])
    gone = jobs[17:19]
    for job in gone:
        kit.call(conn, "cancel_jobs", p_user_id=job["user_id"], p_job_ids=[job["job_id"]])
    # What a worker says of jobs that were cancelled meanwhile ends them no second time.
    kit.lease(conn, gone[:1])
    kit.fail(conn, gone[1:])
    kit.call(conn, "retry_jobs", p_user_id=jobs[13]["user_id"], p_job_ids=[jobs[13]["job_id"]])
    conn.execute(
        "UPDATE public.job_queue SET expires_at = scheduled_for WHERE id ="
        " (SELECT id FROM streamvibe.job WHERE status = 'pending' AND retry_count = 0 LIMIT 1)"
    )
    assert kit.value(conn, "SELECT expire_stale_jobs()") == 1
    user_id = uuid4()
    outcomes = [ask(queue, 1, user_id), ask(queue, 1, user_id), ask(queue, 1, user_id)]
    assert outcomes == ["created", "joined", "joined"]
    mine = [{"user_id": str(user_id), "job_type": "email", "params": {"n": n}} for n in (1, 1, 2)]
    kit.call(conn, "create_jobs", p_jobs=Jsonb(mine), p_dedupe=True)
    kit.complete(conn, kit.claim(conn, limit=100)[-1:])
    if compacted:
        while kit.value(queue.service, "SELECT compact_stats(7)"):
            pass
        assert kit.value(conn, "SELECT count(*) FROM streamvibe.counter_note") == 0
    found = metrics(queue.service)
    rows = kit.query(conn, "SELECT job_type, status, count(*) AS n FROM streamvibe.job GROUP BY 1, 2")
    assert of(found, "jobs") == {(row["job_type"], row["status"]): row["n"] for row in rows}
    rows = kit.query(conn, "SELECT job_type, count(*) AS n FROM streamvibe.job GROUP BY 1")
    assert of(found, "created") == {row["job_type"]: row["n"] for row in rows}

    def total(metric: str) -> dict[str, float]:
        sums: dict[str, float] = {}
        for (_, detail), value in of(found, metric).items():
            sums[detail] = sums.get(detail, 0) + value
        return sums

    # Of the failed one was retried.
    assert total("ended") == {"completed": 11, "failed": 3 + 2 + 1, "cancelled": 2}
    assert total("failed") == {"permanent": 3, "error": 2, "other": 2, "expired": 1}
    assert total("asked") == {"joined": 4}


def test_the_cache(queue: Queue) -> None:
    """Answers from the cache count, by whoever asks; a request that makes a job, or is refused, does not."""
    conn, user_id = queue.conn, uuid4()
    kit.register(conn, p_max_live_jobs=0)
    with kit.refused("SV005"):
        ask(queue, 1, user_id)
    kit.register(conn, p_max_live_jobs=9)
    kit.worker(conn)
    assert ask(queue, 1, user_id) == "created"
    kit.complete(conn, kit.claim(conn))
    assert [ask(queue, 1, user_id), ask(queue, 1, user_id, p_force=True)] == ["cached", "created"]
    again = [{"user_id": str(user_id), "job_type": "email", "params": {"n": 1}, "dedupe_window": "0"}]
    assert kit.call_one(conn, "request_jobs", p_requests=Jsonb(again))["outcome"] == "cached"
    assert of(metrics(queue.service), "asked") == {("email", "cached"): 2}
    assert of(metrics(queue.service), "created") == {"email": 2}


def test_durations(clocked: Queue) -> None:
    """Each completed job in the first bucket that holds how long it waited and took, and in the sums."""
    conn = clocked.conn
    kit.register(conn)
    took = [0.004, 2.2, 7, 45, 8000, 100_000]
    for seconds in took:
        kit.job_id(conn)
        kit.worker(conn)
        # Half of the time it waits.
        clocked.advance(timedelta(seconds=seconds / 2))
        kit.worker(conn)
        job = kit.claim(conn)
        clocked.advance(timedelta(seconds=seconds / 2))
        kit.worker(conn)
        kit.complete(conn, job)
        kit.value(clocked.service, "SELECT compact_stats()")
    found = metrics(clocked.service)
    bounds = [
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
        0.5,
        1,
        2.5,
        5,
        10,
        30,
        60,
        300,
        900,
        3600,
        14400,
        math.inf,
    ]
    for metric in ("waiting", "processing"):
        every = {float(key[2]): value for key, value in found.items() if key[0] == metric}
        assert sorted(every) == bounds
        # The clock runs on beside what it is moved by.
        expected: dict[float, int] = {}
        for seconds in took:
            bound = next(bound for bound in bounds if seconds / 2 + 0.002 <= bound)
            expected[bound] = expected.get(bound, 0) + 1
        slow = {bound: count for bound, count in every.items() if count and bound > 1}
        assert slow == {bound: count for bound, count in expected.items() if bound > 1}
        assert sum(every.values()) == len(took)
        assert found[f"{metric}_seconds", "email"] == pytest.approx(sum(took) / 2, abs=5)


@pytest.mark.parametrize("bound", [0.005, 0.25, 1, 60, 14400])
def test_a_bucket_is_exact_but_for_a_hundredth(queue: Queue, bound: float) -> None:
    """What is more than 1 % from a bound is on its right side."""
    place = (
        "SELECT streamvibe.histogram_bound("
        "streamvibe.sketch_bucket('epoch', 'epoch'::timestamptz + %s * interval '1 s'))"
    )
    assert float(kit.value(queue.conn, place, bound * 0.989)) == bound
    assert float(kit.value(queue.conn, place, bound * 1.011)) > bound


def test_jobs_that_left_were_created_all_the_same(queue: Queue) -> None:
    """A deleted job, a dropped leaf, rows changed by hand and counted anew: no counter falls, at no moment."""
    conn = queue.conn
    kit.register(conn)
    leaf = kit.old_leaf(conn)
    kit.call(queue.service, "recount_stats")
    kit.worker(conn)
    kit.job_id(conn)
    kit.job_id(conn)
    kit.complete(conn, kit.claim(conn))
    # Ten were put there by hand.
    assert metrics(queue.service)["created", "email"] == 2
    assert of(metrics(queue.service), "ended") == {("email", "completed"): 1}

    def same() -> None:
        found = metrics(queue.service)
        assert found["created", "email"] == 2
        assert of(found, "ended") == {("email", "completed"): 1}
        assert sum(of(found, "processing").values()) == 1

    assert kit.value(conn, "SELECT streamvibe.seal_partition(%s)", leaf)
    kit.value(conn, "SELECT streamvibe.drop_partition(%s)", leaf)
    same()
    while kit.value(queue.service, "SELECT compact_stats()"):
        same()
    same()
    kit.value(
        conn, "SELECT streamvibe.delete_jobs(array_agg(id)) FROM public.job_queue WHERE status = 'completed'"
    )
    same()
    conn.execute("DELETE FROM public.job_queue WHERE status = 'pending'")
    assert kit.call(queue.service, "recount_stats")
    same()
    kit.value(queue.service, "SELECT compact_stats()")
    same()
    assert of(metrics(queue.service), "jobs") == {}


def test_the_oldest(clocked: Queue) -> None:
    """By type, from when it was due; what is held, or due tomorrow, waits for nothing."""
    conn = clocked.conn
    for name in ("email", "sms", "idle"):
        kit.register(conn, name)
    kit.job_id(conn, job_type="sms", p_priority=2)
    clocked.advance(kit.MINUTE)
    kit.job_id(conn, job_type="email", p_scheduled_for=kit.value(conn, "SELECT streamvibe.now()") + kit.HOUR)
    kit.job_id(conn, job_type="email")
    clocked.advance(kit.MINUTE)
    kit.job_id(conn, job_type="sms", p_priority=9)
    clocked.advance(3 * kit.SECOND)
    kit.job_id(conn, job_type="idle", p_scheduled_for=kit.value(conn, "SELECT streamvibe.now()") + kit.DAY)
    clocked.advance(kit.SECOND)
    ages = of(metrics(clocked.service), "oldest_due_seconds")
    assert ages == {"email": pytest.approx(64, abs=2), "sms": pytest.approx(124, abs=2)}
    kit.worker(conn)
    kit.claim(conn, limit=100, p_job_types=["sms"])
    clocked.advance(kit.HOUR)
    ages = of(metrics(clocked.service), "oldest_due_seconds")
    assert ages == {"email": pytest.approx(3664, abs=2)}
    kit.worker(conn, "w2")
    assert len(kit.claim(conn, "w2", limit=100, p_job_types=["email"])) == 2
    assert of(metrics(clocked.service), "oldest_due_seconds") == {}
    kit.job_id(conn, job_type="email")
    clocked.advance(20 * kit.SECOND)
    assert of(metrics(clocked.service), "oldest_due_seconds") == {"email": pytest.approx(21, abs=3)}
    assert ("oldest_due_seconds", "email") not in metrics(clocked.service, ages=False)


def test_what_is_paused_is_not_late(clocked: Queue) -> None:
    """A paused type's jobs wait because somebody said so; those of other types are as late as they are."""
    for name in ("email", "sms"):
        kit.register(clocked.conn, name)
        kit.job_id(clocked.conn, job_type=name)
    clocked.advance(kit.HOUR)
    kit.call(clocked.service, "pause_jobs", p_job_type="sms")
    found = metrics(clocked.service)
    assert of(found, "oldest_due_seconds") == {"email": pytest.approx(3600, abs=2)}
    assert found["oldest_due_seconds", "sms"] == 0
    kit.call(clocked.service, "resume_jobs", p_job_type="sms")
    assert metrics(clocked.service)["oldest_due_seconds", "sms"] == pytest.approx(3600, abs=2)
    kit.call(clocked.service, "pause_jobs")
    assert of(metrics(clocked.service), "oldest_due_seconds") == {}


def test_the_oldest_behind_others_of_its_line(clocked: Queue) -> None:
    """A user's many jobs let others go first; the oldest of them is the oldest all the same."""
    conn, user_id = clocked.conn, uuid4()
    kit.register(conn, "email", p_cache_ttl="0")
    many = [{"user_id": str(user_id), "job_type": "email", "params": {"n": n}} for n in range(30)]
    kit.call(conn, "create_jobs", p_jobs=Jsonb(many))
    kit.worker(conn)
    kit.complete(conn, kit.claim(conn))
    clocked.advance(10 * kit.MINUTE)
    kit.worker(conn)
    kit.complete(conn, kit.claim(conn, limit=20))
    kit.job_id(conn)
    assert of(metrics(clocked.service), "oldest_due_seconds") == {"email": pytest.approx(600, abs=2)}


def test_recovered_jobs(queue: Queue) -> None:
    """What a dead worker held counts once: alone it crashed, with others it is isolated."""
    conn = queue.conn
    kit.register(conn)
    for name, count in (("w1", 1), ("w2", 3)):
        for _ in range(count):
            kit.job_id(conn)
        kit.worker(conn, name)
        assert len(kit.claim(conn, name, limit=count)) == count
    assert of(metrics(queue.service), "workers") == {"alive": 2}
    kit.kill_worker(conn, "w1")
    kit.kill_worker(conn, "w2")
    assert of(metrics(queue.service), "workers") == {"dead": 2}
    kit.call(queue.service, "recover_stuck_jobs")
    kit.call(queue.service, "recover_stuck_jobs")
    found = metrics(queue.service)
    assert of(found, "recovered") == {("email", "crashed"): 1, ("email", "isolated"): 3}
    assert of(found, "failed") == {("email", "crash"): 1}
    assert of(found, "workers") == {}


def test_maintenance_pauses_and_partitions(queue: Queue) -> None:
    """Who leads, when a duty began and whether it failed, what is paused, and how far partitions reach."""
    conn = queue.conn
    kit.register(conn)
    kit.call(conn, "pause_jobs", p_job_type="email")
    kit.call(conn, "pause_jobs", p_user_id=uuid4())
    kit.call(conn, "pause_jobs", p_user_id=uuid4())
    conn.execute(
        "UPDATE streamvibe.leader SET leader_id = 'me', expires_at = streamvibe.now() + interval '1 minute'"
    )
    conn.execute(
        "INSERT INTO streamvibe.duty (name, usual_schedule, schedule, enabled, last_started_at, last_error) VALUES"
        " ('a', '* * * * *', NULL, true, '2020-01-01Z', NULL),"
        " ('b', '* * * * *', 'every 2 hours', true, '2021-01-01Z', 'no'),"
        " ('c', '* * * * *', NULL, false, '2020-01-01Z', 'off'), ('d', '* * * * *', NULL, true, NULL, NULL)"
    )
    found = metrics(queue.service)
    assert of(found, "pauses") == {"job_type": 1, "user": 2}
    assert found["leader",] == 1
    assert of(found, "duty_started") == {("a", "* * * * *"): 1577836800, ("b", "every 2 hours"): 1609459200}
    assert {key[1]: value for key, value in found.items() if key[0] == "duty_failed"} == {
        "a": 0,
        "b": 1,
        "d": 0,
    }
    for table in ("job_queue", "job_log"):
        until = (
            "SELECT extract(epoch FROM max(upper_at) - streamvibe.now()) FROM streamvibe.partition"
            " WHERE parent_name = %s"
        )
        expected = float(kit.value(conn, until, table))
        assert found["partitions_ahead_seconds", table] == pytest.approx(expected, abs=60)


def test_the_horizon(database: Database) -> None:
    """A forgotten transaction, with how old it is in time and in transactions; gone with it."""
    conn = database.connect()
    kit.register(conn)
    assert of(metrics(conn), "horizon_transactions") == {}
    with database.connect() as forgotten, forgotten.transaction():
        forgotten.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        forgotten.execute("SELECT 1 FROM public.job_queue")
        began = kit.value(conn, "SELECT clock_timestamp()")
        for _ in range(30):
            kit.job_id(conn)
        found = metrics(conn)
        passed = (kit.value(conn, "SELECT clock_timestamp()") - began).total_seconds()
        assert found["horizon_transactions", "session"] >= 30
        assert 0 < found["horizon_seconds", "session"] <= passed + 60
        assert found["horizon_seconds", "session"] > 0
    assert of(metrics(conn), "horizon_transactions") == {}


def test_tables(database: Database) -> None:
    """Rows, dead rows and sizes of each table, its leaves added up."""
    conn = database.connect()
    conn.execute("ALTER TABLE streamvibe.account SET (autovacuum_enabled = off)")
    conn.execute(
        "INSERT INTO streamvibe.account (user_id) SELECT gen_random_uuid() FROM generate_series(1, 5000)"
    )
    conn.execute("DELETE FROM streamvibe.account WHERE uuid_hash(user_id) % 2 = 0")
    conn.execute("SELECT pg_stat_force_next_flush()")
    found = metrics(conn)
    deleted = 5000 - kit.value(conn, "SELECT count(*) FROM streamvibe.account")
    assert found["table_rows", "account"] == 5000 - deleted
    assert found["table_dead_rows", "account"] == deleted
    assert found["table_bytes", "account"] == kit.value(conn, "SELECT pg_table_size('streamvibe.account')")
    assert found["table_index_bytes", "account"] > 0 and found["table_index_bytes", "job_queue"] > 0


@pytest.mark.parametrize("analyzed", [False, True])
def test_it_reads_no_more_of_a_longer_queue(database: Database, analyzed: bool) -> None:
    """With 40,000 jobs, most of them waiting, no statement reads more than a few rows of each type and priority."""
    conn = database.connect()
    for name in ("email", "sms"):
        kit.register(conn, name)
    many = [
        {"user_id": str(UUID(int=n % 500)), "job_type": ("email", "sms")[n % 3 == 0], "priority": n % 3}
        for n in range(20_000)
    ]
    for _ in range(2):
        kit.call(conn, "create_jobs", p_jobs=Jsonb(many))
    while kit.value(conn, "SELECT compact_stats()"):
        pass
    if analyzed:
        conn.execute("VACUUM ANALYZE public.job_queue")
    metrics(conn)
    with nested_plans(conn) as plans:
        found = metrics(conn)
    assert sum(of(found, "jobs").values()) == 40_000
    scans = [
        node
        for plan in plans
        for node in nodes(plan)
        if "Scan" in node["Node Type"] and "job_queue" in str(node)
    ]
    read = sum(
        node["Actual Rows"] * node["Actual Loops"]
        for node in scans
        if node.get("Relation Name", "").startswith("job_queue")
    )
    # The 100 oldest of each of three priorities, and the next of each type and priority.
    assert 0 < read <= 3 * 100 + 2 * 3 + 10
    assert not [node for node in scans if node["Node Type"] == "Seq Scan" and "job_queue_2" in str(node)]
