"""ensure_partitions, retry_failed_jobs, expire_stale_jobs: what maintenance does, and what it leaves alone."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import IsolationLevel
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.databases import Database

LATER = {**kit.ERROR, "retry_after_seconds": 3600}


def failed(queue: Queue, user_id: UUID, *, due: bool = True, **arguments: Any) -> UUID:
    """A failed job whose retry is due, or will be."""
    kit.register(queue.conn)
    kit.worker(queue.conn, p_lease="1 day")
    job_id = kit.job_id(queue.conn, user_id, p_priority=9, **arguments)
    kit.fail(queue.conn, kit.claim(queue.conn), failure=LATER)
    if due:
        queue.conn.execute("UPDATE job_queue SET retry_at = completed_at WHERE id = %s", [job_id])
    return job_id


def run(queue: Queue, function: str, **arguments: Any) -> int:
    """What retry_failed_jobs or expire_stale_jobs says."""
    count: int = kit.call_one(queue.service, function, **arguments)[function]
    return count


def test_retry(queue: Queue) -> None:
    """What is due comes back, what is not waits, what failed for good stays; other users do not matter."""
    users = [uuid4() for _ in range(3)]
    due = [failed(queue, user_id) for user_id in users for _ in range(2)]
    later = failed(queue, users[0], due=False)
    assert run(queue, "retry_failed_jobs") == 6
    assert {kit.status(queue.conn, job_id) for job_id in due} == {"pending"}
    assert kit.status(queue.conn, later) == "failed"
    assert run(queue, "retry_failed_jobs") == 0
    assert {job["attempt"] for job in kit.claim(queue.conn, limit=9)} == {2}


def test_retry_when_its_time_comes(clocked: Queue) -> None:
    """A retry an hour away comes an hour later."""
    job_id = failed(clocked, uuid4(), due=False)
    clocked.advance(kit.HOUR - kit.MINUTE)
    assert run(clocked, "retry_failed_jobs") == 0
    clocked.advance(2 * kit.MINUTE)
    assert run(clocked, "retry_failed_jobs") == 1
    assert kit.status(clocked.conn, job_id) == "pending"


def test_retry_waits_outside(clocked: Queue) -> None:
    """At the limit, or beside a live twin, a job stays failed and is looked at again a minute later."""
    user_id = uuid4()
    crowded = failed(clocked, user_id)
    for _ in range(10):
        kit.job_id(clocked.conn, user_id)
    other = uuid4()
    twin = failed(clocked, other, p_params={"a": 1})
    live = kit.job_id(clocked.conn, other, p_params={"a": 1})
    assert run(clocked, "retry_failed_jobs") == 0
    assert {kit.status(clocked.conn, job_id) for job_id in (crowded, twin)} == {"failed"}
    kit.call(clocked.conn, "cancel_jobs", p_user_id=other, p_job_ids=[live])
    assert run(clocked, "retry_failed_jobs") == 0
    clocked.advance(61 * kit.SECOND)
    assert run(clocked, "retry_failed_jobs") == 1
    assert kit.status(clocked.conn, twin) == "pending"


def test_retry_is_bounded(queue: Queue) -> None:
    """p_limit are looked at in a round, the longest due first; jobs that wait keep nobody from being looked at."""
    stuck = uuid4()
    for _ in range(3):
        failed(queue, stuck)
    kit.call(queue.conn, "set_user_limit", p_user_id=stuck, p_max_live_jobs=0)
    first, second = failed(queue, uuid4()), failed(queue, uuid4())
    assert [run(queue, "retry_failed_jobs", p_limit=3) for _ in range(2)] == [2, 0]
    assert {kit.status(queue.conn, job_id) for job_id in (first, second)} == {"pending"}


def test_retry_of_one_type_beside_a_full_one(queue: Queue) -> None:
    """A type without room holds up none of the user's other types."""
    user_id = uuid4()
    waiting = [failed(queue, user_id) for _ in range(2)]
    kit.register(queue.conn, "other")
    kit.worker(queue.conn, p_lease="1 day")
    other = kit.job_id(queue.conn, user_id, "other", p_priority=9)
    kit.fail(queue.conn, kit.claim(queue.conn), failure=LATER)
    queue.conn.execute("UPDATE job_queue SET retry_at = completed_at WHERE id = %s", [other])
    kit.register(queue.conn, p_max_live_jobs=0)
    assert run(queue, "retry_failed_jobs") == 1
    assert kit.status(queue.conn, other) == "pending"
    assert {kit.status(queue.conn, job_id) for job_id in waiting} == {"failed"}


def test_retry_waits_for_nobodys_first_request(queue: Queue) -> None:
    """A user's account that another session is just making is left for the next run; others' jobs come back."""
    held, free = uuid4(), uuid4()
    jobs = [failed(queue, user_id) for user_id in (held, free)]
    # As bulk creation leaves it.
    queue.conn.execute("DELETE FROM streamvibe.account WHERE user_id = %s", [held])
    with queue.database.connect() as other, other.transaction(force_rollback=True):
        kit.job_id(other, held)
        assert run(queue, "retry_failed_jobs") == 1
    assert [kit.status(queue.conn, job_id) for job_id in jobs] == ["failed", "pending"]
    assert run(queue, "retry_failed_jobs") == 1


def test_retry_of_what_has_no_attempts_left(queue: Queue) -> None:
    """A type that allows fewer attempts by now than a job has used: the job has failed for good."""
    kit.register(queue.conn, p_max_attempts=5)
    kit.worker(queue.conn, p_lease="1 day")
    job_id = kit.job_id(queue.conn, uuid4())
    for _ in range(3):
        queue.conn.execute("UPDATE job_queue SET status = 'pending', completed_at = NULL, retry_at = NULL")
        kit.fail(queue.conn, kit.claim(queue.conn), failure=LATER)
    queue.conn.execute("UPDATE job_queue SET retry_at = completed_at")
    kit.register(queue.conn, p_max_attempts=2)
    assert run(queue, "retry_failed_jobs") == 0
    assert kit.stored(queue.conn, job_id)["retry_at"] is None


def test_expire(queue: Queue) -> None:
    """Pending jobs past their time fail with the kind 'expired' and are never retried; others stay."""
    kit.register(queue.conn, p_max_attempts=5)
    kit.worker(queue.conn)
    held, leased, stale, fresh = (kit.job_id(queue.conn) for _ in range(4))
    jobs = kit.claim(queue.conn, limit=2)
    kit.lease(queue.conn, jobs[1:])
    queue.conn.execute("UPDATE job_queue SET expires_at = scheduled_for WHERE id <> %s", [fresh])
    assert run(queue, "expire_stale_jobs") == 1
    row = kit.stored(queue.conn, stale)
    assert (row["status"], row["failure_kind"], row["retry_count"], row["retry_at"]) == (
        "failed",
        "expired",
        0,
        None,
    )
    assert "no worker took it in time" in row["error_message"]
    assert [kit.status(queue.conn, job_id) for job_id in (held, leased, fresh)] == [
        "processing",
        "processing",
        "pending",
    ]
    assert run(queue, "retry_failed_jobs") == 0
    retried = kit.call_one(queue.conn, "retry_jobs", p_user_id=row["user_id"], p_job_ids=[stale])
    assert retried["outcome"] == "not_retryable"
    assert kit.complete(queue.conn, jobs) == []


def test_expire_24_hours_after_due(clocked: Queue) -> None:
    """The day counts from when the job was due, not from when it was asked for."""
    kit.register(clocked.conn)
    now = kit.job_id(clocked.conn)
    kit.job_id(clocked.conn, p_scheduled_for=datetime.fromisoformat("2999-01-01T00:00+00:00"))
    later = kit.job_id(clocked.conn)
    clocked.conn.execute(
        "UPDATE job_queue SET scheduled_for = scheduled_for + interval '1 hour', "
        "expires_at = expires_at + interval '1 hour' WHERE id = %s",
        [later],
    )
    clocked.advance(kit.DAY - kit.MINUTE)
    assert run(clocked, "expire_stale_jobs") == 0
    clocked.advance(2 * kit.MINUTE)
    assert run(clocked, "expire_stale_jobs") == 1
    assert kit.status(clocked.conn, now) == "failed"
    clocked.advance(kit.HOUR)
    assert run(clocked, "expire_stale_jobs") == 1


def test_expire_is_bounded(queue: Queue) -> None:
    """No more than p_limit a run."""
    kit.register(queue.conn)
    for _ in range(5):
        kit.job_id(queue.conn)
    queue.conn.execute("UPDATE job_queue SET expires_at = scheduled_for")
    assert [run(queue, "expire_stale_jobs", p_limit=2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("function", ["retry_failed_jobs", "expire_stale_jobs"])
@pytest.mark.parametrize("limit", [0, -1, 10001, None])
def test_refused(queue: Queue, function: str, limit: int | None) -> None:
    """1 to 10,000 jobs a run."""
    with kit.refused("SV001", "p_limit", "NULL" if limit is None else str(limit)):
        run(queue, function, p_limit=limit)


@pytest.mark.parametrize("function", ["retry_failed_jobs", "expire_stale_jobs", "recover_stuck_jobs"])
def test_isolation(queue: Queue, function: str) -> None:
    """A snapshot transaction is refused."""
    conn = queue.database.as_service(autocommit=False)
    conn.isolation_level = IsolationLevel.SERIALIZABLE
    with kit.refused("SV006", "transaction_isolation"):
        kit.call(conn, function)
    conn.close()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
def test_partitions_ahead(database: Database, zone: str) -> None:
    """Leaves follow one another without a gap, from now to p_ahead; asked again it makes none.

    Each begins on a Monday (UTC) and is a week long, wherever the server's clocks are put forward and back.
    """
    conn = database.connect()
    assert kit.call(conn, "ensure_partitions") == []
    conn.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    made = kit.call(conn, "ensure_partitions", p_ahead="60 weeks")
    assert made and kit.call(conn, "ensure_partitions", p_ahead="60 weeks") == []
    for parent in ("job_queue", "job_log"):
        leaves = kit.query(
            conn, "SELECT * FROM streamvibe.partition WHERE parent_name = %s ORDER BY lower_at", parent
        )
        assert all(a["upper_at"] == b["lower_at"] for a, b in itertools.pairwise(leaves))
        assert {
            (
                leaf["lower_at"].astimezone(UTC).strftime("%a %H:%M"),
                leaf["upper_at"] - leaf["lower_at"].astimezone(UTC),
            )
            for leaf in leaves
        } == {("Mon 00:00", timedelta(days=7))}
        now = kit.value(conn, "SELECT clock_timestamp()")
        assert leaves[0]["lower_at"] <= now
        assert leaves[-1]["upper_at"] > now + timedelta(weeks=60)
        attached = kit.query(
            conn,
            "SELECT relid::regclass::text AS name FROM pg_partition_tree(%s::regclass) WHERE isleaf",
            parent,
        )
        assert sorted(row["name"] for row in attached) == sorted(
            f"streamvibe.{leaf['partition_name']}" for leaf in leaves
        )


def test_partitions_of_another_width(database: Database) -> None:
    """A changed width holds for new leaves, which start where the last one ended."""
    conn = database.connect()
    conn.execute("UPDATE streamvibe.setting SET partition_width = '1 day'")
    assert len(kit.call(conn, "ensure_partitions", p_ahead="6 weeks")) >= 14
    gaps = (
        "SELECT 1 FROM streamvibe.partition a LEFT JOIN streamvibe.partition b "
        "ON b.parent_name = a.parent_name AND b.lower_at = a.upper_at WHERE b.lower_at IS NULL"
    )
    assert len(kit.query(conn, gaps)) == 2, "only the last leaf of each table has none after it"


def test_partitions_after_one_that_ended_early(database: Database) -> None:
    """Where an older release ended a day's leaf an hour early, the rest of the day has a leaf of its own."""
    conn = database.connect()
    conn.execute("UPDATE streamvibe.setting SET partition_width = '1 day'")
    conn.execute("SET TimeZone = 'UTC'")
    for parent in ("job_queue", "job_log"):
        last = kit.value(
            conn, "SELECT max(upper_at) FROM streamvibe.partition WHERE parent_name = %s", parent
        )
        name = f"{parent}_{last:%Y%m%d}"
        conn.execute("SELECT streamvibe.make_leaf(%s, %s)", [parent, name])
        conn.execute(
            "SELECT streamvibe.attach_leaf(%s, %s, %s, %s)", [parent, name, last, last + timedelta(hours=23)]
        )
    made = kit.call(conn, "ensure_partitions", p_ahead="6 weeks")
    assert [row["partition_name"] for row in made if row["partition_name"].endswith("_23")] == [
        f"{parent}_{last:%Y%m%d}_23" for parent in ("job_queue", "job_log")
    ]
    assert kit.call(conn, "ensure_partitions", p_ahead="6 weeks") == []


def test_partitions_and_writers_do_not_wait(database: Database) -> None:
    """Leaves are made beside open transactions that write, and while that is not committed others write."""
    conn = database.connect()
    kit.register(conn)
    kit.worker(conn)
    writer = database.as_service(autocommit=False)
    kit.job_id(writer)
    maker = database.as_service(autocommit=False)
    maker.execute("SET LOCAL lock_timeout = '5s'")
    assert kit.call(maker, "ensure_partitions", p_ahead="10 weeks")
    conn.execute("SET lock_timeout = '5s'")
    kit.job_id(conn)
    jobs = kit.claim(conn)
    some: kit.Row = {"p_levels": ["info"], "p_messages": ["x"]}
    assert kit.call(conn, "append_job_logs", **kit.held(jobs), **some) == []
    assert kit.complete(conn, jobs) == []
    writer.commit()
    maker.commit()


@pytest.mark.parametrize("ahead", [None, "-1 second", "3 years"])
def test_partitions_refused(queue: Queue, ahead: str | None) -> None:
    """0 to 2 years ahead."""
    with kit.refused("SV001", "p_ahead"):
        kit.call(queue.service, "ensure_partitions", p_ahead=ahead)


def test_every_leaf_has_its_settings(database: Database) -> None:
    """Vacuum settings, statistics targets, row security and all indexes on each leaf, those made later too."""
    conn = database.connect()
    kit.call(conn, "ensure_partitions", p_ahead="8 weeks")
    leaves = kit.query(
        conn,
        "SELECT p.parent_name, c.oid, c.reloptions, c.relrowsecurity FROM streamvibe.partition p "
        "JOIN pg_class c ON c.relname = p.partition_name AND c.relnamespace = 'streamvibe'::regnamespace",
    )
    for leaf in leaves:
        options = dict(option.split("=") for option in leaf["reloptions"])
        assert options["autovacuum_vacuum_scale_factor"] == "0.05"
        assert options["autovacuum_analyze_scale_factor"] == "0.05"
        assert options["autovacuum_vacuum_cost_limit"] == "1000"
        assert ("toast_tuple_target" in options) == (leaf["parent_name"] == "job_log")
        assert leaf["relrowsecurity"]
        indexes = "SELECT count(*) FROM pg_index WHERE indrelid = %s AND indisvalid"
        parent = kit.value(conn, "SELECT %s::regclass::oid", f"public.{leaf['parent_name']}")
        assert kit.value(conn, indexes, leaf["oid"]) == kit.value(conn, indexes, parent)
        targets = (
            "SELECT count(*) FROM pg_attribute WHERE attrelid = %s AND attstattarget = 1000 "
            "AND attname IN ('status', 'job_type')"
        )
        assert kit.value(conn, targets, leaf["oid"]) == (2 if leaf["parent_name"] == "job_queue" else 0)
