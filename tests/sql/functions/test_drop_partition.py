"""How a leaf leaves: sealed and dropped; what goes on beside it, and what it does when others do not end."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from benchmarks.pickup import nodes
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.plans import nested_plans
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe.db.migrate_files import SQL_ROOT

LINT = (SQL_ROOT / "lints" / "statistics_wrong.sql").read_bytes()


def old_leaf(queue: Queue) -> str:
    """A leaf of the week before the first, with ten finished jobs in it, in the statistics; sealed."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn)
    kit.call(queue.service, "recount_stats")
    seal(queue.conn, leaf)
    return leaf


def seal(conn: Connection[Any], leaf: str, patience: str = "10 seconds") -> bool:
    """Whether it is sealed now."""
    return bool(kit.value(conn, "SELECT streamvibe.seal_partition(%s, %s::interval)", leaf, patience))


def count(conn: Connection[Any], leaf: str) -> int:
    """Its rows."""
    return int(kit.value(conn, "SELECT streamvibe.count_partition(%s)", leaf))


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


def go_on(conn: Connection[Any], user_id: UUID) -> None:
    """Everything that a queue does: jobs are read, asked for, cancelled, claimed, handed back, ended and recovered."""
    assert kit.value(conn, "SELECT count(*) FROM public.job_queue") >= 10
    first, _other = kit.job_id(conn, user_id), kit.job_id(conn, user_id)
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[first])
    kit.release(conn, kit.claim(conn))
    kit.complete(conn, kit.claim(conn))
    kit.call(conn, "expire_stale_jobs")
    kit.call(conn, "recover_stuck_jobs")


@pytest.mark.parametrize("compacted", [False, True])
def test_the_statistics_change_when_they_are_dropped(queue: Queue, compacted: bool) -> None:
    """Sealing changes no number. Dropping takes what is of the leaves, added up or not, and leaves what others did in
    the same minutes; adding up, in steps of any size, changes nothing any more.
    """
    kit.register(queue.conn)
    conn = queue.conn
    leaves = [kit.old_leaf(conn, weeks=weeks) for weeks in (2, 1)]
    # A job of the present that ended in the same minute as those of the older leaf.
    others = [kit.job_id(conn, uuid4()) for _ in range(3)]
    # Those of the leaves took a little less or more than it, in the same group of buckets.
    for leaf, took in zip(leaves, ("6.7 s", "7.3 s"), strict=True):
        conn.execute(f"UPDATE streamvibe.{leaf} SET completed_at = started_at + interval '{took}'".encode())
    conn.execute(
        "UPDATE public.job_queue q SET status = 'completed', started_at = o.at, scheduled_for = o.at,"
        " completed_at = o.at + interval '7 s'"
        f" FROM (SELECT max(completed_at) AS at FROM streamvibe.{leaves[0]}) o WHERE q.id = %s".encode(),
        [others[0]],
    )
    assert kit.call(queue.service, "recount_stats")
    if compacted:
        kit.call(queue.service, "compact_stats")
    before = kit.call_one(conn, "get_job_queue_stats")
    assert (before["completed_jobs"], before["cancelled_jobs"], before["pending_jobs"]) == (19, 2, 2)
    for leaf in leaves:
        assert seal(conn, leaf)
    assert kit.call_one(conn, "get_job_queue_stats") == before
    for leaf in leaves:
        drop(conn, leaf, "10 seconds")
        assert is_gone(conn, leaf)
    after = kit.call_one(conn, "get_job_queue_stats")
    assert (after["total_jobs"], after["pending_jobs"], after["completed_jobs"]) == (3, 2, 1)
    assert after["processing_p50_seconds"] == pytest.approx(7, rel=0.01)
    assert after["processing_p99_seconds"] == pytest.approx(7, rel=0.01)
    ended = kit.value(conn, "SELECT max(completed_at) FROM public.job_queue")
    windows = {
        long: kit.call_one(conn, "get_job_queue_stats", p_since=ended - long)
        for long in (0 * kit.MINUTE, kit.HOUR, kit.DAY)
    }
    day = kit.value(conn, "SELECT date_trunc('day', %s::timestamptz, 'UTC')", ended)
    [of_day] = kit.value(conn, "SELECT streamvibe.day_figures(%s)", day)["job_types"]
    assert (of_day["completed"], of_day["cancelled"], sum(of_day["processing"].values())) == (1, 0, 1)
    for window in windows.values():
        assert (window["completed_jobs"], window["pending_jobs"], window["cancelled_jobs"]) == (1, 2, 0)
        assert window["processing_p99_seconds"] == pytest.approx(7, rel=0.01)
    taken = 0
    while kit.value(queue.service, "SELECT compact_stats(1)"):
        taken += 1
        assert kit.call_one(conn, "get_job_queue_stats") == after
        for long, window in windows.items():
            assert kit.call_one(conn, "get_job_queue_stats", p_since=ended - long) == window
        assert conn.execute(LINT).fetchall() == []
    assert 2 <= taken <= 60
    assert kit.query(conn, "SELECT 1 FROM streamvibe.dropped_leaf") == []
    left = "SELECT DISTINCT leaf_number FROM streamvibe.{} WHERE leaf_number <> 0"
    [present] = kit.query(conn, left.format("stat"))
    assert kit.query(conn, left.format("stat_sketch")) == [present]
    for table in ("stat", "stat_sketch"):
        assert kit.query(conn, f"SELECT * FROM streamvibe.{table} WHERE jobs = 0") == []
    assert kit.call(queue.service, "recount_stats") == []


def test_no_job_is_read_for_it(queue: Queue) -> None:
    """However many jobs are in it: whether one is live is asked of indexes, and nothing is counted."""
    conn = queue.conn
    kit.register(conn)
    leaf = kit.old_leaf(conn, rows=20_000)
    conn.execute(f"ANALYZE streamvibe.{leaf}".encode())
    kit.call(queue.service, "recount_stats")
    with conn.transaction(force_rollback=True), nested_plans(conn) as found:
        assert seal(conn, leaf)
        drop(conn, leaf, "10 seconds")
    read = [
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        for plan in found
        for node in nodes(plan)
        if node.get("Relation Name") == leaf
    ]
    # Live, and to be retried; asked before and under the lock.
    assert len(read) == 4
    assert sum(read) == 0


def test_what_it_left_behind_is_looked_up(database: Database) -> None:
    """Among the sums of thirty leaves, those of the one that is gone are taken out without comparing each with each."""
    conn = database.connect()
    kit.register(conn)
    conn.execute(
        "INSERT INTO streamvibe.stat_sketch (leaf_number, minutes, since, job_type, measure, bucket, jobs)"
        " SELECT CASE m WHEN 0 THEN 0 ELSE leaf END, m, 'epoch', 't' || t, 'waiting', b, 30 - 29 * abs(m)"
        " FROM generate_series(101, 130) leaf, generate_series(1, 10) t, generate_series(1, 100) b,"
        " unnest('{-1,0}'::int[]) m WHERE m = -1 OR leaf = 101"
    )
    conn.execute(
        "INSERT INTO streamvibe.stat_sketch (leaf_number, minutes, since, job_type, measure, bucket, jobs)"
        " SELECT 0, -2, 'epoch', job_type, measure, bucket >> 4, sum(jobs) FROM streamvibe.stat_sketch"
        " WHERE minutes = 0 GROUP BY 4, 5, 6"
    )
    conn.execute("ANALYZE streamvibe.stat_sketch")
    conn.execute("INSERT INTO streamvibe.dropped_leaf VALUES (107)")
    with nested_plans(conn) as found:
        kit.call(conn, "compact_stats")
    read = [
        node["Actual Rows"] * node["Actual Loops"]
        for plan in found
        for node in nodes(plan)
        if node["Node Type"] in ("Materialize", "CTE Scan", "Index Scan", "Index Only Scan")
    ]
    assert max(read) >= 1000
    assert max(read) <= 2500
    left = "SELECT minutes, min(jobs), max(jobs), count(*) FROM streamvibe.stat_sketch GROUP BY 1 ORDER BY 1"
    # The first of seven groups and the last are five and fifteen buckets.
    assert conn.execute(left.encode()).fetchall() == [
        (-2, 29 * 5, 29 * 16, 70),
        (-1, 1, 1, 29_000),
        (0, 29, 29, 1000),
    ]


def test_what_was_wrong_of_it_leaves_with_it(queue: Queue) -> None:
    """An operator deleted jobs of a sealed leaf by hand: the number is wrong until the leaf is dropped, not longer."""
    leaf = old_leaf(queue)
    queue.conn.execute(f"DELETE FROM streamvibe.{leaf} WHERE status = 'cancelled'".encode())
    assert total(queue.conn) == 10
    drop(queue.conn, leaf, "10 seconds")
    assert total(queue.conn) == 0
    assert kit.call(queue.service, "recount_stats") == []


def test_a_recount_between_sealing_and_dropping(queue: Queue) -> None:
    """It mends the numbers, and its jobs leave with the leaf all the same."""
    leaf = old_leaf(queue)
    queue.conn.execute(f"DELETE FROM streamvibe.{leaf} WHERE status = 'cancelled'".encode())
    [wrong] = kit.call(queue.service, "recount_stats")
    assert (wrong["status"], wrong["jobs_before"], wrong["jobs_now"]) == ("cancelled", 1, 0)
    drop(queue.conn, leaf, "10 seconds")
    assert total(queue.conn) == 0
    assert kit.call(queue.service, "recount_stats") == []


@pytest.mark.parametrize("compacted", [False, True])
def test_what_an_older_release_noted(queue: Queue, compacted: bool) -> None:
    """Of which leaf it is nobody said, as after an upgrade: it is counted anew, once, before a leaf is dropped."""
    conn = queue.conn
    kit.register(conn)
    leaf = kit.old_leaf(conn)
    conn.execute(
        "INSERT INTO streamvibe.stat_delta"
        " (job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)"
        " SELECT job_type, status, minute, jobs, waiting_us, processing_us, waited, processed"
        " FROM streamvibe.counted_jobs()"
    )
    if compacted:
        kit.call(queue.service, "compact_stats")
    assert seal(conn, leaf)
    assert total(conn) == 10
    lines = kit.old_leaf(conn, "job_log")
    for _ in range(2):
        with kit.refused("SV001", "p_partition_name"):
            drop(conn, leaf, "10 seconds")
        kit.call(queue.service, "streamvibe.place_sums", p_partition_name=lines)
    kit.call(queue.service, "streamvibe.place_sums", p_partition_name=leaf)
    assert total(conn) == 10
    notes = "SELECT count(*) FROM streamvibe.stat_delta"
    kit.call(queue.service, "compact_stats")
    kit.call(queue.service, "streamvibe.place_sums", p_partition_name=leaf)
    assert kit.value(conn, notes) == 0
    drop(conn, leaf, "10 seconds")
    assert total(conn) == 0
    kit.call(queue.service, "compact_stats")
    assert total(conn) == 0
    assert kit.call(queue.service, "recount_stats") == []


def test_what_is_deleted_is_not_counted_twice(queue: Queue) -> None:
    """Jobs that stay for a shorter time than others, in a leaf that is sealed already, leave with the leaf."""
    leaf = old_leaf(queue)
    kit.register(queue.conn, "email", p_retention="1 hour")
    kit.register(queue.conn, "usual")
    assert kit.value(queue.service, "SELECT cleanup_old_jobs()") == 0
    drop(queue.conn, leaf, "10 seconds")
    assert kit.call(queue.service, "recount_stats") == []
    assert total(queue.conn) == 0


def test_a_leaf_is_not_sealed_while_jobs_are_deleted(queue: Queue) -> None:
    """A cleanup that is under way has the leaf: sealing waits, and sees what it deleted."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn, weeks=4)
    kit.call(queue.service, "recount_stats")
    with (
        queue.database.connect() as cleaner,
        queue.database.connect() as sealer,
        ThreadPoolExecutor(1) as thread,
    ):
        with cleaner.transaction():
            assert kit.value(cleaner, "SELECT cleanup_old_jobs(4)") == 4
            sealed = thread.submit(seal, sealer, leaf, "1 minute")
            waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: kit.value(queue.conn, waits, sealer.info.backend_pid), "it waits")
        assert sealed.result(60)
    assert count(queue.conn, leaf) == 6
    drop(queue.conn, leaf, "10 seconds")
    assert kit.call(queue.service, "recount_stats") == []


@pytest.mark.parametrize("compacted", [False, True])
def test_a_recount_after_dropping(queue: Queue, compacted: bool) -> None:
    """What a dropped leaf left behind and nobody took out yet is neither counted twice nor called wrong."""
    leaf = old_leaf(queue)
    if compacted:
        kit.call(queue.service, "compact_stats")
    drop(queue.conn, leaf, "10 seconds")
    assert kit.call(queue.service, "recount_stats") == []
    assert total(queue.conn) == 0
    assert kit.value(queue.service, "SELECT compact_stats()") == 0


@pytest.mark.parametrize("status", ["pending", "processing", "retry"])
def test_a_leaf_with_a_job_that_goes_on_is_not_sealed(queue: Queue, status: str) -> None:
    """Live, or failed and to be retried: the leaf stays; once the job has ended for good it is sealed."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn)
    values = {
        "pending": "status = 'pending', completed_at = NULL",
        "processing": "status = 'processing', completed_at = NULL, worker_id = 'w', claim_token = 1",
        "retry": "status = 'failed', retry_count = 7, retry_at = 'infinity'",
    }[status]
    one = f"UPDATE streamvibe.{leaf} SET {{}} WHERE id = (SELECT id FROM streamvibe.{leaf} ORDER BY id DESC LIMIT 1)"
    queue.conn.execute(one.format(values).encode())
    assert not seal(queue.conn, leaf)
    with kit.refused("SV001", "p_partition_name"):
        count(queue.conn, leaf)
    with kit.refused("SV001", "p_partition_name"):
        drop(queue.conn, leaf, "10 seconds")
    queue.conn.execute(one.format("status = 'failed', retry_at = NULL, completed_at = created_at").encode())
    assert seal(queue.conn, leaf)
    assert count(queue.conn, leaf) == 10


def test_sealing_waits_for_who_wrote_to_it(queue: Queue) -> None:
    """A transaction that made a job in it and has not ended since: others go on meanwhile, and its job is seen."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn)
    conn = queue.conn
    kit.worker(conn)
    user_id = uuid4()
    with (
        queue.database.connect() as writer,
        queue.database.connect() as sealer,
        ThreadPoolExecutor(1) as thread,
    ):
        with writer.transaction():
            writer.execute(
                f"INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type)"
                f" SELECT streamvibe.make_id(streamvibe.microseconds(created_at), 777), created_at, %s, 'email'"
                f" FROM streamvibe.{leaf} LIMIT 1".encode(),
                [user_id],
            )
            sealed = thread.submit(seal, sealer, leaf, "1 minute")
            wait_until(lambda: is_at_it(conn, sealer), "the lock is waited for")
            conn.execute("SET lock_timeout = '20s'")
            for _ in range(3):
                go_on(conn, uuid4())
            assert not sealed.done()
        assert sealed.result(60) is False
    assert (
        kit.value(conn, "SELECT sealed_at FROM streamvibe.partition WHERE partition_name = %s", leaf) is None
    )


def test_a_leaf_whose_time_is_not_over_is_not_sealed(queue: Queue) -> None:
    """The present one and one of the future are refused by name."""
    for row in kit.query(queue.conn, "SELECT partition_name FROM streamvibe.partition"):
        with kit.refused("SV001", "p_partition_name"):
            seal(queue.conn, row["partition_name"])


def test_lines_leave_in_the_same_way(queue: Queue) -> None:
    """A leaf of job_log is sealed and dropped, and may be counted; the statistics are not touched."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn, "job_log")
    assert seal(queue.conn, leaf) and seal(queue.conn, leaf)
    assert count(queue.conn, leaf) == 10
    drop(queue.conn, leaf, "10 seconds")
    assert is_gone(queue.conn, leaf)
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_log") == 0
    assert kit.query(queue.conn, "SELECT 1 FROM streamvibe.dropped_leaf") == []


def test_others_go_on_while_it_waits(queue: Queue) -> None:
    """While somebody has rows of the leaf locked, everything else goes on; when that has ended, the leaf is gone."""
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
            writer.execute(f"SELECT id FROM streamvibe.{leaf} FOR UPDATE".encode())
            dropped = thread.submit(drop, dropper, leaf, "1 minute")
            wait_until(lambda: is_at_it(conn, dropper), "the lock is waited for")
            conn.execute("SET lock_timeout = '20s'")
            for _ in range(5):
                go_on(conn, user_id)
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
    """Leaves are dropped one after the other, whoever comes first; of two who drop the same one, one is told."""
    leaf = old_leaf(queue)
    conn = queue.conn
    older = kit.old_leaf(conn, weeks=2)
    assert kit.call(queue.service, "recount_stats") != []
    assert seal(conn, older) and seal(conn, leaf)
    user_id = uuid4()
    with (
        queue.database.connect() as one,
        queue.database.connect() as other,
        queue.database.connect() as third,
        ThreadPoolExecutor(3) as threads,
    ):
        with queue.database.connect() as reader, reader.transaction():
            # So that all of them are under way at once.
            reader.execute(
                f"SELECT id FROM streamvibe.{leaf} UNION SELECT id FROM streamvibe.{older}".encode()
            )
            both = [
                threads.submit(drop, one, leaf, "1 minute"),
                threads.submit(drop, other, older, "1 minute"),
            ]
            wait_until(lambda: is_at_it(conn, one) and is_at_it(conn, other), "both wait")
            twice = threads.submit(drop, third, leaf, "1 minute")
            for _ in range(3):
                kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[kit.job_id(conn, user_id)])
        failed = [dropped.exception(60) for dropped in (*both, twice)]
    assert [type(error).__name__ for error in failed if error is not None] == ["DatabaseError"]
    assert [error.sqlstate for error in failed if isinstance(error, psycopg.Error)] == ["SV009"]
    assert is_gone(conn, leaf) and is_gone(conn, older)
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
        with kit.refused("SV001", "p_patience"):
            queue.conn.execute("SELECT streamvibe.seal_partition(%s, %s::interval)", [leaf, patience])


@pytest.mark.parametrize("function", ["seal_partition", "count_partition", "place_sums", "drop_partition"])
def test_an_unknown_leaf(queue: Queue, function: str) -> None:
    """A name that is no leaf's is refused by name."""
    with kit.refused("SV009", "p_partition_name"):
        kit.call(queue.conn, f"streamvibe.{function}", p_partition_name="job_queue")


@pytest.mark.parametrize("function", ["seal_partition", "count_partition", "place_sums", "drop_partition"])
def test_in_a_transaction_with_one_snapshot(queue: Queue, function: str) -> None:
    """Refused: what is looked at and what is locked would be of different moments."""
    leaf = old_leaf(queue)
    with queue.database.connect() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with other.transaction(), kit.refused("SV006"):
            kit.call(other, f"streamvibe.{function}", p_partition_name=leaf)


def test_what_keeps_a_leaf_is_looked_for_in_what_ended_lately(database: Database) -> None:
    """However many old jobs are in a leaf, which of them may go is told by a few entries of an index."""
    conn = database.connect()
    kit.register(conn)
    leaf = kit.old_leaf(conn, weeks=3, rows=20_000)
    conn.execute(f"ANALYZE streamvibe.{leaf}".encode())
    read = (
        "SELECT i.n + t.seq_tup_read FROM pg_stat_user_tables t,"
        f" (SELECT sum(idx_tup_read) AS n FROM pg_stat_user_indexes WHERE relname = '{leaf}') i"
        f" WHERE t.relname = '{leaf}'"
    )
    conn.execute("SELECT pg_stat_force_next_flush()")
    before = kit.value(conn, read)
    rows = kit.query(conn, "SELECT partition_name FROM streamvibe.old_partitions()")
    assert [row["partition_name"] for row in rows] == [leaf]
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert kit.value(conn, read) - before <= 10
