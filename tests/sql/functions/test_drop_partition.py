"""drop_partition: what goes on beside it, and what it does when others do not end."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.waiting import wait_until


def old_leaf(queue: Queue) -> str:
    """A leaf of the week before the first, with ten finished jobs in it, counted."""
    conn = queue.conn
    kit.register(conn)
    [row] = kit.query(
        conn,
        "SELECT min(lower_at) - interval '7 days' AS at, min(lower_at) AS upper FROM streamvibe.partition"
        " WHERE parent_name = 'job_queue'",
    )
    name = f"job_queue_{row['at']:%Y%m%d}"
    conn.execute("SELECT streamvibe.make_leaf('job_queue', %s)", [name])
    conn.execute(
        f"INSERT INTO streamvibe.{name} (id, created_at, user_id, job_type, status, started_at, completed_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(%(at)s) + n, n), %(at)s + n * interval '1 us',"
        " gen_random_uuid(), 'email', 'completed', %(at)s, %(at)s FROM generate_series(1, 10) n",
        {"at": row["at"]},
    )
    conn.execute("SELECT streamvibe.attach_leaf('job_queue', %s, %s, %s)", [name, row["at"], row["upper"]])
    kit.call(queue.service, "recount_stats")
    return name


def total(conn: Connection[Any]) -> int:
    """How many jobs the statistics count."""
    return int(kit.call_one(conn, "get_job_queue_stats")["total_jobs"])


def drop(conn: Connection[Any], leaf: str, patience: str) -> None:
    conn.execute("SELECT streamvibe.drop_partition(%s, %s)", [leaf, patience])


def is_at_it(conn: Connection[Any], other: Connection[Any]) -> bool:
    """It waits for a lock, or has stepped back and sleeps."""
    waits = "SELECT wait_event IN ('relation', 'PgSleep') FROM pg_stat_activity WHERE pid = %s"
    return bool(kit.value(conn, waits, other.info.backend_pid))


def is_gone(conn: Connection[Any], leaf: str) -> bool:
    """Neither listed nor there."""
    listed = kit.query(conn, "SELECT 1 FROM streamvibe.partition WHERE partition_name = %s", leaf)
    return not listed and kit.value(conn, "SELECT to_regclass(%s)", f"streamvibe.{leaf}") is None


def test_others_go_on_while_it_waits_for_a_writer(queue: Queue) -> None:
    """Jobs are read, asked for, cancelled, claimed, handed back and recovered; when the transaction that wrote to the
    leaf has ended, that is counted, too.
    """
    leaf = old_leaf(queue)
    conn = queue.conn
    kit.worker(conn)
    user_id = uuid4()
    before = total(conn)
    with (
        queue.database.connect() as writer,
        queue.database.connect() as dropper,
        ThreadPoolExecutor(1) as thread,
    ):
        with writer.transaction():
            ids = kit.value(writer, f"SELECT array_agg(id) FROM streamvibe.{leaf}")
            writer.execute("SELECT streamvibe.count_jobs(-1, %s)", [ids[:1]])
            writer.execute("DELETE FROM public.job_queue WHERE id = %s", [ids[0]])
            dropped = thread.submit(drop, dropper, leaf, "1 minute")
            wait_until(lambda: is_at_it(conn, dropper), "the lock is waited for")
            conn.execute("SET lock_timeout = '20s'")
            for _ in range(5):
                assert kit.value(conn, "SELECT count(*) FROM public.job_queue") >= 10
                first, _other = kit.job_id(conn, user_id), kit.job_id(conn, user_id)
                kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[first])
                kit.release(conn, kit.claim(conn))
                kit.complete(conn, kit.claim(conn))
                kit.call(conn, "expire_stale_jobs")
                kit.call(conn, "recover_stuck_jobs")
            assert not dropped.done()
        dropped.result(60)
    assert is_gone(conn, leaf)
    assert total(conn) == before - 10 + 10
    assert kit.call(queue.service, "recount_stats") == []


def test_a_forgotten_reader_stops_nobody(queue: Queue) -> None:
    """While a transaction has the queue open, others go on; in the end the drop is given up and changes nothing."""
    leaf = old_leaf(queue)
    before = total(queue.conn)
    with (
        queue.database.connect() as reader,
        queue.database.connect() as dropper,
        ThreadPoolExecutor(1) as thread,
        reader.transaction(),
    ):
        reader.execute("SELECT count(*) FROM public.job_queue")
        dropper.execute("SET lock_timeout = '7s'")
        dropped = thread.submit(drop, dropper, leaf, "2 seconds")
        wait_until(lambda: is_at_it(queue.conn, dropper), "the table's lock is waited for")
        queue.conn.execute("SET lock_timeout = '20s'")
        while not dropped.done():
            assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") == 10
        with pytest.raises(psycopg.errors.LockNotAvailable, match="did not let go") as caught:
            dropped.result()
        assert caught.value.diag.column_name == "p_patience"
        assert caught.value.diag.message_hint
    assert total(queue.conn) == before == 10
    with queue.database.connect() as dropper:
        dropper.execute("SET lock_timeout = '7s'")
        with dropper.transaction():
            drop(dropper, leaf, "1 minute")
            assert kit.value(dropper, "SELECT current_setting('lock_timeout')") == "7s"
    assert total(queue.conn) == 0


def test_two_at_once(queue: Queue) -> None:
    """Leaves are dropped one after the other, whoever comes first, while somebody writes to both."""
    leaf = old_leaf(queue)
    conn = queue.conn
    user_id = uuid4()
    current = kit.value(
        conn,
        "SELECT partition_name FROM streamvibe.partition WHERE parent_name = 'job_queue' AND upper_at > now()"
        " ORDER BY lower_at LIMIT 1",
    )
    last = kit.value(
        conn,
        "SELECT partition_name FROM streamvibe.partition WHERE parent_name = 'job_queue'"
        " ORDER BY lower_at DESC LIMIT 1",
    )
    assert current not in (leaf, last)
    with (
        queue.database.connect() as one,
        queue.database.connect() as other,
        ThreadPoolExecutor(2) as threads,
    ):
        both = [threads.submit(drop, one, leaf, "1 minute"), threads.submit(drop, other, last, "1 minute")]
        while not all(dropped.done() for dropped in both):
            kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[kit.job_id(conn, user_id)])
        for dropped in both:
            dropped.result()
    assert is_gone(conn, leaf) and is_gone(conn, last)
    assert kit.call(queue.service, "recount_stats") == []


def test_autovacuum_steps_aside(queue: Queue) -> None:
    """A vacuum of the leaf that goes on for long, as an automatic one may, does not keep it from being dropped."""
    leaf = old_leaf(queue)
    conn = queue.conn
    with queue.database.connect() as vacuum:
        # What VACUUM holds. An automatic one ends itself once it is waited for so long, which this one is made to do.
        vacuum.execute("BEGIN")
        vacuum.execute(f"LOCK TABLE streamvibe.{leaf} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        with queue.database.connect() as dropper, ThreadPoolExecutor(1) as thread:
            dropped = thread.submit(drop, dropper, leaf, "1 minute")
            deadlock_checked = (
                "SELECT waitstart < clock_timestamp() - current_setting('deadlock_timeout')::interval"
                " FROM pg_locks WHERE pid = %s AND NOT granted AND mode = 'ShareUpdateExclusiveLock'"
            )
            wait_until(
                lambda: kit.query(conn, deadlock_checked, dropper.info.backend_pid) == [{"?column?": True}],
                "it waits longer than what autovacuum waits for",
            )
            vacuum.execute("ROLLBACK")
            dropped.result(60)
    assert is_gone(conn, leaf)


def test_bad_patience(queue: Queue) -> None:
    """No patience, endless and negative patience are refused by name."""
    leaf = old_leaf(queue)
    for patience in (None, "-1 second", "2 days"):
        with kit.refused("SV001", "p_patience"):
            queue.conn.execute("SELECT streamvibe.drop_partition(%s, %s::interval)", [leaf, patience])
