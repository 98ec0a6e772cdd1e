"""The printed script: applied by psql alone, it leaves the database that `migrate` would."""

import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.databases import Database, new_database
from tests.support.dump import dump_schema
from tests.support.sql_tree import CONCURRENT_INDEX, MIGRATIONS, SMALL, write_tree

from streamvibe.db.migrate import LOCK_KEY, migrate, pending
from streamvibe.db.migrate_files import SQL_ROOT
from streamvibe.db.migrate_render import render_sql


def psql(database: Database, script: str) -> subprocess.CompletedProcess[str]:
    """Feed a script to the real psql, as a database owner would."""
    return subprocess.run(
        [database.server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", database.dsn],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )


def apply_script(database: Database, root: Path = SQL_ROOT) -> str:
    """Apply the printed script; its output."""
    result = psql(database, render_sql(root))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_psql_makes_the_same_database_as_migrate(empty_database: Database) -> None:
    """Nothing is pending afterwards, and the two schemas are equal to the letter, leaves included."""
    output = apply_script(empty_database)
    assert "job_queue_" in output and "job_log_" in output

    assert pending(empty_database.dsn) == ()
    again = migrate(empty_database.dsn)
    assert (again.applied, again.partitions) == ((), ())
    with new_database(empty_database.server) as other:
        migrate(other.dsn)
        assert dump_schema(empty_database) == dump_schema(other)


def test_the_script_can_be_applied_again(empty_database: Database) -> None:
    """A second run leaves the migrations out and keeps the jobs that are there."""
    apply_script(empty_database)
    before = dump_schema(empty_database)
    applied_at = (
        "SELECT array_agg(applied_at ORDER BY version) FROM streamvibe.schema_migration WHERE version > 0"
    )
    first = empty_database.fetch_value(applied_at)

    apply_script(empty_database)

    assert empty_database.fetch_value(applied_at) == first
    assert dump_schema(empty_database) == before


def test_the_script_completes_what_migrate_began(empty_database: Database, tmp_path: Path) -> None:
    """On a database that has the first migrations, the script applies the others."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, MIGRATIONS))
    apply_script(
        empty_database,
        write_tree(tmp_path, {**SMALL, "migrations/0003_more.sql": "CREATE TABLE public.more ();"}),
    )
    assert pending(empty_database.dsn, root=tmp_path) == ()
    assert empty_database.fetch_value("SELECT to_regclass('public.more') IS NOT NULL")


def test_migrate_has_let_go_when_it_returns(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the server has not yet noticed that the connection was closed, the script is not refused."""
    close = psycopg.Connection.close
    left: list[psycopg.Connection[Any]] = []

    def keep(conn: psycopg.Connection[Any]) -> None:
        left.append(conn)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "close", keep)
        migrate(empty_database.dsn, root=write_tree(tmp_path, MIGRATIONS))
    assert left
    apply_script(empty_database, write_tree(tmp_path, SMALL))
    for conn in left:
        close(conn)


def test_a_file_outside_transactions_stands_outside_in_the_script(
    empty_database: Database, tmp_path: Path
) -> None:
    """CREATE INDEX CONCURRENTLY works from the script; run again, the script stops before it."""
    last = {"migrations/0004_last.sql": "CREATE TABLE public.last ();"}
    root = write_tree(tmp_path, {**SMALL, **CONCURRENT_INDEX, **last})
    apply_script(empty_database, root)
    assert pending(empty_database.dsn, root=root) == ()
    index = (
        "SELECT indexrelid FROM pg_index WHERE indisvalid AND indexrelid = 'public.job_queue_note'::regclass"
    )
    built = empty_database.fetch_value(index)

    again = psql(empty_database, render_sql(root))

    assert again.returncode != 0
    assert "0003_index.sql was applied here already" in again.stderr
    assert empty_database.fetch_value(index) == built


def test_a_refused_script_changes_nothing(empty_database: Database) -> None:
    """Somebody else's job_queue stops the script before its first change, with the reason."""
    empty_database.connect().execute("CREATE TABLE public.job_queue (theirs text)")
    result = psql(empty_database, render_sql())
    assert result.returncode != 0
    assert "there is a public.job_queue that is not StreamVibe's" in result.stderr
    assert empty_database.fetch_value("SELECT to_regnamespace('streamvibe') IS NULL")


def test_the_script_does_not_run_beside_a_migration(empty_database: Database) -> None:
    """The script takes the same lock as migrate, and says so when it is taken."""
    empty_database.connect().execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
    result = psql(empty_database, render_sql())
    assert "another migration of this database is running" in result.stderr
