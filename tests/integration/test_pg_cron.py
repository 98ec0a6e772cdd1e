"""streamvibe maintain schedule --pg-cron, on a PostgreSQL 15 whose pg_cron really runs what is written there."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from tests.sql import kit
from tests.support.cli import Ran, Run, command, environment, streamvibe
from tests.support.databases import Database, temporary_roles
from tests.support.pg_cron import pg15_cron_bin
from tests.support.servers import Server
from tests.support.waiting import wait_until

from streamvibe.db.migrate import migrate

SERVED = "served"
JOBS = "SELECT jobname, schedule, command FROM cron.job ORDER BY jobname"
#: pg_cron of Debian's PostgreSQL 15 knows minutes only; these run more often, or need a process.
LEFT_OUT = {
    "recover_stuck_jobs",
    "compact_stats",
    "retry_failed_jobs",
    "drop_old_partitions",
    "vacuum_small_tables",
    "reindex_bloated",
    "archive",
}


@pytest.fixture(scope="module")
def cron_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose pg_cron works for one database."""
    server = Server("pg15-cron", pg15_cron_bin(tmp_path_factory.mktemp("pg_cron")))
    try:
        settings = {"cron.database_name": SERVED, "cron.host": str(server.home)}
        server.start(replica_of=None, shared_preload_libraries="pg_cron", **settings)
        with server.connect() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(SERVED)))
        migrate(server.dsn(SERVED))
        yield server
    finally:
        server.stop()


class Cron:
    """The database that pg_cron works for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.dsn = server.dsn(SERVED)
        self.conn = server.connect(SERVED)

    def run(self, *arguments: object) -> Ran:
        """A command against it."""
        return streamvibe(self.dsn, *arguments)

    def outcomes(self, *arguments: object) -> dict[str, str]:
        """What `maintain schedule --pg-cron` did with each duty."""
        ran = self.run("maintain", "schedule", "--pg-cron", *arguments)
        assert ran.status == 0, ran.err
        return {line[0]: line[1] for line in ran.lines}

    def jobs(self) -> dict[str, tuple[str, str]]:
        """What is in cron.job: schedule and command by name."""
        return {row["jobname"]: (row["schedule"], row["command"]) for row in kit.query(self.conn, JOBS)}


@pytest.fixture
def bare(cron_server: Server) -> Iterator[Cron]:
    """Without the extension."""
    cron = Cron(cron_server)
    try:
        yield cron
    finally:
        cron.conn.execute("DROP EXTENSION IF EXISTS pg_cron")
        cron.conn.execute("DELETE FROM streamvibe.duty")
        cron.conn.close()


@pytest.fixture
def cron(bare: Cron) -> Cron:
    """With the extension."""
    bare.conn.execute("CREATE EXTENSION pg_cron")
    return bare


def test_without_it_the_schedule_is_printed(run: Run, database18: Database) -> None:
    """Each duty with when it runs, as an operator set it; --remove alone is refused."""
    with database18.connect() as conn:
        conn.execute(
            "SELECT streamvibe.register_duties(streamvibe.lead_maintenance('a'), '{cleanup_old_jobs}', '{7 * * * *}')"
        )
        conn.execute("SELECT set_maintenance_duty('cleanup_old_jobs', p_enabled => false)")
    lines = dict(run("maintain", "schedule").lines)
    assert (lines["cleanup_old_jobs"], lines["weekly_report"]) == ("disabled", "25 0 * * 1")
    items = run("maintain", "schedule", "--json").json["items"]
    assert {item["duty"]: item["schedule"] for item in items}["cleanup_old_jobs"] is None
    refused = run("maintain", "schedule", "--remove")
    assert refused.status == 2 and "--remove without --pg-cron" in refused.err


def test_where_it_is_not_installed(run: Run) -> None:
    """Refused, with all there is to do, and what does it instead."""
    refused = run("maintain", "schedule", "--pg-cron")
    assert refused.status == 2 and "pg_cron is not installed" in refused.err
    for step in ("shared_preload_libraries", "cron.database_name", "CREATE EXTENSION", "maintain run"):
        assert step in refused.err
    assert run("--json", "maintain", "schedule", "--pg-cron").problem["field"] == "pg_cron"


@pytest.mark.pg_cron
def test_where_it_is_loaded_but_no_extension(bare: Cron) -> None:
    """The fix is the extension alone, and works."""
    refused = bare.run("maintain", "schedule", "--pg-cron")
    assert refused.status == 2 and "shared_preload" not in refused.err and "CREATE EXTENSION" in refused.err
    bare.conn.execute("CREATE EXTENSION pg_cron")
    assert bare.outcomes()


@pytest.mark.pg_cron
def test_where_it_works_for_another_database(cron: Cron) -> None:
    """Named, and nothing is written."""
    with cron.server.connect() as admin:
        admin.execute("CREATE DATABASE other")
    migrate(cron.server.dsn("other"))
    refused = streamvibe(cron.server.dsn("other"), "maintain", "schedule", "--pg-cron")
    assert refused.status == 2 and "another database" in refused.err
    assert f"cron.database_name: {SERVED}" in refused.err and cron.jobs() == {}


@pytest.mark.pg_cron
def test_an_old_one_is_refused(bare: Cron) -> None:
    """Before 1.4 jobs cannot be changed by name; updated, it works."""
    bare.conn.execute("CREATE EXTENSION pg_cron VERSION '1.3'")
    refused = bare.run("maintain", "schedule", "--pg-cron")
    assert (
        refused.status == 2 and "too old" in refused.err and "ALTER EXTENSION pg_cron UPDATE" in refused.err
    )
    bare.conn.execute("ALTER EXTENSION pg_cron UPDATE")
    assert bare.outcomes()


@pytest.mark.pg_cron
def test_the_schedule_is_written_changed_and_removed(cron: Cron) -> None:
    """Written once; changed with the duties; what is disabled or gone is taken away; others' jobs stay."""
    cron.conn.execute("SELECT cron.schedule('mine', '0 0 * * *', 'SELECT 1')")
    ran = cron.run("maintain", "schedule", "--pg-cron", "--json")
    assert {item["outcome"] for item in ran.json["items"]} == {"created"}
    assert {item["duty"] for item in ran.json["left_out"]} == LEFT_OUT
    first = cron.jobs()
    assert {item["duty"]: (item["schedule"], item["command"]) for item in ran.json["items"]} == {
        name.removeprefix("streamvibe: "): job for name, job in first.items() if name != "mine"
    }
    assert first["streamvibe: cleanup_old_jobs"][0] == "* * * * *"
    assert set(cron.outcomes().values()) == {"unchanged"} and cron.jobs() == first

    duties = [name.removeprefix("streamvibe: ") for name in first if name != "mine"]
    cron.conn.execute(
        "SELECT streamvibe.register_duties(streamvibe.lead_maintenance('a'), %s, %s)",
        [[*duties, "retry_failed_jobs"], ["* * * * *"] * len(duties) + ["every 10 seconds"]],
    )
    for duty, schedule in (("retry_failed_jobs", "every 5 minutes"), ("weekly_report", "1 2 * * 3")):
        assert cron.run("maintain", "set", duty, "--schedule", schedule).status == 0
    assert cron.run("maintain", "set", "expire_stale_jobs", "--disable").status == 0
    cron.conn.execute("SELECT cron.schedule('streamvibe: of_old', '0 0 * * *', 'SELECT 1')")
    outcomes = cron.outcomes()
    assert outcomes["retry_failed_jobs"] == "created" and outcomes["weekly_report"] == "changed"
    assert outcomes["expire_stale_jobs"] == outcomes["of_old"] == "removed"
    jobs = cron.jobs()
    assert jobs["streamvibe: retry_failed_jobs"][0] == "*/5 * * * *"
    assert jobs["streamvibe: weekly_report"][0] == "1 2 * * 3"
    assert "streamvibe: expire_stale_jobs" not in jobs and "streamvibe: of_old" not in jobs

    assert set(cron.outcomes("--remove").values()) == {"removed"}
    assert list(cron.jobs()) == ["mine"]
    again = cron.run("maintain", "schedule", "--pg-cron", "--remove")
    assert again.status == 0 and "nothing of ours" in again.err


@pytest.mark.pg_cron
def test_what_it_cannot_run_is_said(cron: Cron) -> None:
    """Each with its reason, and the command that runs it."""
    said = cron.run("maintain", "schedule", "--pg-cron").err
    for duty, reason in (
        ("recover_stuck_jobs", "heartbeat"),
        ("compact_stats", "minutes only"),
        ("drop_old_partitions", "steps"),
    ):
        assert any(line.startswith(duty) and reason in line for line in said.splitlines()), said
    assert "streamvibe maintain run" in said


@pytest.mark.pg_cron
def test_roles(cron: Cron) -> None:
    """A role that may not log in, or may not use pg_cron, is told so, with what to do."""
    with temporary_roles(cron.server, "app"):
        cron.conn.execute("GRANT service_role TO app; ALTER ROLE app SET role = 'service_role'")
        as_app = cron.dsn.replace("postgres@", "app@")
        refused = streamvibe(as_app, "maintain", "schedule", "--pg-cron")
        assert refused.status == 2 and 'GRANT USAGE ON SCHEMA cron TO "service_role"' in refused.err
        cron.conn.execute("GRANT USAGE ON SCHEMA cron TO service_role")
        refused = streamvibe(as_app, "maintain", "schedule", "--pg-cron")
        assert refused.status == 2 and "role: service_role" in refused.err and "owner" in refused.err
        assert cron.jobs() == {}
        cron.conn.execute("REVOKE USAGE ON SCHEMA cron FROM service_role")


@pytest.mark.pg_cron
@pytest.mark.timeout(300)
def test_it_runs_them_beside_a_leader(cron: Cron, tmp_path: Path) -> None:
    """Every command succeeds as pg_cron runs it, while a process does the same; jobs are retried and counted once."""
    conn = cron.conn
    kit.register(conn, p_max_attempts=5)
    kit.worker(conn, p_lease="1 day")
    jobs = [kit.job_id(conn, uuid4()) for _ in range(50)]
    kit.fail(conn, kit.claim(conn, limit=50), failure={**kit.ERROR, "retry_after_seconds": 3600})
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command("maintain", "run"), env=environment(cron.dsn), stdout=out, stderr=out
        ) as process,
    ):
        try:
            registered = "SELECT count(*) FROM streamvibe.duty WHERE last_ended_at IS NOT NULL"
            wait_until(lambda: kit.value(conn, registered) >= 10, "the process leads")
            cron.run("maintain", "set", "retry_failed_jobs", "--schedule", "every 1 minutes")
            for duty in ("forget_idempotency_keys", "ensure_partitions", "analyze_parents", "daily_report"):
                cron.run("maintain", "set", duty, "--schedule", "* * * * *")
            created = cron.outcomes()
            conn.execute("UPDATE job_queue SET retry_at = completed_at WHERE status = 'failed'")
            ended = (
                "SELECT r.status, r.return_message, j.jobname FROM cron.job_run_details r JOIN cron.job j USING (jobid)"
                " WHERE r.end_time IS NOT NULL"
            )
            often = {f"streamvibe: {name}" for name in created if "report" not in name}
            wait_until(
                lambda: often <= {row["jobname"] for row in kit.query(conn, ended)},
                "pg_cron has run each of them",
                150,
            )
            runs = kit.query(conn, ended)
            assert {row["status"] for row in runs} == {"succeeded"}, runs
            wait_until(lambda: states(conn) == {("pending", 1)}, "every job came back")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
    assert kit.value(conn, "SELECT count(*) FROM job_queue") == len(jobs)
    wrong = kit.call(conn, "recount_stats")
    assert wrong == [], "what both did was counted once"


def states(conn: psycopg.Connection[Any]) -> set[tuple[str, int]]:
    """Status and attempts of every job."""
    return {
        (row["status"], row["retry_count"])
        for row in kit.query(conn, "SELECT status, retry_count FROM job_queue")
    }
