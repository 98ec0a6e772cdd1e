"""Applying migrations, functions and policies."""

from pathlib import Path

import pytest
from psycopg.errors import InsufficientPrivilege, UndefinedFunction
from tests.support.databases import Database
from tests.support.sql_tree import CONCURRENT_INDEX, FUNCTIONS, MIGRATIONS, SMALL, write_tree

from streamvibe.db.migrate import MigrationReport, migrate, pending
from streamvibe.db.migrate_files import load_tree
from streamvibe.errors import ConfigurationError, DatabaseUnreachable, MigrationRefused

LEDGER = "SELECT array_agg(kind || ' ' || name ORDER BY kind, name) FROM streamvibe.schema_migration"


def names(report: MigrationReport) -> list[str]:
    """What a run applied, in order."""
    return [file.name for file in report.applied]


def test_everything_is_applied_once_in_order(empty_database: Database, tmp_path: Path) -> None:
    """Migrations by number, functions, policies; each is recorded, and a second run does nothing."""
    root = write_tree(tmp_path, SMALL)
    lines: list[str] = []

    first = migrate(empty_database.dsn, root=root, report=lines.append)

    expected = ["0001_tables.sql", "0002_column.sql", "deep/two.sql", "one.sql", "grants.sql"]
    assert names(first) == expected
    assert first.database == empty_database.name
    assert [line.split(" (")[0] for line in lines] == [
        "Applied migration 0001_tables.sql",
        "Applied migration 0002_column.sql",
        "Applied functions: 2, policies: 1",
    ]
    assert empty_database.fetch_value(LEDGER) == [
        "function deep/two.sql",
        "function one.sql",
        "migration 0001_tables.sql",
        "migration 0002_column.sql",
        "policy grants.sql",
    ]
    assert migrate(empty_database.dsn, root=root).applied == ()
    assert pending(empty_database.dsn, root=root) == ()


def test_the_real_schema_is_applied_with_partitions_ahead(empty_database: Database) -> None:
    """The release's own files apply, twice does nothing more, and leaves reach at least four weeks ahead."""
    tree = load_tree()

    report = migrate(empty_database.dsn)

    assert len(report.applied) == len(tree.migrations) + len(tree.functions) + len(tree.policies)
    assert report.partitions
    for parent in ("job_queue", "job_log"):
        assert empty_database.fetch_value(
            "SELECT max(upper_at) >= now() + interval '4 weeks' FROM streamvibe.partition"
            " WHERE parent_name LIKE '%%' || %s",
            parent,
        )
    again = migrate(empty_database.dsn)
    assert (again.applied, again.partitions) == ((), ())


def test_pending_names_what_would_be_applied_and_writes_nothing(
    empty_database: Database, tmp_path: Path
) -> None:
    """An empty database stays empty, and the files are named in their order."""
    root = write_tree(tmp_path, SMALL)
    assert [file.name for file in pending(empty_database.dsn, root=root)] == [
        "0001_tables.sql",
        "0002_column.sql",
        "deep/two.sql",
        "one.sql",
        "grants.sql",
    ]
    assert empty_database.fetch_value("SELECT to_regnamespace('streamvibe') IS NULL")


def test_a_changed_function_is_applied_again_with_the_policies(
    empty_database: Database, tmp_path: Path
) -> None:
    """Only what changed is applied: that function, and every policy after it."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    write_tree(tmp_path, {"functions/one.sql": SMALL["functions/one.sql"].replace("SELECT 1", "SELECT 11")})

    report = migrate(empty_database.dsn, root=tmp_path)

    assert names(report) == ["one.sql", "grants.sql"]
    assert empty_database.fetch_value("SELECT public.two()") == 22
    assert pending(empty_database.dsn, root=tmp_path) == ()


def test_a_changed_policy_is_applied_alone(empty_database: Database, tmp_path: Path) -> None:
    """Functions that did not change are left as they are."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    write_tree(tmp_path, {"policies/grants.sql": "GRANT EXECUTE ON FUNCTION public.one() TO PUBLIC;"})
    assert names(migrate(empty_database.dsn, root=tmp_path)) == ["grants.sql"]


def test_a_migration_brings_all_functions_again(empty_database: Database, tmp_path: Path) -> None:
    """A function that a migration dropped is there again afterwards, though its own file did not change."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    write_tree(tmp_path, {"migrations/0003_drop.sql": "DROP FUNCTION public.one();"})

    report = migrate(empty_database.dsn, root=tmp_path)

    assert names(report) == ["0003_drop.sql", "deep/two.sql", "one.sql", "grants.sql"]
    assert empty_database.fetch_value("SELECT public.two()") == 2


def test_a_removed_function_leaves_the_ledger(empty_database: Database, tmp_path: Path) -> None:
    """A release without a function's file, and with a migration that drops it, leaves no trace of it."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    (tmp_path / "functions/deep/two.sql").unlink()
    migrate(
        empty_database.dsn,
        root=write_tree(tmp_path, {"migrations/0003_drop.sql": "DROP FUNCTION public.two();"}),
    )
    assert "function deep/two.sql" not in empty_database.fetch_value(LEDGER)
    assert pending(empty_database.dsn, root=tmp_path) == ()


def test_a_failing_migration_leaves_nothing_of_its_file(empty_database: Database, tmp_path: Path) -> None:
    """File and line are named, earlier files stay, and the mended file is applied by the next run."""
    broken = "CREATE TABLE public.left_behind ();\nALTER TABLE\n  public.no_such_table ADD COLUMN x int;"
    root = write_tree(tmp_path, {**MIGRATIONS, "migrations/0002_column.sql": broken})

    with pytest.raises(MigrationRefused) as caught:
        migrate(empty_database.dsn, root=root)

    assert caught.value.message == "Migration 0002_column.sql failed"
    assert caught.value.field == "0002_column.sql"
    assert caught.value.received == 'relation "public.no_such_table" does not exist (42P01)'
    assert empty_database.fetch_value("SELECT to_regclass('public.left_behind') IS NULL")
    assert empty_database.fetch_value(LEDGER) == ["migration 0001_tables.sql"]
    assert names(migrate(empty_database.dsn, root=write_tree(tmp_path, MIGRATIONS))) == ["0002_column.sql"]


def test_a_syntax_error_is_named_with_its_line(empty_database: Database, tmp_path: Path) -> None:
    """The line is that of the file."""
    root = write_tree(tmp_path, {"migrations/0001_bad.sql": "SELECT 1;\n\nSELEC 2;"})
    with pytest.raises(MigrationRefused, match=r"Migration 0001_bad\.sql failed at line 3\."):
        migrate(empty_database.dsn, root=root)


def test_no_function_is_ever_there_without_its_grants(empty_database: Database, tmp_path: Path) -> None:
    """Functions and policies are one transaction: a failing policy takes the functions before it along."""
    root = write_tree(tmp_path, {**SMALL, "policies/later.sql": "REVOKE nothing;"})
    with pytest.raises(MigrationRefused, match=r"Policy later\.sql failed"):
        migrate(empty_database.dsn, root=root)
    with pytest.raises(UndefinedFunction):
        empty_database.fetch_value("SELECT public.one()")
    (root / "policies/later.sql").unlink()
    migrate(empty_database.dsn, root=root)
    with pytest.raises(InsufficientPrivilege):
        empty_database.as_service().execute("SELECT public.one()")


def test_a_file_outside_transactions_runs_statement_by_statement(
    empty_database: Database, tmp_path: Path
) -> None:
    """CREATE INDEX CONCURRENTLY works in a file whose first line asks for no transaction."""
    report = migrate(empty_database.dsn, root=write_tree(tmp_path, {**MIGRATIONS, **CONCURRENT_INDEX}))
    assert names(report)[-1] == "0003_index.sql"
    assert empty_database.fetch_value(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.job_queue_note'::regclass"
    )


def test_a_locked_table_stops_the_migration_not_the_application(
    empty_database: Database, tmp_path: Path
) -> None:
    """Past the lock timeout the run gives up naming the file, and nothing queues behind it any longer."""
    root = write_tree(tmp_path, {"migrations/0001_tables.sql": MIGRATIONS["migrations/0001_tables.sql"]})
    migrate(empty_database.dsn, root=root)
    reader = empty_database.connect(autocommit=False)
    reader.execute("SELECT FROM public.job_queue")

    with pytest.raises(MigrationRefused, match=r"0002_column\.sql needs stayed locked by another session"):
        migrate(empty_database.dsn, root=write_tree(root, MIGRATIONS), lock_timeout_seconds=0.05)

    reader.rollback()
    assert names(migrate(empty_database.dsn, root=root)) == ["0002_column.sql"]


def test_settings_of_the_database_do_not_matter(empty_database: Database, tmp_path: Path) -> None:
    """A read-only default, a statement timeout and a foreign search_path change nothing."""
    with empty_database.server.connect() as admin:
        for setting in (
            "default_transaction_read_only = on",
            "statement_timeout = 250",
            "search_path = nowhere",
        ):
            admin.execute(f"ALTER DATABASE {empty_database.name} SET {setting}".encode())
    slow = {"migrations/0009_slow.sql": "SELECT pg_catalog.pg_sleep(0.4);"}
    assert len(migrate(empty_database.dsn, root=write_tree(tmp_path, {**MIGRATIONS, **slow})).applied) == 3


def test_an_unreachable_database_is_named_as_such(tmp_path: Path) -> None:
    """Nothing listens there: the error says so, and that is exit status 3."""
    with pytest.raises(DatabaseUnreachable) as caught:
        migrate(f"postgresql://postgres@/nowhere?host={tmp_path}")
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("files", "received"),
    [
        ({"migrations/1_short.sql": ""}, "1_short.sql"),
        ({"migrations/0001_Big.sql": ""}, "0001_Big.sql"),
        ({"migrations/0001_a.sql": "", "migrations/0001_b.sql": ""}, "0001_a.sql and 0001_b.sql"),
    ],
)
def test_a_misnamed_migration_is_refused(files: dict[str, str], received: str, tmp_path: Path) -> None:
    """Wrong names and numbers given twice are found before anything is connected to."""
    with pytest.raises(ConfigurationError) as caught:
        load_tree(write_tree(tmp_path, files))
    assert caught.value.received == received


def test_checksums_do_not_depend_on_line_ends(tmp_path: Path) -> None:
    """A checkout with Windows line ends is the same release."""
    unix = load_tree(write_tree(tmp_path / "unix", FUNCTIONS)).functions
    (tmp_path / "dos/functions/deep").mkdir(parents=True)
    for name, text in FUNCTIONS.items():
        (tmp_path / "dos" / name).write_bytes((text + "\n").replace("\n", "\r\n").encode())
        (tmp_path / "unix" / name).write_bytes((text + "\n").encode())
    unix = load_tree(tmp_path / "unix").functions
    dos = load_tree(tmp_path / "dos").functions
    assert [file.checksum for file in unix] == [file.checksum for file in dos]
