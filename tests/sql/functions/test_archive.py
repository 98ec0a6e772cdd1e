"""What leaves waits for the archive: leaves are not dropped, deleted jobs are kept, and one process writes."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.waiting import wait_until

URL = "file:///srv/archive"


def switch_on(conn: Connection[Any], url: str | None = URL) -> None:
    kit.call(conn, "set_archive", p_url=url, p_archive_id=uuid4())


def ready_leaf(queue: Queue, parent: str = "job_queue") -> str:
    """A leaf of three weeks ago, sealed and counted."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn, parent, weeks=3)
    kit.call(queue.service, "recount_stats")
    assert kit.value(queue.service, "SELECT streamvibe.seal_partition(%s)", leaf)
    assert kit.value(queue.service, "SELECT streamvibe.count_partition(%s)", leaf) == 10
    return leaf


def lead(conn: Connection[Any], name: str = "one") -> int | None:
    found: int | None = kit.value(conn, "SELECT streamvibe.lead_archive(%s)", name)
    return found


def write_files(
    conn: Connection[Any], fence: int | None, source: str, kind: str = "jobs", less: int = 0
) -> list[int]:
    """A verified file for each day of a source, as the archive does it; no object is written."""
    ids = []
    for day in kit.query(conn, "SELECT * FROM streamvibe.archive_days(%s)", source):
        key = f"{kind}/{source}-{uuid4().hex}.parquet"
        file_id = kit.value(
            conn,
            "SELECT streamvibe.begin_archive_file(%s, %s, %s, %s, %s, %s)",
            *(fence, kind, source, day["day"], URL, key),
        )
        kit.value(
            conn,
            "SELECT streamvibe.end_archive_file(%s, %s, %s, 1, %s)",
            *(fence, file_id, day["row_count"] - less, day["checksum"]),
        )
        ids.append(file_id)
    return ids


def finish(conn: Connection[Any], fence: int | None, source: str) -> bool:
    return bool(kit.value(conn, "SELECT streamvibe.finish_archive(%s, %s)", fence, source))


def short_stay(queue: Queue, jobs: int = 3) -> list[UUID]:
    """Completed jobs of a type that stays for a second, whose time is over."""
    kit.register(queue.conn, "short", p_retention="1 second")
    kit.register(queue.conn)
    kit.worker(queue.conn)
    ids = [kit.job_id(queue.conn, job_type="short", p_idempotency_key=f"key {n}") for n in range(jobs)]
    kit.complete(queue.conn, kit.claim(queue.conn, limit=jobs), result={"ok": [1, "é", None]})
    queue.conn.execute("UPDATE public.job_queue SET completed_at = completed_at - interval '1 hour'")
    kit.call(queue.service, "recount_stats")
    return ids


@pytest.mark.parametrize("parent", ["job_queue", "job_log"])
def test_a_leaf_is_not_dropped_before_it_is_archived(queue: Queue, parent: str) -> None:
    """Whoever drops it: refused by name once an archive is set; dropped when every row of it is in complete files."""
    leaf = ready_leaf(queue, parent)
    assert kit.value(queue.service, "SELECT streamvibe.awaits_archive(%s)", leaf) is False
    switch_on(queue.service)
    assert kit.value(queue.service, "SELECT streamvibe.awaits_archive(%s)", leaf) is True
    for conn in (queue.service, queue.conn):
        with kit.refused("SV001", "p_partition_name", leaf):
            conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
    fence = lead(queue.service)
    kind = "jobs" if parent == "job_queue" else "logs"
    write_files(queue.service, fence, leaf, kind)
    assert kit.query(queue.service, "SELECT * FROM get_archive_files()") == []
    assert finish(queue.service, fence, leaf)
    assert kit.value(queue.service, "SELECT streamvibe.awaits_archive(%s)", leaf) is False
    queue.service.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
    assert kit.value(queue.service, "SELECT sum(row_count) FROM get_archive_files()") == 10
    assert kit.call(queue.service, "recount_stats") == []


def test_a_leaf_is_dropped_unarchived_when_the_archive_is_off(queue: Queue) -> None:
    """Switched off again, what leaves is gone, as it was without one."""
    leaf = ready_leaf(queue)
    switch_on(queue.service)
    kit.call(queue.service, "set_archive", p_url=None)
    queue.service.execute("SELECT streamvibe.drop_partition(%s)", [leaf])


def test_a_drop_under_way_and_the_archive(queue: Queue) -> None:
    """Setting the archive waits for a drop that had not seen it; none begins unarchived after it."""
    leaf = ready_leaf(queue)
    with queue.database.connect() as other, ThreadPoolExecutor(1) as thread:
        with queue.conn.transaction():
            queue.conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
            switched = thread.submit(switch_on, other)
            wait_until(lambda: waits_for_lock(queue.service, other), "it waits")
            assert not switched.done()
        switched.result(30)


def waits_for_lock(conn: Connection[Any], other: Connection[Any]) -> bool:
    text = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    return bool(kit.value(conn, text, other.info.backend_pid))


def test_a_source_with_other_rows_is_not_finished(queue: Queue) -> None:
    """Files with fewer rows than the leaf, or a leaf that is not counted, change nothing."""
    leaf = ready_leaf(queue)
    switch_on(queue.service)
    fence = lead(queue.service)
    write_files(queue.service, fence, leaf, less=1)
    assert not finish(queue.service, fence, leaf)
    queue.conn.execute("DELETE FROM streamvibe.archive_file")
    write_files(queue.service, fence, leaf)
    kit.call(queue.service, "recount_stats")  # takes the count back
    assert not finish(queue.service, fence, leaf)
    assert kit.value(queue.service, "SELECT streamvibe.awaits_archive(%s)", leaf)
    assert kit.value(queue.service, "SELECT streamvibe.count_partition(%s)", leaf) == 10
    assert finish(queue.service, fence, leaf)


def test_an_unverified_file_is_not_finished(queue: Queue) -> None:
    """What was not read back is not part of the archive."""
    leaf = ready_leaf(queue)
    fence = lead(queue.service)
    begin = "SELECT streamvibe.begin_archive_file(%s, 'jobs', %s, '2026-01-01', %s, 'a')"
    kit.value(queue.service, begin, fence, leaf, URL)
    with kit.refused("SV001", "p_source", leaf):
        finish(queue.service, fence, leaf)
    # Rejected, it is to be deleted, and in nobody's way.
    file_id = kit.value(queue.conn, "SELECT id FROM streamvibe.archive_file")
    kit.value(queue.service, "SELECT streamvibe.reject_archive_file(%s, %s)", fence, file_id)
    write_files(queue.service, fence, leaf)
    assert finish(queue.service, fence, leaf)
    to_delete = "SELECT file_id FROM streamvibe.unfinished_archive_files() WHERE to_delete"
    assert kit.query(queue.service, to_delete) == [{"file_id": file_id}]


def test_nothing_is_archived_twice(queue: Queue) -> None:
    """A second complete file of the same source and day is impossible."""
    leaf = ready_leaf(queue)
    fence = lead(queue.service)
    for _ in range(2):
        write_files(queue.service, fence, leaf)
        if _ == 0:
            assert finish(queue.service, fence, leaf)
    with pytest.raises(psycopg.errors.UniqueViolation):
        finish(queue.service, fence, leaf)


def test_deleted_jobs_wait_for_the_archive(queue: Queue) -> None:
    """cleanup_old_jobs() moves jobs, with every column, when there is an archive; without one they are gone."""
    ids = short_stay(queue)
    before = kit.query(queue.conn, "SELECT * FROM public.job_queue ORDER BY id")
    switch_on(queue.service)
    assert kit.value(queue.service, "SELECT cleanup_old_jobs()") == 3
    moved = kit.query(queue.conn, "SELECT * FROM streamvibe.leaving_job ORDER BY id")
    assert [{name: row[name] for name in before[0]} for row in moved] == before
    assert [row["id"] for row in before] == ids
    assert kit.query(queue.conn, "SELECT 1 FROM public.job_queue") == []
    assert kit.call(queue.service, "recount_stats") == []
    queue.clear()
    short_stay(queue)
    assert kit.value(queue.service, "SELECT cleanup_old_jobs()") == 3
    assert kit.query(queue.conn, "SELECT 1 FROM streamvibe.leaving_job") == []


def test_a_waiting_job_has_every_column_of_a_job(queue: Queue) -> None:
    """Nobody adds a column to job_queue and forgets leaving_job, or what the archive reads."""
    columns = (
        "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    )
    jobs = kit.query(queue.conn, columns, "public.job_queue")
    waiting = kit.query(queue.conn, columns, "streamvibe.leaving_job")
    assert waiting[: len(jobs)] == jobs
    for view, table, own in (
        ("archivable_job", "public.job_queue", {"place", "batch", "row_id", "row_user_id", "digest"}),
        ("archivable_line", "public.job_log", {"row_id", "row_user_id", "digest"}),
    ):
        seen = {row["name"] for row in kit.query(queue.conn, columns, f"streamvibe.{view}")}
        # A line's type, which tells when it leaves, is its job's.
        left_out = {"job_type"} if table == "public.job_log" else set()
        assert seen - own == {row["name"] for row in kit.query(queue.conn, columns, table)} - left_out


def test_deleted_jobs_leave_when_they_are_archived(queue: Queue) -> None:
    """A batch stays the same until it is finished; its jobs go in the same step in which its files count."""
    ids = short_stay(queue, 5)
    switch_on(queue.service)
    kit.call(queue.service, "cleanup_old_jobs")
    fence = lead(queue.service)
    batch = kit.value(queue.service, "SELECT streamvibe.plan_leaving(%s, 3)", fence)
    assert kit.value(queue.service, "SELECT streamvibe.plan_leaving(%s, 3)", fence) == batch
    source = f"leaving-{batch}"
    write_files(queue.service, fence, source, less=1)
    assert not finish(queue.service, fence, source)
    queue.conn.execute("DELETE FROM streamvibe.archive_file")
    write_files(queue.service, fence, source)
    assert finish(queue.service, fence, source)
    left = kit.query(queue.conn, "SELECT id FROM streamvibe.leaving_job ORDER BY id")
    assert [row["id"] for row in left] == ids[3:]
    following = kit.value(queue.service, "SELECT streamvibe.plan_leaving(%s, 3)", fence)
    assert following == batch + 1
    write_files(queue.service, fence, f"leaving-{following}")
    assert finish(queue.service, fence, f"leaving-{following}")
    assert kit.value(queue.service, "SELECT streamvibe.plan_leaving(%s, 3)", fence) is None
    assert kit.value(queue.service, "SELECT sum(row_count) FROM get_archive_files()") == 5


def test_the_archive_is_not_switched_off_over_waiting_jobs(queue: Queue) -> None:
    """Refused with their number, and nothing changes; --discard loses them, and says how many."""
    short_stay(queue)
    switch_on(queue.service)
    kit.call(queue.service, "cleanup_old_jobs")
    with kit.refused("SV001", "p_discard", "3 jobs wait to be archived"):
        kit.call(queue.service, "set_archive", p_url=None)
    assert kit.call_one(queue.service, "get_archive")["url"] == URL
    [row] = kit.call(queue.service, "set_archive", p_url=None, p_discard=True)
    assert row == {"set_archive": 3}
    assert kit.query(queue.conn, "SELECT 1 FROM streamvibe.leaving_job") == []


def test_switching_off_waits_for_a_deletion_under_way(queue: Queue) -> None:
    """Jobs that are being moved while the archive is switched off are seen, and refused over."""
    short_stay(queue)
    switch_on(queue.service)
    with queue.database.connect() as other, ThreadPoolExecutor(1) as thread:
        with queue.conn.transaction():
            assert kit.value(queue.conn, "SELECT cleanup_old_jobs()") == 3
            off = thread.submit(kit.call, other, "set_archive", p_url=None)
            wait_until(lambda: waits_for_lock(queue.service, other), "it waits")
        with kit.refused("SV001", "p_discard", "3 jobs wait to be archived"):
            off.result(30)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "/srv/archive",
            "file://srv/archive",
            "file:///srv?x=1",
            "https://bucket/x",
            "s3://",
            "s3://B/x",
        ),
        *("s3://key:secret@bucket/x", "s3://bucket/x?secret=1", "s3://bucket/key:secret@x"),
    ],
)
def test_a_bad_place(queue: Queue, url: str) -> None:
    """Refused with the field and the fix; a secret in it is not repeated."""
    with kit.refused("SV001", "p_url") as caught:
        switch_on(queue.service, url)
    assert "secret" not in str(caught.value.diag.message_detail)
    assert kit.call_one(queue.service, "get_archive")["url"] is None


def test_only_one_process_writes(queue: Queue) -> None:
    """Of two, one has the fence; once the other took over, everything under the old one is refused."""
    leaf = ready_leaf(queue)
    first = lead(queue.service)
    assert first is not None and lead(queue.service) == first
    assert lead(queue.service, "other") is None
    queue.conn.execute("UPDATE streamvibe.archiver SET expires_at = streamvibe.now() - interval '1 second'")
    second = lead(queue.service, "other")
    assert second == first + 1
    assert lead(queue.service) is None
    for statement in (
        f"SELECT streamvibe.plan_leaving({first})",
        f"SELECT streamvibe.begin_archive_file({first}, 'jobs', '{leaf}', '2026-01-01', '{URL}', 'x')",
        f"SELECT streamvibe.end_archive_file({first}, 1, 1, 1, 1)",
        f"SELECT streamvibe.finish_archive({first}, '{leaf}')",
        f"SELECT streamvibe.replace_archive_file({first}, 1, NULL)",
        f"SELECT streamvibe.forget_archive_file({first}, 1)",
        f"SELECT streamvibe.reject_archive_file({first}, 1)",
        f"SELECT streamvibe.finish_erasure({first}, gen_random_uuid(), gen_random_uuid())",
    ):
        with kit.refused("SV016", "p_fence", str(first)):
            queue.service.execute(statement.encode())
    queue.service.execute("SELECT streamvibe.resign_archive(%s)", [first])
    assert lead(queue.service) is None
    queue.service.execute("SELECT streamvibe.resign_archive(%s)", [second])
    assert lead(queue.service) == second + 1


def test_two_who_want_to_write_at_once(queue: Queue) -> None:
    """A step under the fence keeps it until the step commits: who takes over waits for that."""
    leaf = ready_leaf(queue)
    fence = lead(queue.service)
    with queue.database.connect() as other, ThreadPoolExecutor(1) as thread:
        with queue.conn.transaction():
            write_files(queue.conn, fence, leaf)
            assert finish(queue.conn, fence, leaf)
            taken = thread.submit(lead, other, "other")
            wait_until(lambda: waits_for_lock(queue.service, other), "it waits")
        assert taken.result(30) is None
    assert kit.value(queue.service, "SELECT count(*) FROM get_archive_files()") == 1


def test_what_is_not_complete_is_to_be_deleted(queue: Queue) -> None:
    """A file that was begun and not verified, a replaced one, and one whose replacement was not finished."""
    leaf = ready_leaf(queue)
    fence = lead(queue.service)
    [whole] = write_files(queue.service, fence, leaf)
    unfinished = "SELECT file_id, to_delete FROM streamvibe.unfinished_archive_files()"
    assert kit.query(queue.service, unfinished) == [{"file_id": whole, "to_delete": False}]
    assert finish(queue.service, fence, leaf)
    assert kit.query(queue.service, unfinished) == []
    day = kit.value(queue.service, "SELECT day FROM get_archive_files()")
    begin = "SELECT streamvibe.begin_archive_file(%s, 'jobs', %s, %s, %s, %s, %s)"
    other = kit.value(queue.service, begin, fence, leaf, day, URL, "a", whole)
    assert kit.query(queue.service, unfinished) == [{"file_id": other, "to_delete": True}]
    replace = "SELECT streamvibe.replace_archive_file(%s, %s, %s)"
    with kit.refused("SV001", "p_by", str(other)):
        kit.value(queue.service, replace, fence, whole, other)
    kit.value(queue.service, "SELECT streamvibe.end_archive_file(%s, %s, 9, 1, 1)", fence, other)
    assert kit.query(queue.service, unfinished) == [{"file_id": other, "to_delete": True}]
    kit.value(queue.service, replace, fence, whole, other)
    assert kit.query(queue.service, unfinished) == [{"file_id": whole, "to_delete": True}]
    assert kit.value(queue.service, "SELECT array_agg(file_id) FROM get_archive_files()") == [other]
    forget = "SELECT streamvibe.forget_archive_file(%s, %s)"
    kit.value(queue.service, forget, fence, other)  # part of the archive: not forgotten
    kit.value(queue.service, forget, fence, whole)
    assert kit.query(queue.service, unfinished) == []
    # A process that was stopped while it wrote may go on: a week later it is deleted once more, and then forgotten.
    queue.conn.execute("UPDATE streamvibe.archive_file SET deleted_at = deleted_at - interval '8 days'")
    assert kit.query(queue.service, unfinished) == [{"file_id": whole, "to_delete": True}]
    kit.value(queue.service, forget, fence, whole)
    assert kit.value(queue.conn, "SELECT array_agg(id) FROM streamvibe.archive_file") == [other]
    with kit.refused("SV001", "p_replaces", str(whole)):
        kit.value(queue.service, begin, fence, leaf, day, URL, "b", whole)


def test_the_days_of_a_leaf(queue: Queue) -> None:
    """Every day of its ids with its rows, and the cursor gives exactly those, by user, type and id."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn, weeks=3, rows=1)
    lower = kit.value(queue.conn, "SELECT lower_at FROM streamvibe.partition WHERE partition_name = %s", leaf)
    queue.conn.execute(
        f"INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type, status, completed_at, params)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(t.at) + n, n), t.at + n * interval '1 us',"
        " md5((n %% 3)::text)::uuid, CASE n %% 2 WHEN 0 THEN 'email' ELSE 'a' END, 'completed', t.at, %s::jsonb"
        " FROM generate_series(1, 60) n"
        " CROSS JOIN LATERAL (SELECT %s::timestamptz + (n %% 7) * interval '1 day' AS at) t".encode(),
        [json.dumps({"n": 1}), lower],
    )
    with kit.refused("SV001", "p_source", leaf):
        kit.query(queue.service, "SELECT * FROM streamvibe.archive_days(%s)", leaf)
    with kit.refused("SV009", "p_source", "nothing"):
        kit.query(queue.service, "SELECT * FROM streamvibe.archive_days('nothing')")
    assert kit.value(queue.service, "SELECT streamvibe.seal_partition(%s)", leaf)
    days = kit.query(queue.service, "SELECT * FROM streamvibe.archive_days(%s)", leaf)
    assert [day["day"] for day in days] == [(lower + n * kit.DAY).date() for n in range(7)]
    assert sum(day["row_count"] for day in days) == 61
    seen = []
    for day in days:
        with queue.service.transaction():
            kit.value(queue.service, "SELECT streamvibe.open_archive_rows(%s, %s)", leaf, day["day"])
            rows = kit.query(queue.service, "FETCH ALL FROM archive_rows")
        assert len(rows) == day["row_count"]
        order = [(row["user_id"], row["job_type"], row["id"]) for row in rows]
        assert order == sorted(order)
        seen += [UUID(row["id"]) for row in rows]
    stored = kit.query(queue.conn, f"SELECT id FROM streamvibe.{leaf}")
    assert sorted(seen) == sorted(row["id"] for row in stored)
