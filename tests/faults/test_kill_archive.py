"""kill -9 of a process that archives, or that erases a user, between every two of its steps; then it is run again."""

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.faults.archive_process import forks, work
from tests.integration.archive_kit import (
    ids_in_archive,
    ids_in_queue,
    known_objects,
    objects,
    switch_on,
    take_over,
)
from tests.sql import kit
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server

from streamvibe.archive.erase import erase_user
from streamvibe.archive.query import Archive
from streamvibe.archive.run import Archiver

PARTS = 4
PART = pytest.mark.parametrize("part", range(PARTS))


class Trial:
    """A prepared database and its archive's folder, both made anew for each process that is killed."""

    def __init__(self, server: Server, name: str, folder: Path) -> None:
        self.server = server
        self.name = name
        self.folder = folder
        self.saved = folder.with_name("saved")
        self.counted = folder.with_name("counted")
        self.context = forks()
        shutil.copytree(folder, self.saved)

    def run(self, database: Database, user_id: UUID | None, die_at: int) -> int | None:
        """How many moments there are; None: it was killed."""
        self.counted.unlink(missing_ok=True)
        process = self.context.Process(target=work, args=(database.dsn, user_id, die_at, self.counted))
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        return int(self.counted.read_text()) if process.exitcode == 0 else None

    def fresh(self) -> Database:
        """The database as it was prepared, and the folder."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder)
        database = new_database(self.server, self.name)
        conn = database.connect()
        archive_id = kit.call_one(conn, "get_archive")["archive_id"]
        kit.call(conn, "set_archive", p_url=self.folder.as_uri(), p_archive_id=archive_id, p_this_is="moved")
        return database


def prepare(database: Database, folder: Path) -> None:
    """A leaf of jobs of two days, one of lines, and deleted jobs that wait; an archive."""
    conn = database.connect()
    kit.register(conn)
    kit.register(conn, "short", p_retention="1 second")
    leaf = kit.old_leaf(conn, weeks=2, rows=6)  # younger than what cleanup_old_jobs() helps
    conn.execute(
        f"INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type, status, completed_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(t.at), n), t.at, q.user_id, 'email', 'failed', t.at"
        f" FROM (SELECT user_id, created_at, row_number() OVER () AS n FROM streamvibe.{leaf}) q"
        " CROSS JOIN LATERAL (SELECT created_at + interval '1 day' AS at) t".encode()
    )
    victim = kit.value(conn, f"SELECT user_id FROM streamvibe.{leaf} ORDER BY id LIMIT 1")
    lines = kit.old_leaf(conn, "job_log", weeks=7, rows=3)
    conn.execute(
        f"UPDATE streamvibe.{lines} SET user_id = %s"
        f" WHERE id = (SELECT id FROM streamvibe.{lines} ORDER BY id LIMIT 1)".encode(),
        [victim],
    )
    kit.worker(conn)
    for user_id in (victim, None):
        kit.job_id(conn, user_id, job_type="short")
    kit.complete(conn, kit.claim(conn, limit=2))
    conn.execute(
        "UPDATE public.job_queue SET completed_at = completed_at - interval '1 hour' WHERE job_type = 'short'"
    )
    kit.call(conn, "recount_stats")
    switch_on(conn, folder)
    assert kit.value(conn, "SELECT cleanup_old_jobs()") == 2
    database.close()


@pytest.fixture(scope="module")
def trial(pg18: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Nothing is archived yet."""
    folder = tmp_path_factory.mktemp("archive") / "folder"
    folder.mkdir()
    with new_database(pg18, TEMPLATE) as prepared:
        prepare(prepared, folder)
        yield Trial(pg18, prepared.name, folder)


@pytest.fixture(scope="module")
def archived_trial(pg18: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """All is archived, and not dropped yet."""
    folder = tmp_path_factory.mktemp("archived") / "folder"
    folder.mkdir()
    with new_database(pg18, TEMPLATE) as prepared:
        prepare(prepared, folder)
        with Archiver(prepared.dsn) as archiver:
            archiver.run(wait=False)
        yield Trial(pg18, prepared.name, folder)


def moments(trial: Trial, user_id: UUID | None, part: int) -> range:
    """Those of this part."""
    with trial.fresh() as database:
        count = trial.run(database, user_id, 0)
    assert count is not None and count > 25
    return range(1 + part, count + 1, PARTS)


@PART
def test_no_job_is_lost_or_archived_twice(trial: Trial, part: int) -> None:
    """Killed at any moment: every job is in the queue or the archive; after another run, in the archive once."""
    for die_at in moments(trial, None, part):
        with trial.fresh() as database:
            conn = database.connect()
            before = ids_in_queue(conn)
            assert len(before) == 14 and set(before.values()) == {1}
            assert trial.run(database, None, die_at) is None
            archived = ids_in_archive(database)
            assert set(archived.values()) <= {1}, f"killed at {die_at}"
            assert set(ids_in_queue(conn)) | set(archived) == set(before), f"killed at {die_at}"
            take_over(conn)
            with Archiver(database.dsn) as archiver:
                archiver.run(wait=False)
            assert ids_in_archive(database) == before, f"killed at {die_at}"
            assert kit.value(conn, "SELECT count(*) FROM streamvibe.leaving_job") == 0
            for leaf in kit.query(conn, "SELECT partition_name AS name FROM streamvibe.old_partitions()"):
                conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf["name"]])
            assert ids_in_queue(conn) == Counter()
            assert objects(trial.folder) == known_objects(conn), f"killed at {die_at}"
            assert kit.call(conn, "recount_stats") == []


@PART
def test_a_user_is_erased_and_nobody_else(archived_trial: Trial, part: int) -> None:
    """Killed at any moment: after another run nothing of the user is anywhere, and all of the others is."""
    trial = archived_trial
    with trial.fresh() as database, Archive(database.dsn) as archive:
        [[victim]] = archive.ask("SELECT user_id FROM jobs ORDER BY id LIMIT 1")
        others = sorted(archive.ask(f"SELECT id FROM jobs WHERE user_id <> '{victim}'"))
        lines = sorted(archive.ask(f"SELECT id FROM logs WHERE user_id <> '{victim}'"))
        assert len(others) == 11 and len(lines) == 2
    user_id = UUID(victim)
    for die_at in moments(trial, user_id, part):
        with trial.fresh() as database:
            conn = database.connect()
            assert trial.run(database, user_id, die_at) is None
            with Archive(database.dsn) as archive:
                found = list(archive.ask("SELECT id, user_id FROM jobs"))
            assert len({row[0] for row in found}) == len(found)
            assert {row[0] for row in others} <= {row[0] for row in found}, f"killed at {die_at}"
            take_over(conn)
            erase_user(database.dsn, user_id, patience=0, report=lambda step, what: None)
            with Archive(database.dsn) as archive:
                assert sorted(archive.ask("SELECT id FROM jobs")) == others, f"killed at {die_at}"
                assert sorted(archive.ask("SELECT id FROM logs")) == lines, f"killed at {die_at}"
            assert objects(trial.folder) == known_objects(conn), f"killed at {die_at}"
            for place in (
                "public.job_queue",
                "public.job_log",
                "streamvibe.leaving_job",
                "streamvibe.erasure",
            ):
                assert not kit.query(conn, f"SELECT 1 FROM {place} WHERE user_id = %s", user_id)
            assert kit.call(conn, "recount_stats") == []


def test_what_was_whole_is_not_written_again(trial: Trial) -> None:
    """A process that is killed when all its files are verified has them used by the next one."""
    whole = (
        "SELECT key FROM streamvibe.archive_file"
        " WHERE source LIKE 'job_queue%' AND state = 'writing' AND verified_at IS NOT NULL"
    )
    for die_at in range(1, 1000):
        with trial.fresh() as database:
            conn = database.connect()
            assert trial.run(database, None, die_at) is None
            if len(before := kit.query(conn, whole)) < 2:
                continue
            take_over(conn)
            with Archiver(database.dsn) as archiver:
                archiver.run(wait=False)
            assert {row["key"] for row in before} <= known_objects(conn)
            return
