"""Archiving as a duty of maintenance: leaves are archived, then dropped; what fails is recorded; it stops at once."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.archive_kit import (
    disk,
    ids_in_archive,
    ids_in_queue,
    known_objects,
    objects,
    old_jobs,
    switch_on,
)
from tests.integration.test_maintenance_loop import maintained
from tests.sql import kit
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe.archive import archive_duty
from streamvibe.archive.run import Archiver
from streamvibe.cli.duties import duties
from streamvibe.maintenance import Duty

NAMES = ("archive", "drop_old_partitions", "cleanup_old_jobs")


async def aside(condition: Callable[[], object], what: str) -> None:
    """Wait in a thread: a question that waited for a drop would keep this one, which commits it, from running."""
    await asyncio.to_thread(wait_until, condition, what)


def often(dsn: str) -> list[Duty]:
    """Those that let jobs leave, all the time."""
    return [replace(duty, schedule="every 0.05 seconds") for duty in duties(dsn) if duty.name in NAMES]


@pytest.mark.parametrize("role", ["postgres", "service_role"])
async def test_what_is_old_is_archived_and_dropped(database18: Database, tmp_path: Path, role: str) -> None:
    """By maintenance alone, as the owner or as the service: every job is in the archive once."""
    conn = database18.connect()
    old_jobs(conn, 3)
    old_jobs(conn, 4)
    kit.old_leaf(conn, "job_log", weeks=7)
    before = ids_in_queue(conn)
    switch_on(conn, tmp_path)
    dsn = f"{database18.dsn}&options=-c%20role%3D{role}"
    async with maintained(database18, often(dsn), role=role):
        left = "SELECT count(*) = 0 FROM streamvibe.old_partitions()"
        await aside(lambda: kit.value(conn, left), "all is gone")
        await aside(lambda: not ids_in_queue(conn), "also what was deleted one by one")
    assert ids_in_archive(database18) == before
    assert objects(tmp_path) == known_objects(conn)
    assert kit.call(conn, "recount_stats") == []
    done = kit.value(conn, "SELECT sum(done)::integer FROM get_maintenance_runs() WHERE duty = 'archive'")
    assert done == 30


async def test_what_fails_is_recorded_and_tried_again(database18: Database, tmp_path: Path) -> None:
    """A disk that is full: the duty's error says so, nothing is dropped; with room it goes on by itself."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    conn.execute(
        f"UPDATE streamvibe.{leaf} SET result = (SELECT to_jsonb(string_agg(md5(n::text || id), ''))"
        " FROM generate_series(1, 5000) n)".encode()
    )
    with disk(tmp_path / "disk") as place:
        switch_on(conn, place.folder)
        place.limit(64)
        async with maintained(database18, often(database18.dsn)):
            error = "SELECT last_error FROM get_maintenance() WHERE duty = 'archive'"
            await aside(lambda: kit.value(conn, f"SELECT count(*) FROM ({error}) e"), "known")
            await aside(lambda: kit.value(conn, error), "it fails")
            # Without a disk of its own the limit is that of all files, of which the prepared one is the first.
            said = "The archive cannot be written" if place.is_mounted else "cannot be prepared"
            assert said in kit.value(conn, error)
            assert sum(ids_in_queue(conn).values()) == 10
            place.limit(0)
            await aside(lambda: not ids_in_queue(conn), "it is archived and dropped")
            await aside(lambda: kit.value(conn, error) is None, "the error is gone")
    assert kit.call(conn, "recount_stats") == []


async def test_without_an_archive_the_duty_has_nothing_to_do(database18: Database) -> None:
    """It does nothing, and what leaves is gone."""
    conn = database18.connect()
    old_jobs(conn)
    async with maintained(database18, often(database18.dsn)):
        await aside(lambda: not ids_in_queue(conn), "dropped")
        await aside(
            lambda: kit.value(conn, "SELECT last_done = 0 FROM get_maintenance() WHERE duty = 'archive'"),
            "it ran",
        )


async def test_it_stops_in_the_middle(
    database18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while it writes, it ends, lets another process write at once, and nothing is half archived."""
    conn = database18.connect()
    old_jobs(conn)
    before = ids_in_queue(conn)
    switch_on(conn, tmp_path)
    is_written, go_on = threading.Event(), threading.Event()
    usual = Archiver._put

    def slow(archiver: Archiver, *args: object) -> None:
        usual(archiver, *args)  # type: ignore[arg-type]
        is_written.set()
        assert go_on.wait(60)

    monkeypatch.setattr(Archiver, "_put", slow)
    task = asyncio.create_task(archive_duty(database18.dsn))
    await asyncio.to_thread(is_written.wait, 60)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ids_in_archive(database18)
    monkeypatch.undo()
    assert await archive_duty(database18.dsn) == 10
    assert ids_in_archive(database18) == before
    assert objects(tmp_path) == known_objects(conn)


async def test_another_process_that_archives_is_no_failure(database18: Database, tmp_path: Path) -> None:
    """An operator runs `archive run` meanwhile: the duty has nothing to do."""
    conn = database18.connect()
    old_jobs(conn)
    switch_on(conn, tmp_path)
    assert kit.value(conn, "SELECT streamvibe.lead_archive('operator')")
    assert await archive_duty(database18.dsn) == 0
