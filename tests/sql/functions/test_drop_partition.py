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


def test_others_go_on_while_it_waits_for_a_writer(queue: Queue) -> None:
    """Jobs are read and asked for; when the transaction that wrote to the leaf has ended, that is counted, too."""
    leaf = old_leaf(queue)
    before = total(queue.conn)
    with (
        queue.database.connect() as writer,
        queue.database.connect() as dropper,
        ThreadPoolExecutor(1) as thread,
    ):
        with writer.transaction():
            ids = kit.value(writer, f"SELECT array_agg(id) FROM streamvibe.{leaf}")
            writer.execute("SELECT streamvibe.count_jobs(-1, %s)", [ids[:1]])
            writer.execute("DELETE FROM public.job_queue WHERE id = %s", [ids[0]])
            dropped = thread.submit(drop, dropper, leaf, "1 hour")
            wait_until(lambda: is_at_it(queue.conn, dropper), "the leaf's lock is waited for")
            queue.conn.execute("SET lock_timeout = '20s'")
            for _ in range(5):
                assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") >= 10
                kit.job_id(queue.conn, uuid4())
            assert not dropped.done()
        dropped.result(60)
    assert kit.query(queue.conn, "SELECT 1 FROM streamvibe.partition WHERE partition_name = %s", leaf) == []
    assert kit.value(queue.conn, "SELECT to_regclass(%s)", f"streamvibe.{leaf}") is None
    assert total(queue.conn) == before - 10 + 5
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
        with pytest.raises(psycopg.errors.LockNotAvailable, match="did not end") as caught:
            dropped.result()
        assert caught.value.diag.column_name == "p_patience"
        assert caught.value.diag.message_hint
    assert total(queue.conn) == before == 10
    with queue.database.connect() as dropper:
        dropper.execute("SET lock_timeout = '7s'")
        with dropper.transaction():
            drop(dropper, leaf, "1 hour")
            assert kit.value(dropper, "SELECT current_setting('lock_timeout')") == "7s"
    assert total(queue.conn) == 0
