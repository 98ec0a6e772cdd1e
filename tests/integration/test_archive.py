"""Archiving into a folder: every row once, in files that a question about one user reads little of."""

import random
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.integration.archive_kit import (
    disk,
    drop_old,
    ids_in_archive,
    ids_in_queue,
    known_objects,
    objects,
    old_jobs,
    run,
    switch_on,
    take_over,
)
from tests.sql import kit
from tests.support.databases import Database

from streamvibe.archive import files
from streamvibe.archive.files import GROUP_BYTES, batches_of
from streamvibe.archive.query import Archive
from streamvibe.archive.run import Archiver
from streamvibe.archive.store import MARKER, Store
from streamvibe.errors import ArchiveFailed, InvalidArgument, NotLeader, PartitionMissing


def test_jobs_and_lines_go_from_the_queue_to_the_archive(database: Database, tmp_path: Path) -> None:
    """Old leaves are archived, then dropped; every value can be asked for, and every row is there once."""
    conn = database.connect()
    leaf = old_jobs(conn, rows=30)
    lines = kit.old_leaf(conn, "job_log", weeks=7)
    young = kit.job_id(conn)
    conn.execute(f"UPDATE streamvibe.{leaf} SET params = '{{\"n\": 1}}', result = '[1]'".encode())
    before = kit.query(conn, f"SELECT * FROM streamvibe.{leaf} ORDER BY id")
    messages = kit.query(conn, f"SELECT message FROM streamvibe.{lines} ORDER BY id")
    switch_on(conn, tmp_path)
    done = run(database)
    assert (done.rows, done.files, sorted(done.sources)) == (40, 2, [lines, leaf])
    assert drop_old(conn) == 2
    assert list(ids_in_queue(conn)) == [str(young)]
    with Archive(database.dsn) as archive:
        answer = archive.ask("SELECT * FROM jobs ORDER BY id")
        after = [dict(zip(answer.columns, row, strict=True)) for row in answer]
        asked = archive.ask("SELECT message FROM logs ORDER BY id")
        assert [row[0] for row in asked] == [row["message"] for row in messages]
    for row, kept in zip(before, after, strict=True):
        assert kept.pop("day") == row["created_at"].date()
        assert kept == row | {
            "id": str(row["id"]),
            "user_id": str(row["user_id"]),
            "params": '{"n": 1}',
            "result": "[1]",
        }
    assert kit.call(conn, "recount_stats") == []
    assert run(database).rows == 0
    assert objects(tmp_path) == known_objects(conn)


def test_deleted_jobs_go_to_the_archive(database18: Database, tmp_path: Path, monkeypatch: Any) -> None:
    """What cleanup_old_jobs() deletes is archived in batches until none waits."""
    monkeypatch.setattr("streamvibe.archive.run.BATCH_JOBS", 4)
    conn = database18.connect()
    kit.register(conn)
    kit.register(conn, "short", p_retention="1 second")
    kit.worker(conn)
    ids = {str(kit.job_id(conn, job_type="short")) for _ in range(10)}
    kit.complete(conn, kit.claim(conn, limit=10))
    conn.execute("UPDATE public.job_queue SET completed_at = completed_at - interval '1 hour'")
    switch_on(conn, tmp_path)
    assert kit.value(conn, "SELECT cleanup_old_jobs()") == 10
    assert run(database18).rows == 10
    assert ids_in_archive(database18) == dict.fromkeys(ids, 1)
    assert not ids_in_queue(conn)
    assert len(objects(tmp_path)) == 3


def many_users(conn: Any, leaf: str) -> list[UUID]:
    """2,000 jobs of 40 users and four types in a leaf, on one day."""
    users = [uuid4() for _ in range(40)]
    conn.execute(
        f"INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type, status, completed_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(t.at), n), t.at, (%s::uuid[])[1 + n %% 40],"
        " 'type' || (n / 40 %% 4), 'completed', t.at FROM generate_series(1, 2000) n CROSS JOIN LATERAL"
        f" (SELECT min(created_at) + n * interval '1 ms' AS at FROM streamvibe.{leaf}) t".encode(),
        [users],
    )
    return users


def test_a_question_by_user_and_type_reads_few_row_groups(
    database18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are sorted by user, type and id; statistics, page index and order are written, zstd compresses; so one
    user's jobs of one type are in one group, or two, and only those are read."""
    monkeypatch.setattr(files, "GROUP_ROWS", 50)
    conn = database18.connect()
    leaf = old_jobs(conn, rows=1)
    users = many_users(conn, leaf)
    switch_on(conn, tmp_path)
    assert run(database18).rows == 2001
    [path] = tmp_path.glob("jobs/day=*/*.parquet")
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups == 41
    for number in range(41):
        group = metadata.row_group(number)
        assert group.num_rows <= 50
        names = [group.column(place.column_index).path_in_schema for place in group.sorting_columns]
        assert names == ["user_id", "job_type", "id"]
        for place in range(group.num_columns):
            column = group.column(place)
            assert column.compression == "ZSTD" and column.has_offset_index and column.has_column_index
    rows = pq.read_table(path, columns=["user_id", "job_type", "id"]).to_pylist()
    order = [tuple(row.values()) for row in rows]
    assert order == sorted(order)

    [fragment] = ds.dataset(path, format="parquet").get_fragments()
    for user_id in users:
        wanted = (ds.field("user_id") == str(user_id)) & (ds.field("job_type") == "type2")
        assert 1 <= len(fragment.subset(wanted).row_groups) <= 2
    # What a question does not need may be anything: it is not read.
    wanted = (ds.field("user_id") == str(users[0])) & (ds.field("job_type") == "type2")
    needed = {group.id for group in fragment.subset(wanted).row_groups}
    data = bytearray(path.read_bytes())
    for number in set(range(41)) - needed:
        for place in range(metadata.num_columns):
            column = metadata.row_group(number).column(place)
            start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
            data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    asked = "SELECT id, params FROM jobs WHERE user_id = '{}' AND job_type = 'type2'"
    with Archive(database18.dsn) as archive:
        assert len(list(archive.ask(asked.format(users[0])))) == 13
        with pytest.raises(ArchiveFailed):
            list(archive.ask("SELECT id, params FROM jobs"))


def test_days_that_a_question_does_not_need_are_not_opened(database18: Database, tmp_path: Path) -> None:
    """A question about one day is answered although another day's file is gone."""
    conn = database18.connect()
    for weeks in (2, 3):
        old_jobs(conn, weeks)
    switch_on(conn, tmp_path)
    run(database18)
    first, second = sorted(tmp_path.glob("jobs/day=*/*.parquet"))
    first.unlink()
    day = date.fromisoformat(second.parent.name.removeprefix("day="))
    with Archive(database18.dsn) as archive:
        assert list(archive.ask(f"SELECT count(id) FROM jobs WHERE day = '{day}'")) == [[10]]
        with pytest.raises(ArchiveFailed, match="cannot be read"):
            list(archive.ask("SELECT count(id) FROM jobs"))


def test_neither_many_rows_nor_large_ones_are_held_at_once() -> None:
    """Rows are taken as they come: a group is handed on when it has enough rows or bytes, before more are read."""
    taken = 0

    def lines(size: int) -> Iterator[tuple[Any, ...]]:
        nonlocal taken
        for n in range(100_000):
            taken += 1
            yield (str(n), "job", "user", 0, "info", "x" * size, None)

    groups = batches_of("logs", lines(10))
    assert len(next(groups)) == taken == 10_000
    taken = 0
    groups = batches_of("logs", lines(1_000_000))
    assert len(next(groups)) == taken == -(-GROUP_BYTES // 1_000_000)


def test_a_folder_that_cannot_be_written(database18: Database, tmp_path: Path) -> None:
    """Refused when it is set; when it becomes so later, nothing is dropped, and archiving goes on once it is mended."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    with disk(tmp_path / "disk") as place:
        place.read_only(True)
        with pytest.raises(ArchiveFailed, match="cannot be written") as caught:
            switch_on(conn, place.folder)
        assert caught.value.received == f"file://{place.folder}" and caught.value.fix
        assert kit.call_one(conn, "get_archive")["url"] is None
        place.read_only(False)
        switch_on(conn, place.folder)
        place.read_only(True)
        with pytest.raises(ArchiveFailed, match="cannot be written"):
            run(database18)
        with kit.refused("SV001", "p_partition_name", leaf):
            conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
        assert not ids_in_archive(database18)
        place.read_only(False)
        assert run(database18).rows == 10
        assert objects(place.folder) == known_objects(conn)


def test_a_folder_in_which_no_file_can_be_made() -> None:
    """It is refused at once, also where the system says of every new file that there is no such folder."""
    with pytest.raises(ArchiveFailed, match="cannot be written") as caught:
        Store("file:///proc/self").claim(None)
    assert caught.value.received == "file:///proc/self"


@pytest.mark.parametrize("where", ["archive", "TMPDIR"])
def test_a_full_disk(
    database18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Where the archive is, or where its files are prepared: named, nothing is dropped, and then it goes on."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    noise = random.Random(7).randbytes(400_000).hex()
    conn.execute(f"UPDATE streamvibe.{leaf} SET params = jsonb_build_object('x', %s::text)".encode(), [noise])
    before = ids_in_queue(conn)
    with disk(tmp_path / "disk") as place:
        folder = place.folder
        if where == "TMPDIR":
            monkeypatch.setattr("tempfile.tempdir", str(place.folder))
            folder = tmp_path / "elsewhere"
            folder.mkdir()
        switch_on(conn, folder)
        place.limit(128)
        with pytest.raises(ArchiveFailed, match=r"No space left|File too large") as caught:
            run(database18)
        # Without a disk of its own the limit is that of all files, of which the prepared one is the first.
        prepared = where == "TMPDIR" or not place.is_mounted
        expected = tempfile.gettempdir() if prepared else f"file://{folder}"
        assert (caught.value.received, bool(caught.value.fix)) == (expected, True)
        with kit.refused("SV001", "p_partition_name", leaf):
            conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
        assert ids_in_queue(conn) == before and not ids_in_archive(database18)
        place.limit(0)
        assert run(database18).rows == 10
        assert ids_in_archive(database18) == before
        assert objects(folder) == known_objects(conn)


def flip(path: Path) -> None:
    """Another bit, in the middle of the data."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """The end is missing."""
    path.write_bytes(path.read_bytes()[:-100])


def change_a_value(path: Path) -> None:
    """A whole Parquet file of as many rows, in one of which a value differs."""
    table = pq.read_table(path)
    statuses = ["failed", *table["status"].to_pylist()[1:]]
    place = table.schema.get_field_index("status")
    changed = table.set_column(place, table.schema.field(place), [statuses])
    pq.write_table(changed, path)


def lose_a_row(path: Path) -> None:
    """A whole Parquet file with a row less."""
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize("damage", [flip, cut, change_a_value, lose_a_row, Path.unlink])
def test_an_object_that_reads_back_as_something_else(
    database18: Database, tmp_path: Path, damage: Any
) -> None:
    """Damaged between writing and reading back: not part of the archive, nothing is dropped; the next run mends it."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    before = ids_in_queue(conn)
    switch_on(conn, tmp_path)

    def report(step: str, what: str) -> None:
        if step == "written":
            damage(tmp_path / what)

    with pytest.raises(ArchiveFailed) as caught:
        run(database18, report)
    assert caught.value.fix
    assert not ids_in_archive(database18)
    with kit.refused("SV001", "p_partition_name", leaf):
        conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
    assert run(database18).rows == 10
    assert ids_in_archive(database18) == before
    assert objects(tmp_path) == known_objects(conn)


def test_one_bad_partition_keeps_no_other(database18: Database, tmp_path: Path) -> None:
    """What cannot be archived is said in the end; the others are archived."""
    conn = database18.connect()
    bad, good = old_jobs(conn, 3), old_jobs(conn, 2)
    switch_on(conn, tmp_path)

    def report(step: str, what: str) -> None:
        if step == "written" and bad in what:
            cut(tmp_path / what)

    with pytest.raises(ArchiveFailed):
        run(database18, report)
    archived = "SELECT partition_name FROM streamvibe.partition WHERE archived_at IS NOT NULL"
    assert kit.query(conn, archived) == [{"partition_name": good}]


def test_two_at_once(database18: Database, tmp_path: Path) -> None:
    """While one writes, another is told, or waits for it; every job is archived once."""
    conn = database18.connect()
    old_jobs(conn)
    before = ids_in_queue(conn)
    switch_on(conn, tmp_path)
    is_written, go_on, waits = threading.Event(), threading.Event(), threading.Event()

    def hold(step: str, what: str) -> None:
        if step == "written":
            is_written.set()
            assert go_on.wait(60)

    def waiting(step: str, what: str) -> None:
        if step == "waiting":
            waits.set()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(run, database18, hold)
        assert is_written.wait(60)
        with pytest.raises(NotLeader) as caught:
            run(database18)
        assert caught.value.received and caught.value.fix
        second = threads.submit(run, database18, waiting, wait=True)
        assert waits.wait(60)
        go_on.set()
        assert (first.result(60).rows, second.result(60).rows) == (10, 0)
    assert ids_in_archive(database18) == before
    assert objects(tmp_path) == known_objects(conn)


@pytest.mark.parametrize("point", ["begun", "written", "verified", "ended"])
def test_one_that_was_stopped_for_long(database18: Database, tmp_path: Path, point: str) -> None:
    """Another took over meanwhile: what the first goes on with is refused, and every job is archived once."""
    conn = database18.connect()
    old_jobs(conn)
    before = ids_in_queue(conn)
    switch_on(conn, tmp_path)

    def sleep(step: str, what: str) -> None:
        if step == point:
            take_over(conn)
            assert run(database18).rows == 10

    with pytest.raises(NotLeader):
        run(database18, sleep)
    assert ids_in_archive(database18) == before
    # It may have written an object after others were cleared up; it is cleared up later.
    assert objects(tmp_path) >= known_objects(conn)
    conn.execute("UPDATE streamvibe.archive_file SET deleted_at = deleted_at - interval '8 days'")
    run(database18)
    assert objects(tmp_path) == known_objects(conn)


def test_a_user_who_is_erased_while_a_leaf_is_archived(database18: Database, tmp_path: Path) -> None:
    """Files that were written with the user's rows are written again without; nothing of the user is archived."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    victim = kit.value(conn, f"SELECT user_id FROM streamvibe.{leaf} ORDER BY id LIMIT 1")
    switch_on(conn, tmp_path)
    states: list[str] = []

    def erase(step: str, what: str) -> None:
        if step == "verified" and not states:
            for _ in range(2):
                states.append(kit.call_one(conn, "erase_user", p_user_id=victim)["state"])

    with Archiver(database18.dsn, report=erase) as archiver:
        done = archiver.run(wait=False)
    assert (states, done.rows, done.erased) == (["working", "archive"], 9, 1)
    with Archive(database18.dsn) as archive:
        assert list(archive.ask(f"SELECT count(*), count(*) FILTER (user_id = '{victim}') FROM jobs")) == [
            [9, 0]
        ]
    assert objects(tmp_path) == known_objects(conn)
    drop_old(conn)
    assert kit.call(conn, "recount_stats") == []


def test_an_archive_that_moves(database18: Database, tmp_path: Path) -> None:
    """Set to another folder, what is in the first one stays part of it; off, it can still be asked."""
    conn = database18.connect()
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, weeks in ((one, 3), (other, 2)):
        folder.mkdir()
        switch_on(conn, folder)
        old_jobs(conn, weeks)
        assert run(database18).rows == 10
        assert len(objects(folder)) == 1
        drop_old(conn)
    kit.call(conn, "set_archive", p_url=None)
    assert sum(ids_in_archive(database18).values()) == 20
    victim = next(iter(Archive(database18.dsn).ask("SELECT user_id FROM jobs ORDER BY id LIMIT 1")))[0]
    while kit.call_one(conn, "erase_user", p_user_id=UUID(victim))["state"] != "archive":
        pass
    assert run(database18).erased == 1
    assert sum(ids_in_archive(database18).values()) == 19


def test_another_queues_archive(database18: Database, tmp_path: Path) -> None:
    """A place that is another database's is refused; the queue's own can be set again."""
    conn = database18.connect()
    url = switch_on(conn, tmp_path)
    with pytest.raises(InvalidArgument, match="another queue's archive"):
        Store(url).claim(uuid4())
    with pytest.raises(InvalidArgument, match="another queue's archive"):
        Store(url).claim(None)
    assert switch_on(conn, tmp_path) == url


def test_a_folder_that_is_not_mounted(database18: Database, tmp_path: Path) -> None:
    """Empty, or away: nothing is written there, nothing is dropped, and the error says what to do."""
    conn = database18.connect()
    old_jobs(conn)
    folder = tmp_path / "mount"
    folder.mkdir()
    switch_on(conn, folder)
    marker = (folder / MARKER).read_bytes()
    (folder / MARKER).unlink()
    with pytest.raises(ArchiveFailed, match="The archive is not there") as caught:
        run(database18)
    assert caught.value.fix and not objects(folder)
    folder.rmdir()
    with pytest.raises(ArchiveFailed, match="folder of the archive is not there"):
        run(database18)
    folder.mkdir()
    (folder / MARKER).write_bytes(b"garbage")
    with pytest.raises(ArchiveFailed, match="cannot be read"):
        run(database18)
    (folder / MARKER).write_bytes(marker)
    assert run(database18).rows == 10


def test_what_a_killed_write_left_beside_an_object_goes_with_it(tmp_path: Path) -> None:
    """obstore writes into a file of another name first; deleting the object deletes that, and no other's."""
    store = Store(f"file://{tmp_path}")
    for name in ("a.parquet", "a.parquet#1", "a.parquet#12", "b.parquet#1"):
        (tmp_path / name).write_bytes(b"x")
    store.delete("a.parquet")
    store.delete("a.parquet")
    assert objects(tmp_path) == {"b.parquet#1"}


def test_a_place_that_the_archive_has_left(database18: Database, tmp_path: Path) -> None:
    """An object that is to be deleted in a folder that is gone keeps nothing from being archived elsewhere; it is said,
    and nobody counts as erased before it can be deleted."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    switch_on(conn, one)

    def leave(step: str, what: str) -> None:
        if step == "written":
            one.rename(tmp_path / "away")

    with pytest.raises(ArchiveFailed):
        run(database18, leave)
    switch_on(conn, other)
    with pytest.raises(ArchiveFailed, match="is not there"):
        run(database18)
    assert sum(ids_in_archive(database18).values()) == 10 and len(objects(other)) == 1
    victim = kit.value(conn, f"SELECT user_id FROM streamvibe.{leaf} LIMIT 1")
    while kit.call_one(conn, "erase_user", p_user_id=victim)["state"] != "archive":
        pass
    with pytest.raises(ArchiveFailed, match="is not there"):
        run(database18)
    assert kit.call_one(conn, "get_archive")["erasures"] == 1
    (tmp_path / "away").rename(one)
    assert run(database18).erased == 1
    assert not objects(one) and sum(ids_in_archive(database18).values()) == 9


@pytest.mark.parametrize("harm", ["gone", "garbage"])
def test_a_file_that_cannot_be_read_keeps_no_user_in_the_others(
    database18: Database, tmp_path: Path, harm: str
) -> None:
    """Everybody is erased from the files that can be read; nobody counts as erased before the last can be."""
    conn = database18.connect()
    leaves = [old_jobs(conn, weeks) for weeks in (2, 3)]
    users = [uuid4(), uuid4()]
    for leaf in leaves:
        for user_id, n in zip(users, (0, 1), strict=True):
            conn.execute(
                f"UPDATE streamvibe.{leaf} SET user_id = %s"
                f" WHERE id = (SELECT id FROM streamvibe.{leaf} ORDER BY id OFFSET %s LIMIT 1)".encode(),
                [user_id, n],
            )
    switch_on(conn, tmp_path)
    assert run(database18).files == 2
    assert drop_old(conn) == 2
    for user_id in users:
        while kit.call_one(conn, "erase_user", p_user_id=user_id)["state"] != "archive":
            pass
    bad = tmp_path / sorted(objects(tmp_path))[0]
    whole = bad.read_bytes()
    if harm == "gone":
        bad.unlink()
    else:
        bad.write_bytes(b"nothing that anybody can read")
    for _ in range(2):
        with pytest.raises(ArchiveFailed) as raised:
            run(database18)
        assert bad.name in str(raised.value.received)
        [readable] = objects(tmp_path) - {str(bad.relative_to(tmp_path))}
        assert not {str(user_id) for user_id in users} & set(users_in(tmp_path / readable))
        assert kit.call_one(conn, "get_archive")["erasures"] == 2
    bad.write_bytes(whole)
    assert run(database18).erased == 2
    assert kit.call_one(conn, "get_archive")["erasures"] == 0
    assert [len(users_in(tmp_path / key)) for key in objects(tmp_path)] == [8, 8]


def test_what_cannot_be_deleted_keeps_all_whose_rows_it_may_have(
    database18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file was written anew without one user and is still there: the other, whose rows it has, is not erased."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    users = [uuid4(), uuid4()]
    for n, user_id in enumerate(users):
        conn.execute(
            f"UPDATE streamvibe.{leaf} SET user_id = %s"
            f" WHERE id = (SELECT id FROM streamvibe.{leaf} ORDER BY id OFFSET %s LIMIT 1)".encode(),
            [user_id, n],
        )
    switch_on(conn, tmp_path)
    assert run(database18).files == 1
    assert drop_old(conn) == 1
    [first] = objects(tmp_path)
    for user_id in users:
        while kit.call_one(conn, "erase_user", p_user_id=user_id)["state"] != "archive":
            pass
    delete = Store.delete

    def locked(self: Store, key: str) -> None:
        if key == first:
            raise ArchiveFailed("It is locked", field="archive", received=key, fix="Wait")
        delete(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "delete", locked)
        for _ in range(2):
            with pytest.raises(ArchiveFailed):
                run(database18)
            assert {str(user_id) for user_id in users} <= set(users_in(tmp_path / first))
            assert kit.call_one(conn, "get_archive")["erasures"] == 2
    assert run(database18).erased == 2
    assert kit.call_one(conn, "get_archive")["erasures"] == 0
    [last] = objects(tmp_path)
    assert len(users_in(tmp_path / last)) == 8


def test_a_place_that_is_gone_is_asked_once(database18: Database, tmp_path: Path) -> None:
    """Of an archive that moved: its files elsewhere are written anew, and of the place that is gone none is tried."""
    conn = database18.connect()
    users = [uuid4(), uuid4()]
    places = [tmp_path / "old", tmp_path / "new"]
    for weeks, place in zip((3, 2), places, strict=True):
        leaf = old_jobs(conn, weeks)
        for n, user_id in enumerate(users):
            conn.execute(
                f"UPDATE streamvibe.{leaf} SET user_id = %s"
                f" WHERE id = (SELECT id FROM streamvibe.{leaf} ORDER BY id OFFSET %s LIMIT 1)".encode(),
                [user_id, n],
            )
        place.mkdir()
        switch_on(conn, place)
        assert run(database18).files == 1
        assert drop_old(conn) == 1
    places[0].rename(tmp_path / "away")
    for user_id in users:
        while kit.call_one(conn, "erase_user", p_user_id=user_id)["state"] != "archive":
            pass
    said: list[tuple[str, str]] = []
    with (
        pytest.raises(ArchiveFailed),
        Archiver(database18.dsn, report=lambda step, what: said.append((step, what))) as archiver,
    ):
        archiver.run(wait=False)
    assert [what.split(":")[0] for step, what in said if step == "failed"] == ["file"]
    [readable] = objects(places[1])
    assert not {str(user_id) for user_id in users} & set(users_in(places[1] / readable))
    assert kit.call_one(conn, "get_archive")["erasures"] == 2
    (tmp_path / "away").rename(places[0])
    assert run(database18).erased == 2


def users_in(path: Path) -> list[str]:
    """Whose rows a file has."""
    return [str(user_id) for user_id in pq.read_table(path, columns=["user_id"])["user_id"].to_pylist()]


def test_files_of_a_leaf_that_was_dropped_meanwhile(database18: Database, tmp_path: Path) -> None:
    """Switched off in the middle, the leaf is dropped; what was written of it is deleted by the next run."""
    conn = database18.connect()
    old_jobs(conn)
    switch_on(conn, tmp_path)

    def drop(step: str, what: str) -> None:
        if step == "ended":
            kit.call(conn, "set_archive", p_url=None)
            assert drop_old(conn) == 1

    with pytest.raises(PartitionMissing):
        run(database18, drop)
    assert len(objects(tmp_path)) == 1
    assert run(database18).rows == 0
    assert not objects(tmp_path) and not ids_in_archive(database18)


def test_a_leaf_that_a_writer_holds_waits_for_another_run(database18: Database, tmp_path: Path) -> None:
    """A transaction that wrote to it and does not end: said, and the other leaf is archived."""
    conn = database18.connect()
    held, free = old_jobs(conn, 3), old_jobs(conn, 2)
    switch_on(conn, tmp_path)
    told: list[str] = []
    with database18.connect() as writer, writer.transaction():
        writer.execute(f"UPDATE streamvibe.{held} SET turn = turn".encode())
        done = run(database18, lambda step, what: told.append(f"{step} {what}"))
    assert done.sources == [free]
    assert [line for line in told if line.startswith(f"busy {held}")]
    assert run(database18).sources == [held]
