"""cleanup_old_logs: lines of types that keep them for a shorter time than others."""

from datetime import timedelta
from uuid import UUID, uuid4

from tests.sql import kit
from tests.sql.conftest import Queue


def cleanup(queue: Queue, limit: int = 1000) -> int:
    return int(kit.call_one(queue.service, "cleanup_old_logs", p_limit=limit)["cleanup_old_logs"])


def logged(queue: Queue, job_type: str, count: int) -> UUID:
    """A job of this type that has said so much now."""
    job_id = kit.job_id(queue.conn, uuid4(), job_type)
    kit.worker(queue.conn)
    jobs = kit.claim(queue.conn, limit=1, p_job_types=[job_type])
    lines = kit.held(jobs * count)
    kit.call(
        queue.conn,
        "append_job_logs",
        **lines,
        p_levels=["info"] * count,
        p_messages=[f"line {n}" for n in range(count)],
    )
    kit.complete(queue.conn, jobs)
    return job_id


def lines_of(queue: Queue, job_id: UUID) -> int:
    return int(kit.value(queue.conn, "SELECT count(*) FROM public.job_log WHERE job_id = %s", job_id))


def two_types(queue: Queue) -> None:
    kit.register(queue.conn, "short", p_log_retention="1 day")
    kit.register(queue.conn, "usual")


def test_lines_go_when_their_types_time_is_over(clocked: Queue) -> None:
    """Also those whose job is gone; younger ones, and other types', stay."""
    two_types(clocked)
    old, usual = logged(clocked, "short", 7), logged(clocked, "usual", 7)
    assert cleanup(clocked) == 0
    clocked.advance(25 * kit.HOUR)
    young = logged(clocked, "short", 3)
    clocked.conn.execute("DELETE FROM public.job_queue WHERE id = %s", [old])
    assert cleanup(clocked) == 7
    assert [lines_of(clocked, job) for job in (old, usual, young)] == [0, 7, 3]
    assert cleanup(clocked) == 0
    clocked.advance(25 * kit.HOUR)
    assert cleanup(clocked) == 3
    assert lines_of(clocked, usual) == 7


def test_in_bounded_batches(clocked: Queue) -> None:
    """A call deletes p_limit at most, passes over other types' lines, and nothing is forgotten between two."""
    two_types(clocked)
    jobs = [logged(clocked, name, 8) for name in ("usual", "short", "usual", "short", "short")]
    clocked.advance(25 * kit.HOUR)
    deleted = [cleanup(clocked, 10) for _ in range(4)]
    assert sum(deleted) == 24 and max(deleted) <= 10 + 8 and deleted[-1] == 0
    assert [lines_of(clocked, job) for job in jobs] == [8, 0, 8, 0, 0]


def test_a_rare_type_among_many_lines_of_others(clocked: Queue) -> None:
    """A call that found none among all that it looked at says that there is more."""
    two_types(clocked)
    usual, rare = logged(clocked, "usual", 450), logged(clocked, "short", 1)
    clocked.advance(25 * kit.HOUR)
    assert [cleanup(clocked, 4), cleanup(clocked, 4), cleanup(clocked, 4)] == [1, 1, 0]
    assert [lines_of(clocked, usual), lines_of(clocked, rare)] == [450, 0]


def test_many_types_are_looked_at_together_no_longer_than_one(clocked: Queue) -> None:
    """Whoever keeps one type's lines for long makes all others short ones: a call reads 100 batches all the same."""
    kit.register(clocked.conn, "usual")
    usual = logged(clocked, "usual", 800)
    for n in range(5):
        kit.register(clocked.conn, f"short{n}", p_log_retention="1 day")
    rare = [logged(clocked, f"short{n}", 1) for n in range(5)]
    clocked.advance(25 * kit.HOUR)
    clocked.conn.execute("VACUUM ANALYZE public.job_log")
    before = entries_read(clocked)
    assert cleanup(clocked, 2) == 1
    # Each type's own last look comes to that.
    assert entries_read(clocked) - before <= 200 + 6 * 2
    while cleanup(clocked, 2):
        pass
    assert [lines_of(clocked, job) for job in rare] == [0] * 5 and lines_of(clocked, usual) == 800


def test_what_was_passed_over_is_not_read_again(clocked: Queue) -> None:
    """Every call after the first reads what is new, whatever other types have written before."""
    two_types(clocked)
    logged(clocked, "usual", 500)
    logged(clocked, "short", 1)
    clocked.advance(25 * kit.HOUR)
    assert cleanup(clocked, 10) == 1
    clocked.conn.execute("VACUUM ANALYZE public.job_log")
    before = entries_read(clocked)
    assert before >= 500
    assert cleanup(clocked) == 0
    assert entries_read(clocked) - before <= 2


def entries_read(queue: Queue) -> int:
    """Of the primary keys of lines, so far."""
    queue.service.execute("SELECT pg_stat_force_next_flush()")
    return int(
        kit.value(
            queue.conn,
            "SELECT coalesce(sum(s.idx_tup_read), 0)::bigint FROM pg_stat_user_indexes s"
            " WHERE s.relname LIKE 'job_log%%' AND s.indexrelname LIKE '%%pkey'",
        )
    )


def test_a_locked_line_and_a_sealed_partition_are_passed_over(clocked: Queue) -> None:
    """Nobody is waited for, and what is counted already leaves with its partition."""
    two_types(clocked)
    job_id = logged(clocked, "short", 3)
    leaf = kit.old_leaf(clocked.conn, "job_log", weeks=2)
    clocked.conn.execute(f"UPDATE streamvibe.{leaf} SET job_type = 'short'".encode())
    assert kit.value(clocked.conn, "SELECT streamvibe.seal_partition(%s)", leaf)
    clocked.advance(25 * kit.HOUR)
    with clocked.database.connect() as other, other.transaction():
        other.execute("SELECT FROM public.job_log WHERE job_id = %s LIMIT 1 FOR SHARE", [job_id])
        clocked.service.execute("SET lock_timeout = '1s'")
        assert cleanup(clocked) == 2
    assert kit.value(clocked.conn, f"SELECT count(*) FROM streamvibe.{leaf}") == 10


def test_with_an_archive_lines_leave_with_their_partition(clocked: Queue) -> None:
    """It takes whole partitions: what is deleted here would not be in it."""
    two_types(clocked)
    job_id = logged(clocked, "short", 3)
    clocked.advance(timedelta(days=2))
    kit.call(clocked.service, "set_archive", p_url="file:///tmp/archive", p_archive_id=uuid4())
    assert cleanup(clocked) == 0
    assert lines_of(clocked, job_id) == 3
    kit.call(clocked.service, "set_archive", p_url=None, p_archive_id=None)
    assert cleanup(clocked) == 3
