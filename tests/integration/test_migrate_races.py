"""Several migrations of one database at once, and migrations that are killed."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Event

import pytest
from tests.support.databases import Database
from tests.support.sql_tree import CONCURRENT_INDEX, MIGRATIONS, SMALL, write_tree
from tests.support.waiting import wait_until

from streamvibe.db.migrate import MigrationReport, migrate, pending
from streamvibe.db.migrate_files import SQL_ROOT
from streamvibe.errors import MigrationRefused

# A migration in a process of its own. It prints each line of its report and goes on when it is told to.
RUNNER = """
import sys
from pathlib import Path
from streamvibe.db.migrate import migrate

def step(line):
    print(line, flush=True)
    sys.stdin.readline()

migrate(sys.argv[1], root=Path(sys.argv[2]), report=step)
print("done", flush=True)
"""

BUILDING = "FROM pg_stat_progress_create_index WHERE datname = current_database()"


@contextmanager
def runner(database: Database, root: Path = SQL_ROOT) -> Iterator[subprocess.Popen[str]]:
    """A process that migrates, one step for each line it is sent; killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, database.dsn, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line of its report, without times."""
    assert process.stdout
    return process.stdout.readline().strip().split(" (")[0]


def go_on(process: subprocess.Popen[str]) -> None:
    """Let it take its next step."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_simultaneous_migrations_apply_everything_once(empty_database: Database) -> None:
    """Eight runs of the real schema at once: one does it all, the others find it done, none fails."""
    gate = Barrier(8)

    def run() -> MigrationReport:
        gate.wait()
        return migrate(empty_database.dsn)

    with ThreadPoolExecutor(8) as threads:
        reports = [future.result() for future in [threads.submit(run) for _ in range(8)]]

    assert sorted(bool(report.applied) for report in reports) == [False] * 7 + [True]
    assert sorted(bool(report.partitions) for report in reports) == [False] * 7 + [True]
    assert pending(empty_database.dsn) == ()


def test_a_run_waits_for_another_process(empty_database: Database, tmp_path: Path) -> None:
    """A second run says whom it waits for, starts when the first has ended, and finds nothing left to do."""
    root = write_tree(tmp_path, SMALL)
    waiting = Event()

    with runner(empty_database, root) as first, ThreadPoolExecutor(1) as threads:
        assert read_line(first) == "Applied migration 0001_tables.sql"
        lines: list[str] = []

        def report(line: str) -> None:
            lines.append(line)
            waiting.set()

        second = threads.submit(migrate, empty_database.dsn, root=root, report=report)
        assert waiting.wait(30)
        go_on(first)
        assert read_line(first) == "Applied migration 0002_column.sql"
        go_on(first)
        go_on(first)
        assert second.result(timeout=30).applied == ()

    assert len(lines) == 1 and lines[0].startswith("Waiting for another migration of this database (process ")


def test_a_run_does_not_wait_for_ever(empty_database: Database, tmp_path: Path) -> None:
    """Past its deadline it names the process that holds the lock, and how to end it."""
    root = write_tree(tmp_path, SMALL)
    with runner(empty_database, root) as first:
        read_line(first)
        pid = empty_database.fetch_value(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'streamvibe migrate'"
            " AND datname = current_database()"
        )
        with pytest.raises(MigrationRefused) as caught:
            migrate(empty_database.dsn, root=root, wait_seconds=0.2)
    assert caught.value.received == f"process {pid}"
    assert f"pg_terminate_backend({pid})" in str(caught.value.fix)


def test_a_run_killed_between_files_is_completed_by_the_next(empty_database: Database) -> None:
    """kill -9 after each step of the real schema in turn: what was applied stays, the next run does the rest."""
    done: list[str] = []
    while True:
        with runner(empty_database) as process:
            line = read_line(process)
        if line == "done":
            break
        assert line not in done, "a step was done twice"
        done.append(line)
    kinds = [line.rsplit(" ", 1)[0] for line in done]
    assert kinds.count("Applied migration") == len(list((SQL_ROOT / "migrations").glob("*.sql")))
    assert pending(empty_database.dsn) == ()


def test_a_run_killed_inside_a_file_leaves_nothing_of_it(empty_database: Database, tmp_path: Path) -> None:
    """The server is still at work on the second file when the process dies: that file's work is undone."""
    stuck = "CREATE TABLE public.half_way (); SELECT pg_catalog.pg_advisory_xact_lock(4711);"
    root = write_tree(tmp_path, {**MIGRATIONS, "migrations/0003_stuck.sql": stuck})
    gate = empty_database.connect()
    gate.execute("SELECT pg_advisory_lock(4711)")

    with runner(empty_database, root) as process:
        for _ in range(2):
            read_line(process)
            go_on(process)
        wait_until(
            lambda: empty_database.fetch_value(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
            ),
            "the third migration waits",
        )
    gate.execute("SELECT pg_advisory_unlock(4711)")

    report = migrate(empty_database.dsn, root=root)
    assert [file.name for file in report.applied] == ["0003_stuck.sql"]


def test_an_index_is_built_concurrently_while_another_run_waits(
    empty_database: Database, tmp_path: Path
) -> None:
    """CREATE INDEX CONCURRENTLY waits for every older snapshot; a run that waits for its turn holds none."""
    root = write_tree(tmp_path, MIGRATIONS)
    migrate(empty_database.dsn, root=root)
    write_tree(tmp_path, CONCURRENT_INDEX)
    writer = empty_database.connect(autocommit=False)
    writer.execute("INSERT INTO public.job_queue (id) VALUES (1)")
    waiting = Event()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(migrate, empty_database.dsn, root=root)
        wait_until(
            lambda: empty_database.fetch_value(f"SELECT count(*) {BUILDING}"),
            "the index is being built",
        )
        second = threads.submit(
            migrate, empty_database.dsn, root=root, report=lambda _line: waiting.set(), wait_seconds=30
        )
        assert waiting.wait(30)
        writer.rollback()
        assert [file.name for file in first.result(timeout=30).applied] == ["0003_index.sql"]
        assert second.result(timeout=30).applied == ()

    assert empty_database.fetch_value(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.job_queue_note'::regclass"
    )


def test_a_killed_concurrent_index_is_built_again(empty_database: Database, tmp_path: Path) -> None:
    """The invalid index that a killed run leaves behind is dropped and built again by the next."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, MIGRATIONS))
    root = write_tree(tmp_path, CONCURRENT_INDEX)
    writer = empty_database.connect(autocommit=False)
    writer.execute("INSERT INTO public.job_queue (id) VALUES (1)")

    with runner(empty_database, root):
        pid = wait_until(
            lambda: empty_database.fetch_value(f"SELECT max(pid) {BUILDING}"),
            "the index is being built",
        )
    writer.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
    writer.rollback()
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    assert empty_database.fetch_value(invalid) == 1

    assert [file.name for file in migrate(empty_database.dsn, root=root).applied] == ["0003_index.sql"]
    assert empty_database.fetch_value(invalid) == 0
