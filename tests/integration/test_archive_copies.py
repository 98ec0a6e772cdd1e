"""A copy of a database knows its archive, and must not touch it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.integration.archive_kit import (
    ids_in_archive,
    ids_in_queue,
    known_objects,
    objects,
    old_jobs,
    run,
    switch_on,
)
from tests.sql import kit
from tests.support.cli import streamvibe
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server
from tests.support.waiting import wait_until

from streamvibe.archive.query import Archive
from streamvibe.errors import ArchiveFailed


def contents(folder: Path) -> dict[str, bytes]:
    """Every object in the archive's folder, as it is."""
    return {name: (folder / name).read_bytes() for name in objects(folder)}


@pytest.fixture
def original(server: Server, tmp_path: Path) -> Iterator[Database]:
    """A database with ten jobs in its archive, ten that are due, and remains of a file that was not finished."""
    folder = tmp_path / "original"
    folder.mkdir()
    with new_database(server, TEMPLATE) as database:
        conn = database.connect()
        switch_on(conn, folder)
        old_jobs(conn, weeks=3)
        run(database)
        old_jobs(conn, weeks=2)
        conn.execute(
            "INSERT INTO streamvibe.archive_file (kind, source, day, url, key, state)"
            " SELECT kind, 'gone', day, url, 'remains', 'writing' FROM streamvibe.archive_file"
        )
        (folder / "remains").write_bytes(b"of a file that was not finished")
        database.close()  # a database that is in use cannot be copied
        yield database


@pytest.fixture
def copy(server: Server, original: Database) -> Iterator[Database]:
    """Made from it."""
    with new_database(server, original.name) as database:
        yield database


def erase_somebody(database: Database) -> None:
    """From the queue of this database, so that the archive is next."""
    conn = database.connect()
    with Archive(database.dsn) as archive:
        victim = UUID(next(iter(archive.ask("SELECT user_id FROM jobs ORDER BY id LIMIT 1")))[0])
    while kit.call_one(conn, "erase_user", p_user_id=victim)["state"] != "archive":
        pass


def test_a_copy_neither_writes_nor_deletes(original: Database, copy: Database, tmp_path: Path) -> None:
    """Nothing is archived, erased or cleared away where the original's files are, which goes on; the error says why."""
    before = contents(tmp_path / "original")
    erase_somebody(copy)
    with pytest.raises(ArchiveFailed, match="copy of the one whose archive") as caught:
        run(copy)
    assert caught.value.fix and "streamvibe archive set --copy" in caught.value.fix
    assert contents(tmp_path / "original") == before
    said = streamvibe(copy.dsn, "archive", "status")
    assert (said.status, "nothing is written to it" in said.err) == (1, True)
    assert run(original).rows == 10
    assert streamvibe(original.dsn, "archive", "status").status == 0


def test_another_cluster(original: Database, tmp_path: Path) -> None:
    """A database with the same number in another cluster, as the first one that a dump is restored into, is a copy."""
    conn = original.connect()
    conn.execute("UPDATE streamvibe.setting SET archive_owner = '1/' || split_part(archive_owner, '/', 2)")
    with pytest.raises(ArchiveFailed, match="copy of the one whose archive"):
        run(original)


def test_nothing_leaves_a_copy(copy: Database) -> None:
    """Also not what the original archived: whether it is in the archive of this one is not known yet."""
    conn = copy.connect()
    [leaf] = kit.query(
        conn, "SELECT partition_name AS name FROM streamvibe.partition WHERE archived_at IS NOT NULL"
    )
    assert kit.value(conn, f"SELECT streamvibe.awaits_archive('{leaf['name']}')")
    conn.execute("SELECT streamvibe.count_partition(%s)", [leaf["name"]])
    with pytest.raises(psycopg.DatabaseError, match="copy of the one whose archive"):
        conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf["name"]])


@pytest.mark.parametrize("place", ["original", "empty", "off"])
def test_a_copy_is_not_set_by_accident(copy: Database, tmp_path: Path, place: str) -> None:
    """Without a word of what it is nothing changes, and nothing is written, wherever it is set."""
    (tmp_path / "empty").mkdir()
    before = kit.call_one(copy.connect(), "get_archive")
    url = place if place == "off" else f"file://{tmp_path / place}"
    said = streamvibe(copy.dsn, "archive", "set", url)
    assert (said.status, "--moved" in said.err, "--copy" in said.err) == (1, True, True)
    assert kit.call_one(copy.connect(), "get_archive") == before
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("words", [("--moved",), ("--copy",), ("--moved", "--copy")])
def test_an_original_is_no_copy(original: Database, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Either word is refused there, and both together anywhere; nothing is written."""
    (tmp_path / "empty").mkdir()
    said = streamvibe(original.dsn, "archive", "set", *words, f"file://{tmp_path / 'empty'}")
    assert said.status == 2
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_copy_with_a_place_of_its_own(original: Database, copy: Database, tmp_path: Path) -> None:
    """What is in its queue goes there, partitions that the original had archived once more, but for who is erased."""
    before = contents(tmp_path / "original")
    erase_somebody(copy)
    (tmp_path / "own").mkdir()
    said = streamvibe(copy.dsn, "archive", "set", "--copy", f"file://{tmp_path / 'original'}")
    assert (said.status, "nother queue's archive" in said.err) == (2, True)
    assert streamvibe(copy.dsn, "archive", "set", "--copy", f"file://{tmp_path / 'own'}").status == 0
    in_queue = ids_in_queue(copy.connect())
    done = run(copy)
    assert (done.rows, done.erased) == (len(in_queue), 1)
    assert ids_in_archive(copy) == in_queue and 0 < 20 - done.rows < 10
    assert contents(tmp_path / "original") == before
    assert run(original).rows == 10
    assert len(ids_in_archive(original)) == 20


def test_a_copy_without_an_archive(copy: Database, tmp_path: Path) -> None:
    """Off, it has none: who is erased there is gone, and what is old leaves."""
    before = contents(tmp_path / "original")
    assert streamvibe(copy.dsn, "archive", "set", "--copy", "off").status == 0
    [user] = kit.query(copy.connect(), "SELECT user_id AS id FROM job_queue LIMIT 1")
    said = streamvibe(copy.dsn, "jobs", "erase", "--yes", "--user", user["id"])
    assert (said.status, "Nothing was ever archived" in said.out) == (0, True)
    assert streamvibe(copy.dsn, "archive", "status", "--json").json["is_copy"] is False
    assert contents(tmp_path / "original") == before


def test_a_database_that_was_moved(copy: Database, tmp_path: Path) -> None:
    """It takes the archive over: what is there is its own, and it goes on."""
    assert streamvibe(copy.dsn, "archive", "set", "--moved", f"file://{tmp_path / 'original'}").status == 0
    assert run(copy).rows == 10
    assert len(ids_in_archive(copy)) == 20
    assert objects(tmp_path / "original") == known_objects(copy.connect())


def test_moved_and_switched_off(copy: Database, tmp_path: Path) -> None:
    """What is there is its own: it can be asked, and who is erased is erased from it."""
    erase_somebody(copy)
    assert streamvibe(copy.dsn, "archive", "set", "--moved", "off").status == 0
    assert run(copy).erased == 1
    assert len(ids_in_archive(copy)) == 9
    assert objects(tmp_path / "original") == known_objects(copy.connect())


def test_two_say_at_once_that_it_is_a_copy(copy: Database, tmp_path: Path) -> None:
    """The second waits for the first, and is refused: what it archives since stays known."""
    conn, first, second = copy.connect(), copy.connect(), copy.connect()
    own = f"file://{tmp_path / 'own'}"
    say = "SELECT set_archive(%s, %s, false, 'copy')"
    with ThreadPoolExecutor(1) as thread:
        with first.transaction():
            first.execute(say, [own, uuid4()])
            answer = thread.submit(second.execute, say, [None, None])
            pid = second.info.backend_pid
            wait_until(lambda: kit.value(conn, "SELECT pg_blocking_pids(%s) <> '{}'", pid), "it waits")
        with pytest.raises(psycopg.DatabaseError, match="somebody else has said meanwhile"):
            answer.result(60)
    assert kit.call_one(conn, "get_archive")["url"] == own
