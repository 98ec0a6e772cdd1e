"""What somebody with a database login of their own may try: changing roles, borrowing rights, hijacking names."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege
from tests.security.catalogue import functions
from tests.sql import kit
from tests.support.databases import TEMPLATE, Database, new_database, temporary_roles
from tests.support.servers import Server

GATE, APP, OWNER = "tenancy_gate", "tenancy_app", "tenancy_owner"


@pytest.fixture(scope="module")
def roles(server: Server) -> Iterator[None]:
    """The role an API logs in with (a member of all three, as Supabase's authenticator), an app's, an owner's."""
    with temporary_roles(server, GATE, APP, OWNER):
        with server.connect() as admin:
            admin.execute(f"ALTER ROLE {GATE} NOINHERIT".encode())
            admin.execute(f"GRANT anon, authenticated, service_role TO {GATE}".encode())
            admin.execute(f"GRANT authenticated TO {APP}".encode())
        yield


@pytest.fixture
def house(server: Server, roles: None) -> Iterator[Database]:
    """A database where a victim has a job."""
    with new_database(server, TEMPLATE) as database:
        conn = database.connect()
        kit.register(conn)
        conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        yield database


def login(database: Database, role: str, user_id: UUID | None = None) -> Connection[Any]:
    """A session that really logged in as this role, with a user in its claims."""
    conn = psycopg.connect(f"{database.dsn}&user={role}".replace("postgres@", "@"), autocommit=True)
    assert kit.value(conn, "SELECT session_user::text") == role
    if user_id is not None:
        conn.execute("SELECT set_config('request.jwt.claims', %s, false)", [f'{{"sub": "{user_id}"}}'])
    return conn


def victim_of(database: Database) -> tuple[UUID, UUID]:
    """Another user and their job."""
    user_id = uuid4()
    return user_id, kit.job_id(database.connect(), user_id)


def test_a_user_cannot_become_the_service(house: Database) -> None:
    """No statement that a login of its own may send turns it into the service, the owner or a superuser."""
    with login(house, APP, uuid4()) as conn:
        conn.execute("SET ROLE authenticated")
        for trick in (
            "SET ROLE service_role",
            "SET LOCAL ROLE service_role",
            "SELECT set_config('role', 'service_role', false)",
            "SET ROLE postgres",
            "SET SESSION AUTHORIZATION service_role",
            "SET SESSION AUTHORIZATION postgres",
            "SELECT set_config('session_authorization', 'postgres', false)",
            "GRANT service_role TO CURRENT_USER",
            "ALTER ROLE CURRENT_USER RENAME TO service_role2",
            "CREATE ROLE other SUPERUSER",
            "ALTER FUNCTION public.get_job(uuid, uuid) OWNER TO CURRENT_USER",
            "SELECT claim_jobs('w1')",
            "SELECT streamvibe.is_service()",
        ):
            with pytest.raises(psycopg.Error), conn.transaction():
                conn.execute(trick.encode())


@pytest.mark.parametrize("role", [GATE, APP])
def test_memberships_alone_are_no_rights(house: Database, role: str) -> None:
    """A login that is a member of service_role, or of authenticated, acts for nobody but the user in its claims."""
    victim, job_id = victim_of(house)
    user_id = uuid4()
    with login(house, role, user_id) as conn:
        if role == GATE:
            with pytest.raises(InsufficientPrivilege):
                kit.query(conn, "SELECT * FROM get_user_jobs(NULL)")
            conn.execute("SET ROLE authenticated")
            conn.execute("SELECT set_config('role', 'none', false)")
            with pytest.raises(InsufficientPrivilege):
                kit.query(conn, "SELECT * FROM get_user_jobs(NULL)")
            conn.execute("SET ROLE authenticated")
        assert kit.query(conn, "SELECT * FROM get_user_jobs(NULL)") == []
        with kit.refused("SV004", "p_user_id"):
            kit.query(conn, "SELECT * FROM get_user_jobs(%s)", victim)
        assert kit.query(conn, "SELECT * FROM get_job(%s)", job_id) == []
        assert kit.query(conn, "SELECT * FROM job_queue") == []


def test_an_inherited_service_role_does_not_count(house: Database) -> None:
    """Even a login that inherits service_role's EXECUTE is refused by service functions until it sets the role."""
    house.connect().execute(f"GRANT service_role TO {APP}".encode())
    victim, job_id = victim_of(house)
    try:
        with login(house, APP, uuid4()) as conn:
            with kit.refused("SV004", "role", APP):
                kit.call(conn, "get_job_queue_stats")
            with kit.refused("SV004", "p_user_id"):
                kit.call(conn, "get_job", p_job_id=job_id, p_user_id=victim)
            assert kit.call(conn, "get_job", p_job_id=job_id) == []
            conn.execute("SET ROLE service_role")
            assert len(kit.call(conn, "get_job", p_job_id=job_id)) == 1
    finally:
        house.connect().execute(f"REVOKE service_role FROM {APP}".encode())


def test_claims_do_not_make_a_service(house: Database) -> None:
    """A token that says "role": "service_role" is still a user's while the session's role is authenticated."""
    victim, job_id = victim_of(house)
    conn = house.connect("authenticated")
    claims = f'{{"sub": "{uuid4()}", "role": "service_role"}}'
    conn.execute("SELECT set_config('request.jwt.claims', %s, false)", [claims])
    with kit.refused("SV004", "p_user_id"):
        kit.call(conn, "get_user_jobs", p_user_id=victim)
    assert kit.call(conn, "get_job", p_job_id=job_id) == []
    with pytest.raises(InsufficientPrivilege):
        kit.call(conn, "get_job_queue_stats")


@pytest.mark.parametrize("claims", ["not json", '{"sub": "user_2abc"}', "[1]"])
def test_claims_that_cannot_be_read(house: Database, claims: str) -> None:
    """No JSON, or a user whose id is no UUID: nobody is signed in, and the error names the setting."""
    conn = house.connect("authenticated")
    conn.execute("SELECT set_config('request.jwt.claims', %s, false)", [claims])
    with kit.refused("SV004", "request.jwt.claims"):
        kit.call(conn, "get_user_jobs", p_user_id=None)


@pytest.mark.parametrize("owner", ["postgres", "service_role", OWNER])
def test_a_careless_definer_function(house: Database, owner: str) -> None:
    """A function of the app that runs with its owner's rights still acts for the user who called it.

    Whoever owns it (the queue's owner, the service, somebody else), and however it names the victim.
    """
    victim, job_id = victim_of(house)
    conn = house.connect()
    conn.execute(f"GRANT authenticated TO {OWNER}".encode())
    conn.execute(
        """
        CREATE FUNCTION public.app_jobs(uuid) RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER
        AS 'SELECT j.id FROM public.get_user_jobs($1) j';
        CREATE FUNCTION public.app_job(uuid) RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER
        AS 'SELECT j.id FROM public.get_job($1) j';
        """
    )
    for name in ("app_jobs", "app_job"):
        conn.execute(f"ALTER FUNCTION public.{name}(uuid) OWNER TO {owner}".encode())
    user = house.as_user(uuid4())
    with kit.refused("SV004", "p_user_id"):
        user.execute("SELECT public.app_jobs(%s)", [victim])
    assert user.execute("SELECT public.app_job(%s)", [job_id]).fetchall() == []
    with login(house, APP, uuid4()) as app, kit.refused("SV004", "p_user_id"):
        app.execute("SELECT public.app_jobs(%s)", [victim])


# Names that the functions use unqualified, taken over by somebody who may create things in public: what is called
# there leaves a trace of whose rights it ran with.
HIJACK = """
CREATE TABLE public.trace (who text NOT NULL);
GRANT ALL ON public.trace TO PUBLIC;
CREATE FUNCTION public.noted() RETURNS boolean LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.trace VALUES (current_user); RETURN true; END$$;
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN ''epoch''::timestamptz END';
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN ''service_role'' END';
CREATE FUNCTION public.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN ''object'' END';
CREATE FUNCTION public.cardinality(uuid[]) RETURNS integer LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN 1 END';
CREATE FUNCTION public.substr(text, integer, integer) RETURNS text LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN pg_catalog.substr($1, $2, $3) END';
CREATE FUNCTION public.upper(text) RETURNS text LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN pg_catalog.upper($1) END';
CREATE FUNCTION public.same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT public.noted()';
CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = public.same);
CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT public.noted()';
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.same);
CREATE FUNCTION public.more(timestamptz, interval) RETURNS timestamptz LANGUAGE sql AS
    'SELECT CASE WHEN public.noted() THEN $1 END';
CREATE OPERATOR public.- (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = public.more);
CREATE OPERATOR public.+ (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = public.more);
CREATE TEMP TABLE job_queue (id uuid, user_id uuid, status text);
CREATE TEMP TABLE claim (job_ids uuid[], worker_id text, token bigint);
CREATE TEMP TABLE account (user_id uuid, max_live_jobs integer);
CREATE TEMP TABLE pg_class (oid oid, relowner oid);
CREATE TEMP TABLE pg_roles (rolname name, rolsuper boolean, oid oid);
INSERT INTO pg_temp.pg_roles VALUES ('authenticated', true, 1), ('tenancy_app', true, 2);
"""


def test_hijacked_names(house: Database) -> None:
    """A user's functions, operators and temporary tables of the same names are never used inside ours."""
    victim, job_id = victim_of(house)
    user_id = uuid4()
    with login(house, APP, user_id) as conn:
        conn.execute(HIJACK.encode())
        conn.execute("SET search_path = pg_temp, public, pg_catalog")
        made = kit.query(
            conn, "SELECT job_id FROM public.request_job($1, 'email', '{}')".replace("$1", f"'{user_id}'")
        )
        mine = made[0]["job_id"]
        some = {
            "request_job": "'email', '{}'",
            "find_or_create_job": "'email', '{}'",
            "get_cached_job_result": "'email', '{}'",
            "cancel_jobs": f"ARRAY['{mine}', '{job_id}']::uuid[]",
            "retry_jobs": f"ARRAY['{mine}', '{job_id}']::uuid[]",
            "get_job": None,
            "get_job_result": None,
            "get_job_logs": None,
            "get_user_jobs": "NULL, NULL, 5",
            "get_user_jobs_by_cursor": "NULL, NULL, NULL, 5",
            "get_user_jobs_by_bucket": "'day', 1, NULL, NULL, 5",
            "search_jobs": """'{"a": 1}'""",
        }
        listed = {f.name for f in functions(house.connect()) if f.schema == "public" and f.name in some}
        assert listed == set(some)
        for name, rest in some.items():
            if rest is None:
                assert conn.execute(f"SELECT public.{name}('{job_id}'::uuid)".encode()).fetchall() == []
                continue
            conn.execute(f"SELECT public.{name}('{user_id}'::uuid, {rest})".encode()).fetchall()
            with kit.refused("SV004"):
                conn.execute(f"SELECT public.{name}('{victim}'::uuid, {rest})".encode())
        conn.execute("RESET search_path")
    assert kit.query(house.connect(), "SELECT DISTINCT who FROM public.trace") == []
    assert kit.status(house.connect(), job_id) == "pending"


def test_hijacked_names_and_the_service(house: Database) -> None:
    """The same traps do not catch the service or the owner when their search_path leads through public."""
    with login(house, APP) as conn:
        conn.execute(HIJACK.encode())
    for role in ("service_role", "postgres"):
        service = house.connect(role)
        service.execute("SET search_path = public, pg_catalog")
        kit.worker(service)
        kit.job_id(service)
        jobs = kit.claim(service)
        kit.lease(service, jobs)
        for function in (
            "recover_stuck_jobs",
            "retry_failed_jobs",
            "expire_stale_jobs",
            "get_job_queue_stats",
        ):
            kit.call(service, function)
        kit.call(service, "ensure_partitions", p_ahead="9 weeks")
        assert kit.complete(service, jobs) == []
    who = kit.query(house.connect(), "SELECT DISTINCT who FROM public.trace")
    assert who == [], f"a user's function ran with the rights of {who}"
