"""Roles that may not migrate are told which right they lack and the GRANT that gives it."""

from collections.abc import Iterator

import pytest
from psycopg import sql
from tests.support.databases import Database, new_database, temporary_roles
from tests.support.servers import Server

from streamvibe.db.migrate import migrate, pending
from streamvibe.errors import MigrationRefused


@pytest.fixture
def database(bare_server: Server) -> Iterator[Database]:
    """An empty database on a server without StreamVibe's roles, beside a role without rights."""
    with temporary_roles(bare_server, "app"):
        with new_database(bare_server) as empty:
            yield empty
        with bare_server.connect() as admin:
            for role in ("anon", "authenticated", "service_role"):
                admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def as_app(database: Database) -> str:
    """A connection URL for the role `app`."""
    return database.dsn.replace("postgres@", "app@")


def refusal(database: Database) -> MigrationRefused:
    """How the role `app` is refused."""
    with pytest.raises(MigrationRefused) as caught:
        migrate(as_app(database))
    assert database.fetch_value("SELECT to_regclass('public.job_queue') IS NULL")
    return caught.value


def test_following_each_advice_leads_to_a_migrated_database(database: Database) -> None:
    """Each refusal names one missing right; granting what it says, one after the other, is enough."""
    admin = database.connect()
    missing = []
    for _ in range(3):
        error = refusal(database)
        assert (error.field, error.received) == ("role", "role app")
        missing.append(error.message.removeprefix("to migrate, this role lacks "))
        assert error.fix is not None
        grant = error.fix.removeprefix("As an administrator: ").split(" or make them")[0]
        admin.execute(grant.encode())

    assert missing == [
        f"CREATE on the database {database.name}",
        "CREATE on the schema public",
        "CREATEROLE, to make the missing roles anon, authenticated, service_role",
    ]
    assert migrate(as_app(database)).applied
    assert (
        database.fetch_value("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'job_queue'")
        == "app"
    )


def test_roles_made_by_an_administrator_are_enough(database: Database) -> None:
    """Without CREATEROLE it works as well, once the roles are there: the second way the advice offers."""
    admin = database.connect()
    admin.execute(f"GRANT CREATE ON DATABASE {database.name} TO app".encode())
    admin.execute("GRANT USAGE, CREATE ON SCHEMA public TO app")
    fix = refusal(database).fix
    assert fix is not None
    admin.execute(fix.split("as an administrator: ")[1].encode())
    assert migrate(as_app(database)).applied


def test_the_owner_of_the_database_needs_nothing_but_the_roles(database: Database) -> None:
    """Owning the database gives both rights to create."""
    admin = database.connect()
    admin.execute(f"ALTER DATABASE {database.name} OWNER TO app".encode())
    admin.execute("ALTER ROLE app CREATEROLE")
    assert migrate(as_app(database)).applied
    admin.execute(f"ALTER DATABASE {database.name} OWNER TO postgres".encode())


def test_another_role_is_told_who_owns_the_schema(database: Database) -> None:
    """A role that may not even read the ledger is sent to the owner, by migrate and by pending."""
    migrate(database.dsn)
    for call in (migrate, pending):
        with pytest.raises(MigrationRefused, match="Run it as the role that owns the schema streamvibe"):
            call(as_app(database))
    database.connect().execute("GRANT USAGE ON SCHEMA streamvibe TO app")
    database.connect().execute("GRANT SELECT ON streamvibe.schema_migration TO app")
    assert pending(as_app(database)) == ()
    database.connect().execute("DELETE FROM streamvibe.schema_migration WHERE kind = 'policy'")
    with pytest.raises(MigrationRefused, match=r"belongs to postgres.*GRANT postgres TO app;"):
        migrate(as_app(database))


@pytest.mark.parametrize("later", ["postgres", "deputy"])
def test_only_the_owner_migrates_an_existing_schema(
    database: Database, bare_server: Server, later: str
) -> None:
    """A superuser, or a member of the owner's role, is refused while somebody else owns job_queue.

    What they made would be theirs: no function of ours, with the EXECUTE that PUBLIC gets by default, and running
    with a superuser's rights. As the owner, in the way the error says, it goes through.
    """
    admin = database.connect()
    admin.execute(f"ALTER DATABASE {database.name} OWNER TO app".encode())
    admin.execute("ALTER ROLE app CREATEROLE")
    migrate(as_app(database))
    admin.execute("DELETE FROM streamvibe.schema_migration WHERE name LIKE '%/get_job.sql'")
    admin.execute("DROP FUNCTION public.get_job(uuid, uuid)")
    with temporary_roles(bare_server, "deputy"):
        admin.execute("GRANT app TO deputy")
        dsn = database.dsn.replace("postgres@", f"{later}@")
        with pytest.raises(MigrationRefused, match="belongs to app, and every migration") as caught:
            migrate(dsn)
        assert (caught.value.field, caught.value.received) == ("role", f"role {later}")
        assert caught.value.fix == "Connect as app, or keep the connection and set PGOPTIONS='-c role=app'."
        assert database.fetch_value("SELECT to_regproc('public.get_job') IS NULL")
        migrate(f"{dsn}{'&' if '?' in dsn else '?'}options=-c%20role%3Dapp")
    assert not database.fetch_value(
        "SELECT has_function_privilege('public', 'public.get_job(uuid, uuid)', 'EXECUTE')"
    )
    owners = (
        "SELECT array_agg(DISTINCT proowner::regrole::text) FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace"
    )
    assert database.fetch_value(owners) == ["app"]
    admin.execute(f"ALTER DATABASE {database.name} OWNER TO postgres".encode())
