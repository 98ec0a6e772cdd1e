"""Who may call and read what: checked for everything the catalogue lists, so that new things are checked too."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege
from tests.security.catalogue import Function, functions, relations
from tests.sql import kit
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server

# A function in public that stands in neither list fails the tests: decide whose it is.
FOR_USERS = {
    "request_job",
    "find_or_create_job",
    "get_cached_job_result",
    "cancel_jobs",
    "retry_jobs",
    "get_job",
    "get_job_result",
    "get_user_jobs",
    "get_user_jobs_by_cursor",
    "get_user_jobs_by_bucket",
    "search_jobs",
    "get_job_logs",
    "explain_job_wait",
}
FOR_SERVICE = {
    "create_jobs",
    "request_jobs",
    "register_job_type",
    "set_user_limit",
    "heartbeat_worker",
    "claim_jobs",
    "hold_claim",
    "keep_claim",
    "lease_jobs",
    "report_job_progress",
    "complete_jobs",
    "fail_jobs",
    "release_jobs",
    "release_forgotten_claims",
    "unregister_worker",
    "append_job_logs",
    "ensure_partitions",
    "retry_failed_jobs",
    "expire_stale_jobs",
    "recover_stuck_jobs",
    "recover_broken_claims",
    "cleanup_old_jobs",
    "cleanup_old_logs",
    "compact_stats",
    "forget_idempotency_keys",
    "recount_stats",
    "get_job_queue_stats",
    "get_workers",
    "pause_jobs",
    "resume_jobs",
    "get_pauses",
    "get_maintenance",
    "get_maintenance_runs",
    "set_maintenance_duty",
    "get_index_usage",
    "get_index_bloat",
    "get_table_health",
    "get_job_queue_alerts",
    "get_job_queue_metrics",
    "get_slow_statements",
    "make_report",
    "get_reports",
    "set_archive",
    "get_archive",
    "get_archive_files",
    "erase_user",
}
# Beside those in public.
LEAVES = {"old_partitions", "seal_partition", "count_partition", "place_sums", "drop_partition"}
DUTIES = {"lead_maintenance", "resign_maintenance", "register_duties", "begin_duty", "end_duty"}
ARCHIVE = {
    *(
        "lead_archive",
        "resign_archive",
        "plan_leaving",
        "archive_days",
        "open_archive_rows",
        "awaits_archive",
    ),
    *(
        "begin_archive_file",
        "end_archive_file",
        "finish_archive",
        "replace_archive_file",
        "reject_archive_file",
    ),
    *("unfinished_archive_files", "forget_archive_file", "erasures", "finish_erasure"),
}
DEFINERS = {"create_staged_jobs", "refuse_held_claim"} | LEAVES | DUTIES | ARCHIVE
PRIVATE_FOR_SERVICE = (
    {"create_staged_jobs", "now", "indexes_to_rebuild", "parents_to_analyze", "tables_to_vacuum"}
    | LEAVES
    | DUTIES
    | ARCHIVE
)
API_ROLES = ("anon", "authenticated", "service_role")
# What a role may do with a table or view. Everything else is denied.
ALLOWED = {
    ("public.job_queue", "authenticated"): {"SELECT"},
    ("public.job_queue", "service_role"): {"SELECT"},
    ("public.job_log", "authenticated"): {"SELECT"},
    ("public.job_log", "service_role"): {"SELECT"},
    ("streamvibe.staging", "service_role"): {"INSERT"},
    ("creators.creator", "service_role"): {"SELECT"},
    ("creators.content", "service_role"): {"SELECT"},
}
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
PARAMS = {"secret": "of the victim"}


class House:
    """A database with a victim's jobs in it, and the session of somebody else."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect()
        self.victim, self.intruder = uuid4(), uuid4()
        kit.register(self.conn)
        kit.worker(self.conn, p_lease="1 day")
        self.jobs = self._fill(self.conn)
        self.as_intruder = database.as_user(self.intruder)
        self.functions = functions(self.conn)

    def _fill(self, conn: Connection[Any]) -> list[UUID]:
        done = kit.job_id(conn, self.victim, p_params=PARAMS)
        jobs = kit.claim(conn)
        kit.call(conn, "append_job_logs", **kit.held(jobs), p_levels=["info"], p_messages=["secret"])
        kit.complete(conn, jobs, result={"secret": 1})
        failed = kit.job_id(conn, self.victim)
        kit.fail(conn, kit.claim(conn), failure={**kit.ERROR, "retry_after_seconds": 3600})
        running = kit.job_id(conn, self.victim)
        kit.lease(conn, kit.claim(conn))
        live = kit.job_id(conn, self.victim, p_params={"live": True}, p_idempotency_key="key")
        return [done, failed, running, live]

    def everything(self) -> list[kit.Row]:
        """Every job of the victim, for comparison."""
        return kit.query(self.conn, "SELECT * FROM job_queue WHERE user_id = %s ORDER BY id", self.victim)

    def of(self, names: set[str]) -> list[Function]:
        """Those functions of public."""
        return [f for f in self.functions if f.schema == "public" and f.name in names]


@pytest.fixture(scope="module")
def house(server: Server) -> Iterator[House]:
    """One for all tests of a server."""
    with new_database(server, TEMPLATE) as database:
        yield House(database)


def test_every_function_belongs_to_somebody(house: House) -> None:
    """Each function in public is for users or for the service; each list names functions that exist."""
    found = {f.name for f in house.functions if f.schema == "public"}
    assert found == FOR_USERS | FOR_SERVICE
    assert {f.schema for f in house.functions} <= {"public", "streamvibe"}
    assert len(house.functions) > len(found) + 10, "the catalogue query misses the private functions"


def test_execute_rights(house: House) -> None:
    """anon may call nothing, PUBLIC nothing, authenticated its list, the service both lists: by the catalogue."""
    allowed = {
        "anon": set(),
        "authenticated": {f"public.{name}" for name in FOR_USERS},
        "service_role": {f"public.{name}" for name in FOR_USERS | FOR_SERVICE}
        | {f"streamvibe.{name}" for name in PRIVATE_FOR_SERVICE},
    }
    may = "SELECT has_function_privilege(%s, %s::oid, 'EXECUTE')"
    for function in house.functions:
        assert 0 not in function.grantees, f"PUBLIC may execute {function.full_name}"
        for role, names in allowed.items():
            assert kit.value(house.conn, may, role, function.oid) == (function.full_name in names), (
                f"{role}, {function.full_name}"
            )


def test_real_calls_are_denied(house: House) -> None:
    """The same by calling: each function that a role may not execute is refused before it runs."""
    for role, allowed in (("anon", set()), ("authenticated", FOR_USERS)):
        conn = house.database.connect(role)
        for function in house.functions:
            if function.schema == "public" and function.name in allowed:
                continue
            with pytest.raises(InsufficientPrivilege):
                conn.execute(function.with_nulls().encode())
        conn.close()


def test_definers_are_pinned(house: House) -> None:
    """Public functions run as their owner with a fixed search_path; private ones run as whoever called them."""
    owners = {f.owner for f in house.functions}
    assert len(owners) == 1
    for function in house.functions:
        public = function.schema == "public" or function.name in DEFINERS
        assert function.definer == public, function.full_name
        if function.definer:
            assert "search_path=pg_catalog, pg_temp" in function.settings, function.full_name
            assert not any(setting.startswith("role=") for setting in function.settings)


def arguments_against(house: House, function: Function, user_id: UUID | None) -> dict[str, Any]:
    """What an intruder would pass to get at the victim's jobs."""
    about = {
        "p_user_id": user_id,
        "p_job_type": "email",
        "p_params": PARAMS,
        "p_job_id": house.jobs[0],
        "p_job_ids": house.jobs,
    }
    unknown = set(function.required) - set(about)
    assert not unknown, f"say here what an intruder would pass to {function.name} for {unknown}"
    return {name: about[name] for name in function.arguments if name in about}


@pytest.mark.parametrize("name", sorted(FOR_USERS))
def test_another_users_id(house: House, name: str) -> None:
    """A user who passes another user's id gets SV004 and nothing else, from every function that takes one."""
    [function] = house.of({name})
    assert "p_user_id" in function.arguments, f"{name} acts for a user but does not say which"
    before = house.everything()
    with kit.refused("SV004", "p_user_id", str(house.victim)):
        kit.call(house.as_intruder, name, **arguments_against(house, function, house.victim))
    assert house.everything() == before


@pytest.mark.parametrize("who", ["NULL", "own id"])
@pytest.mark.parametrize("name", sorted(FOR_USERS))
def test_another_users_jobs(house: House, name: str, who: str) -> None:
    """With their own id, a user who names another's jobs, or asks for another's work, learns and changes nothing."""
    [function] = house.of({name})
    before = house.everything()
    user_id = house.intruder if who == "own id" else None
    rows = kit.call(house.as_intruder, name, **arguments_against(house, function, user_id))
    for row in rows:
        if "outcome" in row and name in ("cancel_jobs", "retry_jobs"):
            assert (row["outcome"], row["status"]) == ("not_found", None)
        else:
            assert not {row.get("id"), row.get("job_id")} & set(house.jobs), row
            assert "secret" not in str(row.get("result"))
    assert house.everything() == before


@pytest.mark.parametrize("name", sorted(FOR_USERS))
def test_nobody_signed_in(house: House, name: str) -> None:
    """The role authenticated without a user in the claims is nobody: SV004, whomever it names."""
    [function] = house.of({name})
    conn = house.database.connect("authenticated")
    for user_id in (None, house.victim):
        with kit.refused("SV004", "request.jwt.claims"):
            kit.call(conn, name, **arguments_against(house, function, user_id))
    conn.close()


@pytest.mark.parametrize("claims", ["", "{}", '{"sub": null}', '{"sub": "x"}', "garbage", "[]", '"text"'])
def test_broken_claims(house: House, claims: str) -> None:
    """Claims without a usable user id show no job, in calls and in the tables."""
    conn = house.database.connect("authenticated")
    conn.execute("SELECT set_config('request.jwt.claims', %s, false)", [claims])
    for text in (f"SELECT * FROM get_user_jobs('{house.victim}')", "SELECT * FROM job_queue"):
        try:
            rows = kit.query(conn, text)
        except psycopg.Error as error:
            assert error.diag.sqlstate in ("SV004", "22P02", "22023")
        else:
            assert rows == []
    conn.close()


def test_table_rights(house: House) -> None:
    """No role may write a table, nor read a leaf or a support table; new tables are nobody's."""
    may = "SELECT has_table_privilege(%s, %s, %s)"
    for relation in relations(house.conn):
        name = f"{relation['schema']}.{relation['name']}"
        for role in API_ROLES:
            rights = ("SELECT", "UPDATE", "USAGE") if relation["kind"] == "S" else RIGHTS
            check = may.replace("table", "sequence") if relation["kind"] == "S" else may
            has = {right for right in rights if kit.value(house.conn, check, role, name, right)}
            assert has == ALLOWED.get((name, role), set()), f"{role} on {name}"
            columns = "SELECT has_any_column_privilege(%s, %s, %s)"
            if relation["kind"] != "S" and not has:
                assert not any(
                    kit.value(house.conn, columns, role, name, right) for right in ("SELECT", "UPDATE")
                )


def test_real_reads_and_writes_are_denied(house: House) -> None:
    """The same by trying: writes to both tables, reads of every leaf and support table."""
    for role in API_ROLES:
        conn = house.database.connect(role)
        for table in ("job_queue", "job_log"):
            for write in (
                f"DELETE FROM public.{table}",
                f"UPDATE public.{table} SET user_id = user_id",
                f"TRUNCATE public.{table}",
                f"INSERT INTO public.{table} (user_id) VALUES ('{house.intruder}')",
                f"ALTER TABLE public.{table} DISABLE ROW LEVEL SECURITY",
                f"LOCK TABLE public.{table} IN ACCESS EXCLUSIVE MODE",
                f"COPY public.{table} FROM stdin",
            ):
                with pytest.raises(InsufficientPrivilege), conn.transaction():
                    conn.execute(write.encode())
        for relation in relations(house.conn):
            if relation["schema"] == "streamvibe" and relation["kind"] != "S":
                with pytest.raises(InsufficientPrivilege):
                    conn.execute(f"SELECT FROM streamvibe.{relation['name']}".encode())
        conn.close()


def test_row_security(house: House) -> None:
    """On for both tables and every leaf; users read their own rows, the service all, anon none."""
    ours = [r for r in relations(house.conn) if r["name"].startswith("job_") and r["kind"] in "rp"]
    leaves = [r for r in ours if r["schema"] == "streamvibe" and r["name"][-8:].isdigit()]
    assert len(leaves) >= 8
    for relation in [*leaves, *(r for r in ours if r["schema"] == "public")]:
        assert relation["row_security"], relation["name"]
    for table in ("job_queue", "job_log"):
        users = f"SELECT DISTINCT user_id FROM public.{table}"
        mine = kit.query(house.database.as_user(house.victim), users)
        assert [row["user_id"] for row in mine] == [house.victim]
        assert kit.query(house.database.as_user(uuid4()), users) == []
        everybody = kit.query(house.database.as_service(), users)
        assert {row["user_id"] for row in everybody} >= {house.victim}
        with pytest.raises(InsufficientPrivilege):
            house.database.connect("anon").execute(users.encode())
