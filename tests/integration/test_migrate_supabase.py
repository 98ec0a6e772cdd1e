"""Migrating a database that Supabase set up: nothing that is there is replaced, nobody gets more than before."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection, sql
from psycopg.errors import InsufficientPrivilege
from tests.support.databases import Database, new_database
from tests.support.servers import Server

from streamvibe.db.migrate import migrate, pending

# Roles as Supabase makes them. `builder` stands for its postgres: it owns the database, and is no superuser.
SUPABASE_ROLES = """
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT;
GRANT anon, authenticated, service_role TO authenticator;
CREATE ROLE supabase_auth_admin NOLOGIN NOINHERIT CREATEROLE;
CREATE ROLE builder LOGIN CREATEROLE CREATEDB BYPASSRLS;
GRANT anon, authenticated, service_role TO builder;
"""
SUPABASE_DATABASE = """
CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, builder;
SET ROLE supabase_auth_admin;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
$$;
RESET ROLE;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE builder IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE builder IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE builder IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
"""

# Everything Supabase owns that a migration could touch, in one comparable value.
EXISTING = """
SELECT jsonb_build_object(
    'roles', (SELECT jsonb_agg(to_jsonb(r) - 'rolpassword' ORDER BY r.rolname) FROM pg_roles r
              WHERE r.rolname !~ '^pg_'),
    'memberships', (SELECT jsonb_agg(jsonb_build_array(m.roleid::regrole, m.member::regrole, m.admin_option)
                                     ORDER BY m.roleid, m.member) FROM pg_auth_members m
                    WHERE m.member::regrole::text !~ '^pg_'),
    'functions', (SELECT jsonb_agg(jsonb_build_array(pg_get_functiondef(p.oid), p.proacl, p.proowner::regrole)
                                   ORDER BY p.oid)
                  FROM pg_proc p WHERE p.pronamespace = 'auth'::regnamespace),
    'schemas', (SELECT jsonb_agg(jsonb_build_array(n.nspname, n.nspacl, n.nspowner::regrole) ORDER BY n.nspname)
                FROM pg_namespace n WHERE n.nspname = 'auth'),
    'defaults', (SELECT jsonb_agg(d.defaclacl ORDER BY d.oid) FROM pg_default_acl d))::text
"""

FUNCTIONS = """
SELECT p.oid::regprocedure::text, p.proname FROM pg_proc p
WHERE p.pronamespace IN ('public'::regnamespace, 'streamvibe'::regnamespace) ORDER BY 1
"""
RELATIONS = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace IN ('public'::regnamespace, 'streamvibe'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm')
ORDER BY 1
"""


def as_builder(database: Database) -> str:
    """A connection URL for the role that migrates."""
    return database.dsn.replace("postgres@", "builder@")


def column(conn: Connection[Any], query: str) -> list[str]:
    """The first column of every row."""
    return [str(row[0]) for row in conn.execute(query.encode()).fetchall()]


@pytest.fixture(scope="module")
def supabase(bare_server: Server) -> Iterator[Database]:
    """A database as Supabase hands it over."""
    with bare_server.connect() as admin:
        admin.execute(SUPABASE_ROLES)
    with new_database(bare_server, owner="builder") as empty:
        empty.connect().execute(SUPABASE_DATABASE)
        empty.close()
        yield empty


@pytest.fixture(scope="module")
def existing(supabase: Database) -> tuple[str, str]:
    """What Supabase owns, before and after the migration."""
    before = supabase.fetch_value(EXISTING)
    assert migrate(as_builder(supabase)).applied
    return before, supabase.fetch_value(EXISTING)


def test_nothing_that_exists_is_replaced(existing: tuple[str, str]) -> None:
    """auth.uid(), its schema, every role's attributes and memberships, and default privileges stay as they were."""
    before, after = existing
    assert after == before


@pytest.mark.usefixtures("existing")
def test_anonymous_callers_can_do_nothing(supabase: Database) -> None:
    """anon may execute none of our functions and read none of our tables, whatever the default privileges gave."""
    conn = supabase.connect()
    functions, relations = column(conn, FUNCTIONS), column(conn, RELATIONS)
    assert len(functions) > 40 and "job_queue" in relations
    allowed = [
        f
        for f in functions
        if supabase.fetch_value("SELECT has_function_privilege('anon', %s, 'EXECUTE')", f)
    ]
    assert allowed == []
    for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
        readable = [
            name
            for name in relations
            if supabase.fetch_value("SELECT has_table_privilege('anon', %s, %s)", name, privilege)
        ]
        assert readable == [], privilege
    anon = supabase.connect("anon")
    with pytest.raises(InsufficientPrivilege):
        anon.execute("SELECT * FROM public.get_job_queue_stats()")


@pytest.mark.usefixtures("existing")
@pytest.mark.parametrize("role", ["authenticated", "service_role"])
def test_no_role_of_the_api_may_write_the_tables(supabase: Database, role: str) -> None:
    """Writing is for the functions alone; only the staging table takes rows, from the service."""
    conn = supabase.connect()
    writable = [
        (name, privilege)
        for name in column(conn, RELATIONS)
        for privilege in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
        if supabase.fetch_value("SELECT has_table_privilege(%s, %s, %s)", role, name, privilege)
    ]
    assert writable == ([("streamvibe.staging", "INSERT")] if role == "service_role" else [])


@pytest.mark.usefixtures("existing")
def test_a_signed_in_user_gets_a_job_by_supabases_own_identity(supabase: Database) -> None:
    """auth.uid() is Supabase's: the older setting request.jwt.claim.sub, which only theirs reads, names the user."""
    user_id = "6f0cf3a2-5f0c-4f4e-9a3e-0b8a54f0a001"
    supabase.connect("service_role").execute("SELECT register_job_type('supabase_test')")
    conn = supabase.connect("authenticated")
    conn.execute("SELECT set_config('request.jwt.claim.sub', %s, false)", [user_id])
    row = conn.execute("SELECT outcome FROM request_job(%s, 'supabase_test')", [user_id]).fetchone()
    assert row == ("created",)


@pytest.mark.usefixtures("existing")
def test_new_functions_of_a_later_release_are_closed_too(supabase: Database) -> None:
    """A second run finds nothing to do; the default privileges are still Supabase's, so every run has to revoke."""
    assert pending(as_builder(supabase)) == ()
    conn = supabase.connect()
    conn.execute(
        "DELETE FROM streamvibe.schema_migration WHERE kind = 'function' AND name LIKE '%/get_job.sql'"
    )
    conn.execute(sql.SQL("DROP FUNCTION public.get_job(uuid, uuid)"))
    applied = [file.name for file in migrate(as_builder(supabase)).applied]
    assert any(name.endswith("get_job.sql") for name in applied)
    assert not supabase.fetch_value(
        "SELECT has_function_privilege('anon', 'public.get_job(uuid, uuid)', 'EXECUTE')"
    )
