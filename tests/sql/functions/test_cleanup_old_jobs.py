"""cleanup_old_jobs, old_partitions, forget_idempotency_keys: what leaves, when, and what stays."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server


def finished(queue: Queue, job_type: str, count: int, age: timedelta) -> list[UUID]:
    """Completed jobs of this type that ended so long ago."""
    ids = [kit.job_id(queue.conn, uuid4(), job_type) for _ in range(count)]
    kit.worker(queue.conn)
    kit.complete(queue.conn, kit.claim(queue.conn, limit=count, p_job_types=[job_type]))
    queue.conn.execute("SELECT streamvibe.count_jobs(-1, %s)", [ids])
    queue.conn.execute(
        "UPDATE public.job_queue SET completed_at = streamvibe.now() - %s WHERE id = ANY (%s)", [age, ids]
    )
    queue.conn.execute("SELECT streamvibe.count_jobs(1, %s)", [ids])
    return ids


def cleanup(queue: Queue, limit: int = 1000) -> int:
    return int(kit.call_one(queue.service, "cleanup_old_jobs", p_limit=limit)["cleanup_old_jobs"])


def there(conn: Connection[Any], ids: list[UUID]) -> int:
    """How many of these there are."""
    return int(kit.value(conn, "SELECT count(*) FROM public.job_queue WHERE id = ANY (%s)", ids))


def old(queue: Queue) -> list[str]:
    return [row["partition_name"] for row in kit.call(queue.conn, "streamvibe.old_partitions")]


def test_a_type_that_stays_for_less_than_others(queue: Queue) -> None:
    """Its jobs go when their time is over, and leave the statistics; younger ones and other types' stay."""
    kit.register(queue.conn, "short", p_retention="1 hour")
    kit.register(queue.conn, "usual")
    gone = finished(queue, "short", 7, 2 * kit.HOUR)
    young = finished(queue, "short", 2, 30 * kit.MINUTE)
    usual = finished(queue, "usual", 7, 2 * kit.HOUR)
    live = [kit.job_id(queue.conn, uuid4(), "short")]
    assert cleanup(queue) == 7
    assert [there(queue.conn, ids) for ids in (gone, young, usual, live)] == [0, 2, 7, 1]
    assert cleanup(queue) == 0
    assert kit.call(queue.service, "recount_stats") == []


def test_what_is_in_a_sealed_leaf_stays(queue: Queue) -> None:
    """Also where leaves before and after it are open: its jobs may be in the archive already, and leave with it."""
    kit.register(queue.conn, p_retention="1 hour")
    kit.register(queue.conn, "usual")
    leaves = [kit.old_leaf(queue.conn, weeks=weeks) for weeks in (3, 2, 1)]
    kit.call(queue.service, "recount_stats")
    assert kit.value(queue.conn, "SELECT streamvibe.seal_partition(%s)", leaves[1])
    assert cleanup(queue) == 20
    left = [kit.value(queue.conn, f"SELECT count(*) FROM streamvibe.{leaf}") for leaf in leaves]
    assert left == [0, 10, 0]


def test_in_bounded_batches_also_of_one_moment(queue: Queue) -> None:
    """Hundreds that ended in the same microsecond, among as many of another type, all go, p_limit looked at a call."""
    kit.register(queue.conn, "short", p_retention="1 hour")
    kit.register(queue.conn, "usual")
    ids = finished(queue, "short", 25, 2 * kit.HOUR) + finished(queue, "usual", 25, 2 * kit.HOUR)
    queue.conn.execute("UPDATE public.job_queue SET completed_at = '2020-01-01' WHERE id = ANY (%s)", [ids])
    deleted = [cleanup(queue, 10) for _ in range(6)]
    assert sum(deleted) == 25 and max(deleted) <= 10 and deleted[-1] == 0
    assert there(queue.conn, ids) == 25


def test_a_rare_type_among_many_jobs_of_others(queue: Queue) -> None:
    """A call that found none among all that it looked at says that there is more; however many types there are."""
    kit.register(queue.conn, "usual")
    for name in ("short", "shorter", "shortest"):
        kit.register(queue.conn, name, p_retention="1 hour")
    usual = finished(queue, "usual", 250, 3 * kit.HOUR)
    short = finished(queue, "short", 1, 2 * kit.HOUR)
    deleted = [cleanup(queue, 2) for _ in range(6)]
    # Three types pass over 250 jobs each, 200 a call; one that comes to the end deletes what it finds there.
    assert deleted == [1, 1, 1, 1, 0, 0]
    assert [there(queue.conn, usual), there(queue.conn, short)] == [250, 0]


def test_a_job_to_be_retried_stays(queue: Queue) -> None:
    """A failed job that comes back is not taken away."""
    kit.register(queue.conn, "short", p_retention="1 hour")
    kit.register(queue.conn, "usual")
    ids = finished(queue, "short", 3, 2 * kit.HOUR)
    queue.conn.execute(
        "UPDATE public.job_queue SET status = 'failed', retry_at = 'infinity' WHERE id = %s", [ids[0]]
    )
    assert cleanup(queue) == 2
    assert there(queue.conn, ids[:1]) == 1


def test_a_locked_job_and_one_to_be_retried_stay(queue: Queue) -> None:
    """Nobody is waited for, here for longer than a moment, and all others go."""
    kit.register(queue.conn, "short", p_retention="1 hour")
    kit.register(queue.conn, "usual")
    ids = finished(queue, "short", 3, 2 * kit.HOUR)
    queue.conn.execute(
        "UPDATE public.job_queue SET status = 'failed', retry_at = 'infinity' WHERE id = %s", [ids[0]]
    )
    with queue.database.connect() as other, other.transaction():
        other.execute("SELECT id FROM public.job_queue WHERE id = %s FOR SHARE", [ids[1]])
        queue.service.execute("SET statement_timeout = '10s'")
        assert cleanup(queue) == 1
    assert there(queue.conn, ids[:2]) == 2


def test_a_leaf_that_a_live_job_holds_up(queue: Queue) -> None:
    """A leaf's width after it should have gone, its finished jobs are deleted; the live one, and the leaf, stay."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn, weeks=4)
    younger = kit.old_leaf(queue.conn, weeks=2)
    queue.conn.execute(
        f"UPDATE streamvibe.{leaf} SET status = 'pending', completed_at = NULL"
        f" WHERE id = (SELECT id FROM streamvibe.{leaf} ORDER BY id DESC LIMIT 1)".encode()
    )
    kit.call(queue.service, "recount_stats")
    assert cleanup(queue, 4) == 4
    assert cleanup(queue) == 5
    assert cleanup(queue) == 0
    # The younger one is sealed in time, and is none of its business.
    counts = [kit.value(queue.conn, f"SELECT count(*) FROM streamvibe.{name}") for name in (leaf, younger)]
    assert counts == [1, 10]
    assert kit.call(queue.service, "recount_stats") == []


def test_leaves_that_may_go(queue: Queue) -> None:
    """A leaf goes when the last of its jobs ended as long ago as its type says, lines when 30 days are over."""
    kit.register(queue.conn)
    kit.register(queue.conn, "archive", p_retention="1 year")
    week, fortnight = kit.old_leaf(queue.conn), kit.old_leaf(queue.conn, weeks=3)
    lines = [kit.old_leaf(queue.conn, "job_log", weeks) for weeks in (3, 7)]
    assert old(queue) == [lines[1], fortnight]
    last = f"WHERE id = (SELECT id FROM streamvibe.{fortnight} ORDER BY id DESC LIMIT 1)"
    ended = f"UPDATE streamvibe.{fortnight} SET completed_at = streamvibe.now() - %s {last}".encode()
    queue.conn.execute(ended, [6 * kit.DAY])
    assert old(queue) == [lines[1]]
    queue.conn.execute(ended, [8 * kit.DAY])
    assert old(queue) == [lines[1], fortnight]
    queue.conn.execute(f"UPDATE streamvibe.{fortnight} SET job_type = 'archive' {last}".encode())
    assert old(queue) == [lines[1]]
    assert week not in old(queue)


def test_keys_of_jobs_that_are_gone_are_forgotten(queue: Queue) -> None:
    """A key stays as long as its job's leaf; the same key then makes a new job."""
    kit.register(queue.conn, p_cache_ttl="0")
    user_id = uuid4()
    leaf = kit.old_leaf(queue.conn)
    gone = kit.value(queue.conn, f"SELECT id FROM streamvibe.{leaf} LIMIT 1")
    new = kit.request(queue.conn, user_id, p_idempotency_key="new")["job_id"]
    queue.conn.execute("SELECT streamvibe.remember_key(%s, 'old', %s)", [user_id, gone])
    forget = "forget_idempotency_keys"
    assert kit.call_one(queue.service, forget)[forget] == 0
    kit.call(queue.conn, "streamvibe.seal_partition", p_partition_name=leaf)
    kit.call(queue.conn, "streamvibe.drop_partition", p_partition_name=leaf)
    assert kit.call_one(queue.service, forget)[forget] == 1
    assert kit.query(queue.conn, "SELECT job_id FROM streamvibe.idempotency") == [{"job_id": new}]
    again = kit.request(queue.conn, user_id, p_idempotency_key="old", p_params={"n": 1})
    assert again["outcome"] == "created"


def test_keys_are_forgotten_between_leaves_that_stay(queue: Queue) -> None:
    """Of three leaves the middle one went: its keys go, though an older one is still there."""
    kit.register(queue.conn)
    user_id = uuid4()
    leaves = [kit.old_leaf(queue.conn, weeks=weeks) for weeks in (3, 2, 1)]
    for leaf in leaves:
        job_id = kit.value(queue.conn, f"SELECT id FROM streamvibe.{leaf} LIMIT 1")
        queue.conn.execute("SELECT streamvibe.remember_key(%s, %s, %s)", [user_id, leaf, job_id])
    for function in ("seal_partition", "drop_partition"):
        kit.call(queue.conn, f"streamvibe.{function}", p_partition_name=leaves[1])
    forget = "forget_idempotency_keys"
    assert kit.call_one(queue.service, forget)[forget] == 1
    left = kit.query(queue.conn, "SELECT idempotency_key AS key FROM streamvibe.idempotency")
    assert {row["key"] for row in left} == {leaves[0], leaves[2]}


@pytest.mark.parametrize("limit", [None, 0, 10001])
@pytest.mark.parametrize("function", ["cleanup_old_jobs", "forget_idempotency_keys"])
def test_bad_limit(queue: Queue, function: str, limit: int | None) -> None:
    """No, zero and too many are refused by name."""
    with kit.refused("SV001", "p_limit"):
        kit.call(queue.service, function, p_limit=limit)


# What each row's change is compressed with, noted by a trigger of the table.
NOTE_COMPRESSION = (
    "CREATE TABLE public.noted (compression text)",
    """
    CREATE FUNCTION public.note_compression() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO public.noted VALUES (current_setting('wal_compression'));
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER note AFTER INSERT OR DELETE ON public.job_queue
    FOR EACH ROW EXECUTE FUNCTION public.note_compression()
    """,
)
# An owner of the queue that is no superuser, as platforms give one.
ANOTHER_OWNER = (
    "CREATE ROLE another_owner BYPASSRLS",
    "GRANT USAGE ON SCHEMA streamvibe, public TO another_owner",
    "GRANT ALL ON ALL TABLES IN SCHEMA streamvibe, public TO another_owner",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA streamvibe, public TO another_owner",
    "ALTER FUNCTION public.cleanup_old_jobs OWNER TO another_owner",
    "ALTER FUNCTION streamvibe.create_staged_jobs OWNER TO another_owner",
)


def compressions(queue: Queue, compression: str, owner: Sequence[str], by: str) -> list[str]:
    """What three jobs' changes were compressed with while the setting was this one, which it is again afterwards."""
    kit.register(queue.conn, "short", p_retention="1 hour")
    kit.register(queue.conn, "usual")
    finished(queue, "short", 3, 2 * kit.HOUR)
    with queue.conn.transaction(force_rollback=True):
        for statement in (*NOTE_COMPRESSION, *owner, f"SET LOCAL wal_compression = {compression}"):
            queue.conn.execute(statement.encode())
        if by == "create_jobs":
            new = Jsonb([{"user_id": str(uuid4()), "job_type": "usual"}] * 3)
            assert len(kit.call(queue.conn, "create_jobs", p_jobs=new)) == 3
        else:
            assert kit.value(queue.conn, "SELECT cleanup_old_jobs()") == 3
        assert kit.value(queue.conn, "SELECT current_setting('wal_compression')") == compression
        noted = kit.query(queue.conn, "SELECT compression FROM public.noted")
    return [row["compression"] for row in noted]


@pytest.mark.parametrize(
    ("compression", "owner", "used"),
    [("pglz", (), "off"), ("off", (), "off"), ("pglz", ANOTHER_OWNER, "pglz")],
    ids=["superuser", "off anyway", "another owner"],
)
@pytest.mark.parametrize("by", ["cleanup_old_jobs", "create_jobs"])
def test_whole_pages_are_not_compressed_meanwhile(
    queue: Queue, compression: str, owner: tuple[str, ...], used: str, by: str
) -> None:
    """Where the queue's owner may decide that; afterwards the setting is what it was."""
    assert compressions(queue, compression, owner, by) == [used] * 3


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("by", ["cleanup_old_jobs", "create_jobs"])
def test_other_compressions_are_left_alone(pg15: Server, compression: str, by: str) -> None:
    """They take little time. The server that StreamVibe brings along was built without them, Debian's with both."""
    with new_database(pg15, TEMPLATE) as database:
        assert compressions(Queue(database), compression, (), by) == [compression] * 3
