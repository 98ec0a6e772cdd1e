"""What is refused at migration, by name and untouched."""

from pathlib import Path

import pytest
from psycopg import DatabaseError
from tests.support.databases import Database
from tests.support.servers import Server, pg18_bin
from tests.support.sql_tree import MIGRATIONS, SMALL, write_tree

from streamvibe.db.migrate import migrate, pending
from streamvibe.db.migrate_files import SQL_ROOT, load_tree
from streamvibe.db.migrate_render import render_sql
from streamvibe.errors import MigrationRefused


def refusal(database: Database, root: Path = SQL_ROOT) -> MigrationRefused:
    """How this database is refused; `pending` has to say the same."""
    with pytest.raises(MigrationRefused) as by_migrate:
        migrate(database.dsn, root=root)
    with pytest.raises(MigrationRefused) as by_pending:
        pending(database.dsn, root=root)
    assert str(by_migrate.value) == str(by_pending.value)
    assert by_migrate.value.sqlstate == "SV013"
    assert by_migrate.value.received and by_migrate.value.fix
    return by_migrate.value


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("CREATE TABLE public.job_queue AS SELECT 'theirs' AS owner", "public.job_queue"),
        ("CREATE TABLE public.job_log AS SELECT 'theirs' AS owner", "public.job_log"),
        ("CREATE VIEW public.job_queue AS SELECT 'theirs' AS owner", "public.job_queue"),
        ("CREATE TYPE public.job_log AS ENUM ('theirs')", "public.job_log"),
    ],
)
def test_a_queue_that_is_not_ours_is_never_touched(
    empty_database: Database, statement: str, name: str
) -> None:
    """A relation or type of that name is refused by name; the database is left exactly as it was."""
    conn = empty_database.connect()
    conn.execute(statement.encode())
    objects = "SELECT array_agg(c.oid::text || c.relname || c.xmin ORDER BY c.oid) FROM pg_class c WHERE c.oid >= 16384"
    before = empty_database.fetch_value(objects)

    error = refusal(empty_database)

    assert error.message == f"there is a {name} that is not StreamVibe's"
    assert error.received == f"{name}, owned by postgres"
    assert empty_database.fetch_value(objects) == before
    assert empty_database.fetch_value("SELECT to_regnamespace('streamvibe') IS NULL")


THEIRS = "CREATE FUNCTION public.get_job(bigint) RETURNS text LANGUAGE sql AS 'SELECT $$theirs$$'"


def test_a_function_that_is_not_ours_is_never_replaced(empty_database: Database) -> None:
    """A public function with the name of one of ours is refused by name: its rights and body stay as they are."""
    conn = empty_database.connect()
    conn.execute(THEIRS)
    error = refusal(empty_database)
    assert error.message == "there is a function public.get_job that is not StreamVibe's"
    assert error.received == "public.get_job(bigint), owned by postgres"
    assert empty_database.fetch_value("SELECT public.get_job(1)") == "theirs"


@pytest.mark.parametrize("policy", ["grants", "plans"])
@pytest.mark.parametrize(
    "theirs",
    [
        THEIRS,
        # The last look at a security definer function: ours are listed in the ledger.
        THEIRS.replace("get_job(", "not_ours(") + " SECURITY DEFINER SET search_path = pg_catalog, pg_temp",
        "CREATE PROCEDURE public.get_job(bigint) LANGUAGE sql AS ''",
        "CREATE AGGREGATE public.get_job(bigint) (SFUNC = int8pl, STYPE = bigint)",
    ],
)
def test_a_function_made_later_stays_as_it_is(database: Database, policy: str, theirs: str) -> None:
    """Applying our policies again neither grants nor sets anything on a function of the application's own.

    That holds when it shares a name with one of ours, and for a procedure or an aggregate, too.
    """
    conn = database.connect()
    conn.execute(theirs.encode())
    is_there = "FROM pg_proc WHERE proname IN ('get_job', 'not_ours') AND proargtypes = '20'"
    before = database.fetch_value(f"SELECT row(proacl, proconfig)::text {is_there}")
    assert before is not None
    conn.execute((SQL_ROOT / f"policies/{policy}.sql").read_bytes())
    assert database.fetch_value(f"SELECT row(proacl, proconfig)::text {is_there}") == before


def test_an_upgrade_replaces_no_function_of_the_application(empty_database: Database, tmp_path: Path) -> None:
    """A function of a name that a newer release brings along is refused by name, and stays as it is."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    empty_database.connect().execute("CREATE FUNCTION public.three() RETURNS int LANGUAGE sql AS 'SELECT 33'")
    new = "CREATE OR REPLACE FUNCTION public.three() RETURNS int LANGUAGE sql AS 'SELECT 3';"
    error = refusal(empty_database, write_tree(tmp_path, {"functions/three.sql": new}))
    assert error.message == "there is a function public.three that is not StreamVibe's"
    assert empty_database.fetch_value("SELECT public.three()") == 33


def test_a_schema_of_our_name_that_is_not_ours_is_refused(empty_database: Database) -> None:
    """Somebody's schema streamvibe is not built into; an empty one, made for us, is used."""
    conn = empty_database.connect()
    conn.execute("CREATE SCHEMA streamvibe")
    conn.execute("CREATE TABLE streamvibe.songs ()")
    assert refusal(empty_database).received == "schema streamvibe, which holds songs"
    conn.execute("DROP TABLE streamvibe.songs")
    assert migrate(empty_database.dsn).applied


def test_an_edited_migration_is_refused_by_name(empty_database: Database, tmp_path: Path) -> None:
    """A released file whose text changed is named, and nothing else is applied either."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    edited = {"migrations/0002_column.sql": MIGRATIONS["migrations/0002_column.sql"] + "\n-- a new thought"}
    write_tree(tmp_path, {**edited, "migrations/0003_more.sql": "CREATE TABLE public.more ();"})

    error = refusal(empty_database, tmp_path)

    assert "the released migration 0002_column.sql was edited" in error.message
    assert error.field == "0002_column.sql"
    assert empty_database.fetch_value("SELECT to_regclass('public.more') IS NULL")


def test_a_renamed_migration_is_refused_by_name(empty_database: Database, tmp_path: Path) -> None:
    """The name is part of the release: both names are given."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    (tmp_path / "migrations/0002_column.sql").rename(tmp_path / "migrations/0002_note.sql")
    message = refusal(empty_database, tmp_path).message
    assert "0002_note.sql" in message and "0002_column.sql" in message


def test_a_database_newer_than_the_code_is_refused(empty_database: Database, tmp_path: Path) -> None:
    """A migration this release has never heard of: its name is given, and nothing is applied."""
    newer = {**SMALL, "migrations/0003_future.sql": "CREATE TABLE public.future ();"}
    migrate(empty_database.dsn, root=write_tree(tmp_path / "newer", newer))

    error = refusal(empty_database, write_tree(tmp_path / "older", SMALL))

    assert "the database is newer than this release" in error.message
    assert error.received == "0003_future.sql"


def test_functions_of_a_newer_release_are_not_put_back(empty_database: Database, tmp_path: Path) -> None:
    """A newer release that changed functions only is recognized too, so an old process cannot undo it."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, SMALL))
    empty_database.connect().execute(
        "UPDATE streamvibe.schema_migration SET release = '0.10.1rc1', checksum = 'new' WHERE name = 'one.sql'"
    )
    error = refusal(empty_database, tmp_path)
    assert error.received == "0.10.1rc1"
    assert error.fix == "Use StreamVibe 0.10.1rc1 or newer."


def test_a_migration_the_release_lost_is_refused(empty_database: Database, tmp_path: Path) -> None:
    """A number in the ledger that the release skips means another line of development."""
    migrate(empty_database.dsn, root=write_tree(tmp_path / "theirs", SMALL))
    ours = {
        "migrations/0001_tables.sql": MIGRATIONS["migrations/0001_tables.sql"],
        "migrations/0003_x.sql": "",
    }
    error = refusal(empty_database, write_tree(tmp_path / "ours", ours))
    assert error.received == "0002_column.sql"
    assert "a migration that this release" in error.message


def test_a_migration_that_comes_too_late_is_refused(empty_database: Database, tmp_path: Path) -> None:
    """A new file numbered below the newest applied one is not applied out of order."""
    migrate(empty_database.dsn, root=write_tree(tmp_path, {**MIGRATIONS, "migrations/0005_five.sql": ""}))
    write_tree(tmp_path, {"migrations/0004_late.sql": "CREATE TABLE public.late ();"})
    error = refusal(empty_database, tmp_path)
    assert error.received == "0004_late.sql"
    assert "0005_five.sql" in error.message


def test_a_server_older_than_15_is_refused(empty_database: Database) -> None:
    """The version check names the version; here it is asked for one that does not exist yet."""
    checks = (SQL_ROOT / "runner/checks.sql").read_text()
    assert checks.count("< 150000") == 1
    conn = empty_database.connect()
    conn.execute("SELECT set_config('streamvibe.known_migrations', '[]', false)")
    conn.execute("SELECT set_config('streamvibe.known_functions', '[]', false)")
    conn.execute("SELECT set_config('streamvibe.release', '1.0', false)")
    conn.execute(checks.encode())
    with pytest.raises(DatabaseError, match="StreamVibe needs PostgreSQL 15 or newer") as caught:
        conn.execute(checks.replace("< 150000", "< 990000").encode())
    assert caught.value.diag.message_detail == f"Received: {conn.info.parameter_status('server_version')}"


def test_a_database_that_cannot_hold_every_text_is_refused(empty_database: Database) -> None:
    """Only UTF8 will do."""
    with empty_database.server.connect() as admin:
        admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
        try:
            with pytest.raises(MigrationRefused) as caught:
                migrate(empty_database.server.dsn("latin"))
        finally:
            admin.execute("DROP DATABASE latin")
    assert caught.value.received == "LATIN1"


def test_a_replica_is_refused(pg18: Server) -> None:
    """A standby takes no writes: the error says to connect to the primary."""
    replica = Server("replica", pg18_bin())
    try:
        replica.start(replica_of=pg18)
        with pytest.raises(MigrationRefused, match="a replica cannot be migrated"):
            migrate(replica.dsn("postgres"))
    finally:
        replica.stop()


def test_every_refusal_is_in_the_printed_script_too() -> None:
    """The two checks that migrate runs are the ones that --sql prints."""
    script = render_sql()
    for name in ("checks.sql", "rights.sql"):
        assert (SQL_ROOT / "runner" / name).read_text() in script
    assert all(file.checksum in script for file in load_tree().migrations)
