"""streamvibe doctor: each fault is made, seen by name, mended by what is printed, and gone."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.integration.archive_kit import old_jobs, switch_on
from tests.integration.archive_kit import run as run_archive
from tests.sql import kit
from tests.support.cli import Run, streamvibe
from tests.support.databases import Database
from tests.support.servers import Server, pg18_bin
from tests.support.waiting import wait_until

from streamvibe.cli import main
from streamvibe.cli.platform import platform
from streamvibe.config import Settings
from streamvibe.db import embedded
from streamvibe.db.migrate import migrate
from streamvibe.monitoring import Finding, examine
from streamvibe.monitoring.doctor import checks

Connection = psycopg.Connection[Any]
LEAF = "(SELECT partition_name FROM streamvibe.partition WHERE parent_name = 'job_queue' ORDER BY lower_at LIMIT 1)"


def found(conn: Connection, check: str) -> list[Finding]:
    """What this check says."""
    return [finding for finding in examine(conn) if finding.check == check]


def leaf(conn: Connection) -> str:
    return str(kit.value(conn, f"SELECT {LEAF}"))


@contextlib.contextmanager
def sql(conn: Connection, *statements: str) -> Iterator[None]:
    """A fault that statements make."""
    for statement in statements:
        conn.execute(statement.encode())
    yield


def failed_duty(conn: Connection) -> AbstractContextManager[None]:
    return sql(
        conn,
        "SELECT streamvibe.register_duties(streamvibe.lead_maintenance('a'), '{sweep}', '{* * * * *}')",
        "UPDATE streamvibe.duty SET last_error = 'it broke', last_ended_at = now()",
    )


def no_partitions(conn: Connection) -> AbstractContextManager[None]:
    return sql(
        conn,
        "DO $$ DECLARE v record; BEGIN FOR v IN DELETE FROM streamvibe.partition WHERE lower_at > now() RETURNING *"
        " LOOP EXECUTE format('DROP TABLE streamvibe.%I', v.partition_name); END LOOP; END $$",
    )


def invalid_index(conn: Connection) -> AbstractContextManager[None]:
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        conn.execute(
            "INSERT INTO streamvibe.account (user_id) SELECT gen_random_uuid() FROM generate_series(1, 3)"
        )
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY wrong ON streamvibe.account ((max_live_jobs IS NULL))")
    # As after an interrupted build: the cause is gone, the remains are not.
    return sql(conn, "DELETE FROM streamvibe.account")


def duplicate_index(conn: Connection) -> AbstractContextManager[None]:
    return sql(
        conn,
        "CREATE INDEX again ON public.job_queue (user_id, status) WHERE status IN ('pending', 'processing')",
    )


def unused_index(conn: Connection) -> AbstractContextManager[None]:
    return sql(
        conn,
        "CREATE INDEX never ON public.job_queue (error_message)",
        "SELECT register_job_type('email')",
        "SELECT count(*) FROM create_jobs((SELECT jsonb_agg(jsonb_build_object('user_id', gen_random_uuid(),"
        " 'job_type', 'email')) FROM generate_series(1, 1100)))",
        "SELECT pg_stat_force_next_flush()",
    )


def bloated_index(conn: Connection) -> AbstractContextManager[None]:
    name = leaf(conn)
    return sql(
        conn,
        "CREATE EXTENSION IF NOT EXISTS pgstattuple",
        f"ALTER TABLE streamvibe.{name} SET (autovacuum_enabled = on)",
        f"INSERT INTO streamvibe.{name} (id, created_at, user_id, job_type) SELECT streamvibe.make_id("
        "streamvibe.microseconds(p.lower_at) + n, n), p.lower_at, md5(n::text)::uuid, 'email'"
        f" FROM streamvibe.partition p, generate_series(1, 160000) n WHERE p.partition_name = '{name}'",
        f"DELETE FROM streamvibe.{name} WHERE uuid_hash(id) % 10 <> 0",
        f"VACUUM streamvibe.{name}",
    )


def dead_rows(conn: Connection) -> AbstractContextManager[None]:
    return sql(
        conn,
        "ALTER TABLE streamvibe.account SET (autovacuum_enabled = off)",
        "INSERT INTO streamvibe.account (user_id) SELECT gen_random_uuid() FROM generate_series(1, 60000)",
        "DELETE FROM streamvibe.account",
        "ALTER TABLE streamvibe.account RESET (autovacuum_enabled)",
        "SELECT pg_stat_force_next_flush()",
    )


def autovacuum_off(conn: Connection) -> AbstractContextManager[None]:
    return sql(conn, f"ALTER TABLE streamvibe.{leaf(conn)} SET (autovacuum_enabled = off)")


def dead_worker(conn: Connection) -> AbstractContextManager[None]:
    kit.register(conn)
    kit.worker(conn)
    kit.job_id(conn)
    kit.claim(conn)
    kit.kill_worker(conn)
    return sql(conn, "UPDATE streamvibe.worker SET heartbeat_at = now() - interval '1 hour'")


def paused(conn: Connection) -> AbstractContextManager[None]:
    kit.register(conn)
    return sql(conn, "SELECT pause_jobs('email', p_reason => 'stocktaking')")


def held_up(conn: Connection) -> AbstractContextManager[None]:
    kit.register(conn)
    name = kit.old_leaf(conn, weeks=5)
    one = f"(SELECT id FROM streamvibe.{name} LIMIT 1)"
    return sql(conn, f"UPDATE streamvibe.{name} SET status = 'pending', completed_at = NULL WHERE id = {one}")


def wrong_statistics(conn: Connection) -> AbstractContextManager[None]:
    kit.register(conn)
    kit.job_id(conn)
    return sql(conn, "DELETE FROM public.job_queue")


def sums_missing(conn: Connection, minutes: int) -> AbstractContextManager[None]:
    kit.register(conn)
    kit.job_id(conn)
    conn.execute("SELECT compact_stats()")
    return sql(conn, f"DELETE FROM streamvibe.stat WHERE minutes = {minutes}")


def groups_missing(conn: Connection) -> AbstractContextManager[None]:
    kit.register(conn)
    kit.worker(conn)
    kit.job_id(conn)
    kit.complete(conn, kit.claim(conn))
    conn.execute("SELECT compact_stats()")
    return sql(conn, "DELETE FROM streamvibe.stat_sketch WHERE minutes = -2")


def stuck(conn: Connection) -> AbstractContextManager[None]:
    return dead_worker(conn)


#: Checks whose printed fix is SQL (after a blank, which of two faults): the fault, and a part of its finding's subject.
MENDED_BY_SQL: dict[str, tuple[Callable[[Connection], AbstractContextManager[None]], str]] = {
    "partitions_missing": (no_partitions, "job_log"),
    "invalid_index": (invalid_index, "wrong"),
    "duplicate_index": (duplicate_index, "again"),
    "unused_index": (unused_index, "never"),
    "bloated_index": (bloated_index, "job_queue_"),
    "dead_rows": (dead_rows, "account"),
    "autovacuum_off": (autovacuum_off, "job_queue_"),
    "dead_worker": (dead_worker, "w1"),
    "paused": (paused, "email"),
    "leaf_held_up": (held_up, "job_queue_"),
    "statistics_wrong": (wrong_statistics, "statistics"),
    "statistics_wrong days": (partial(sums_missing, minutes=1440), "statistics of day"),
    "statistics_wrong tens": (partial(sums_missing, minutes=10), "statistics of ten minutes"),
    "statistics_wrong partitions": (partial(sums_missing, minutes=-1), "statistics of partition"),
    "statistics_wrong durations": (groups_missing, "statistics of durations"),
    "alert": (stuck, "stuck"),
}


@pytest.mark.parametrize("named", MENDED_BY_SQL)
def test_a_fault_is_named_and_mended_by_the_printed_sql(database: Database, named: str) -> None:
    """The finding has a measurement, a reason and a command; run as it is printed, the finding is gone."""
    check, (fault, subject) = named.split()[0], MENDED_BY_SQL[named]
    conn = database.connect()
    assert found(conn, check) == []
    with fault(conn):
        findings = [finding for finding in found(conn, check) if subject in finding.subject]
        assert findings, examine(conn)
        for finding in findings:
            assert finding.measured and finding.why and finding.severity in ("critical", "warning", "notice")
            for statement in finding.fix.split("; "):
                conn.execute(statement.encode())
        conn.execute("SELECT pg_stat_force_next_flush()")
        wait_until(lambda: not [f for f in found(conn, check) if subject in f.subject], "it is gone")


def test_a_forgotten_transaction_is_named(database: Database) -> None:
    """Its session, since when, what it last ran, and how fast dead rows gather; ended as printed, it is gone."""
    other = database.connect(autocommit=False)
    other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT 'forgotten', count(*) FROM job_queue")
    with hurried(database) as conn:
        [finding] = found(conn, "horizon_session")
        assert f"pid {other.info.backend_pid}" in finding.subject
        assert "forgotten" in finding.measured and "dead rows" in finding.measured
        conn.execute(finding.fix.encode())
        wait_until(lambda: not found(conn, "horizon_session"), "it is gone")
    with pytest.raises(psycopg.OperationalError):
        other.execute("SELECT 1")


@contextlib.contextmanager
def hurried(database: Database) -> Iterator[Connection]:
    """A session in which clock_timestamp() is ten minutes ahead, by a function that is found before the server's."""
    conn = database.connect()
    conn.execute("CREATE SCHEMA hurried")
    conn.execute(
        "CREATE FUNCTION hurried.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
        " AS $$ SELECT pg_catalog.clock_timestamp() + interval '10 minutes' $$"
    )
    conn.execute("SET search_path = hurried, pg_catalog, public")
    yield conn


def test_a_slot_that_nobody_reads_is_named(database: Database) -> None:
    """An inactive slot keeps write-ahead log; dropped as printed, it is gone."""
    conn = database.connect()
    name = f"left_{database.name}"
    conn.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
    try:
        conn.execute("CREATE TABLE bulk (t text)")
        for _ in range(6):
            conn.execute("INSERT INTO bulk SELECT repeat(md5(n::text), 60) FROM generate_series(1, 11000) n")
        [finding] = [f for f in found(conn, "horizon_slot") if name in f.subject]
        assert "write-ahead log" in finding.measured
        conn.execute(finding.fix.encode())
    finally:
        conn.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
            [name],
        )
    assert not [f for f in found(conn, "horizon_slot") if name in f.subject]


def test_settings_that_hurt_are_named(database: Database) -> None:
    """By name and value, with the better one; set as printed, it is gone."""
    conn = database.connect()
    conn.execute("SET synchronous_commit = off")
    conn.execute("SET work_mem = '64kB'")
    names = {finding.subject: finding for finding in found(conn, "settings")}
    assert {"synchronous_commit", "work_mem"} <= names.keys()
    assert "64kB" in names["work_mem"].measured
    for name in ("synchronous_commit", "work_mem"):
        fix = names[name].fix.split(";")[0]
        assert fix.startswith(f"ALTER SYSTEM SET {name} = ")
        # The whole server is not ours to change in a test.
        conn.execute(fix.replace("ALTER SYSTEM SET", "SET").encode())
    assert not {"synchronous_commit", "work_mem"} & {finding.subject for finding in found(conn, "settings")}


def test_connections_that_run_out_are_named(database: Database) -> None:
    """As the limit comes near, with who has most of them."""
    conn = database.connect()
    conn.execute("CREATE SCHEMA small")
    conn.execute(
        "CREATE FUNCTION small.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT"
        " CASE $1 WHEN 'max_connections' THEN"
        " (SELECT count(*) + 3 FROM pg_stat_activity WHERE backend_type = 'client backend')::text"
        " ELSE pg_catalog.current_setting($1) END $$"
    )
    assert found(conn, "connections") == []
    conn.execute("SET search_path = small, pg_catalog, public")
    [finding] = found(conn, "connections")
    assert finding.severity == "critical" and "are in use" in finding.measured


def test_a_version_that_is_not_supported_is_named(database: Database) -> None:
    """Older than 15."""
    conn = database.connect()
    conn.execute("CREATE SCHEMA old")
    conn.execute(
        "CREATE FUNCTION old.current_setting(text) RETURNS text LANGUAGE sql"
        " AS $$ SELECT CASE $1 WHEN 'server_version_num' THEN '140011' ELSE '14.11' END $$"
    )
    assert found(conn, "version") == []
    conn.execute("SET search_path = old, pg_catalog, public")
    assert "14.11" in [finding.measured for finding in found(conn, "version")]


def test_nobody_does_maintenance_until_somebody_leads(database: Database) -> None:
    """Named while nobody leads, gone as soon as a process does, named again when its lease is over."""
    conn = database.connect()
    [finding] = found(conn, "no_maintenance")
    assert finding.fix == "streamvibe up"
    conn.execute("SELECT streamvibe.lead_maintenance('a', '1 second')")
    assert found(conn, "no_maintenance") == []
    [finding] = wait_until(lambda: found(conn, "no_maintenance"), "its lease is over")
    assert "a stopped leading" in finding.measured


def test_a_failed_duty_is_named(database: Database) -> None:
    """With its error; gone after a run that does not fail."""
    conn = database.connect()
    with failed_duty(conn):
        [finding] = found(conn, "duty_failed")
    assert "it broke" in finding.measured and finding.fix == "streamvibe maintain runs sweep"
    conn.execute("SELECT streamvibe.end_duty(1, 'a', 'sweep', now(), 0, NULL)")
    assert found(conn, "duty_failed") == []


def test_a_disabled_duty_is_a_notice(run: Run, database18: Database) -> None:
    """With the command that enables it, after which it is gone; it keeps nothing from being healthy."""
    conn = database18.connect()
    with failed_duty(conn):
        conn.execute("UPDATE streamvibe.duty SET last_error = NULL")
    assert found(conn, "duty_disabled") == []
    assert run("maintain", "set", "sweep", "--disable").status == 0
    [finding] = found(conn, "duty_disabled")
    assert (finding.severity, finding.subject) == ("notice", "sweep")
    program, *arguments = finding.fix.split()
    assert (program, run(*arguments).status) == ("streamvibe", 0)
    assert found(conn, "duty_disabled") == []


def test_a_pause_is_ended_in_a_shell_too(run: Run, database18: Database) -> None:
    """Beside the SQL stands the command, whatever is paused."""
    conn = database18.connect()
    for pause in ("p_job_type => 'note'", f"p_user_id => '{UUID(int=7)}'", ""):
        conn.execute(f"SELECT pause_jobs({pause})".encode())
        [finding] = found(conn, "paused")
        sql, _, shell = finding.fix.partition(" -- or in a shell: streamvibe ")
        assert sql.startswith("SELECT resume_jobs(")
        assert run(*shell.split()).status == 0, shell
        assert found(conn, "paused") == []


def test_a_database_without_the_schema_is_one_finding(empty_database: Database) -> None:
    """What to run comes first and alone: not a line for every check that finds nothing to ask."""
    conn = empty_database.connect()
    findings = examine(conn)
    # This server's settings are critical, too: it has no fsync.
    assert {finding.check for finding in findings if finding.severity == "critical"} <= {"schema", "settings"}
    assert (findings[0].title, findings[0].fix) == ("There is no schema", "streamvibe migrate")
    assert not [finding for finding in findings if finding.title.startswith("Not checked: ")]
    ran = streamvibe(empty_database.dsn, "doctor")
    assert ran.status == 1 and ran.out.startswith("critical  There is no schema: database test_")
    migrate(empty_database.dsn)
    assert found(conn, "schema") == []


def test_an_older_or_newer_schema_is_one_finding(database: Database) -> None:
    """Of an older release: what is missing, and the same command; of a newer one, that this release is too old."""
    conn = database.connect()
    with conn.transaction(force_rollback=True):
        conn.execute("DROP TABLE streamvibe.duty CASCADE")
        conn.execute("DROP FUNCTION get_table_health")
        conn.execute("DELETE FROM streamvibe.schema_migration WHERE version >= 13")
        findings = examine(conn)
        assert findings[0].title == "The schema is older than this release"
        assert (
            "migration 0013_maintenance" in findings[0].measured and findings[0].fix == "streamvibe migrate"
        )
        assert not [finding for finding in findings if finding.title.startswith("Not checked: ")]
    conn.execute("UPDATE streamvibe.schema_migration SET release = '99.0'")
    [finding] = found(conn, "schema")
    assert "99.0" in finding.fix and "newer" in finding.measured


def test_a_duty_that_hangs_is_named(database: Database) -> None:
    """After two hours, with where to look; gone when it ends."""
    conn = database.connect()
    with failed_duty(conn):
        conn.execute("UPDATE streamvibe.duty SET running_since = now() - interval '119 minutes'")
        assert found(conn, "duty_hangs") == []
        conn.execute("UPDATE streamvibe.duty SET running_since = now() - interval '121 minutes'")
        [finding] = found(conn, "duty_hangs")
        assert finding.subject == "sweep"
        conn.execute(finding.fix.encode())
    conn.execute("SELECT streamvibe.end_duty(1, 'a', 'sweep', now(), 0, NULL)")
    assert found(conn, "duty_hangs") == []


def test_a_role_that_sees_no_sessions_is_told(database: Database) -> None:
    """Without pg_read_all_stats nobody can name who holds back vacuum; granted as printed, it is gone."""
    conn = database.connect()
    name = f"blind_{database.name}"
    conn.execute(f"CREATE ROLE {name}; GRANT service_role TO {name}".encode())
    try:
        conn.execute(f"SET ROLE {name}".encode())
        [finding] = found(conn, "hidden_sessions")
        conn.execute("RESET ROLE")
        conn.execute(finding.fix.encode())
        conn.execute(f"SET ROLE {name}".encode())
        assert found(conn, "hidden_sessions") == []
    finally:
        conn.execute("RESET ROLE")
        conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_jobs_that_no_worker_takes_are_named(database: Database) -> None:
    """A type without a live worker whose jobs are due for a minute; gone as soon as one takes it."""
    conn = database.connect()
    kit.register(conn)
    kit.job_id(conn)
    assert found(conn, "no_worker") == []
    conn.execute("UPDATE job_queue SET scheduled_for = now() - interval '2 minutes'")
    [finding] = found(conn, "no_worker")
    assert finding.subject == "job type email"
    kit.worker(conn)
    assert found(conn, "no_worker") == []


async def test_the_command_takes_the_type_that_nobody_takes(database18: Database) -> None:
    """`streamvibe up` runs the platform's own types, and needs --app for any other."""
    conn = database18.connect()
    async with platform(database18.dsn, Settings()) as ours:
        fixes = {job_type.name: "streamvibe up" for job_type in ours.job_types}
    fixes["email"] = "streamvibe worker --app yourapp.jobs"
    for name in fixes:
        kit.register(conn, name)
        kit.job_id(conn, job_type=name)
    conn.execute("UPDATE job_queue SET scheduled_for = now() - interval '2 minutes'")
    findings = found(conn, "no_worker")
    assert {f.subject.removeprefix("job type "): f.fix for f in findings} == fixes


def test_what_cannot_be_checked_is_said(database: Database) -> None:
    """The service may not read the tables behind some checks: they are named as not checked, the others are made."""
    conn = database.as_service()
    findings = examine(conn)
    unchecked = {finding.check for finding in findings if finding.title.startswith("Not checked: ")}
    assert {"no_maintenance", "leaf_held_up"} <= unchecked
    assert "alert" not in unchecked
    assert all("owner" in finding.fix for finding in findings if finding.check in unchecked)
    assert {finding.severity for finding in findings if finding.check in unchecked} == {"warning"}


def test_every_check_is_tested() -> None:
    """Each file has a title and a reason, and stands in one of the tests above."""
    here = Path(__file__).read_text(encoding="utf-8")
    for check in checks():
        assert check.title and check.why, check.name
        assert f'"{check.name}"' in here, check.name


def test_the_page(run: Run, database18: Database) -> None:
    """Worst first, with what was measured, why, and the fix; exit status 1."""
    conn = database18.connect()
    kit.register(conn)
    conn.execute("SELECT pause_jobs('email')")
    ran = run("doctor")
    assert ran.status == 1
    assert ran.out.index("Nobody does maintenance") < ran.out.index("Something is paused")
    assert "Fix:      streamvibe up" in ran.out and "Why:" in ran.out and "Measured:" in ran.out
    found = run("doctor", "--json").json
    assert found["healthy"] is False
    order = ["critical", "warning", "notice"]
    assert [item["severity"] for item in found["items"]] == sorted(
        (item["severity"] for item in found["items"]), key=order.index
    )


@pytest.mark.usefixtures("home")
def test_a_healthy_queue(capsys: pytest.CaptureFixture[str]) -> None:
    """On the embedded server as it is, with maintenance: nothing is wrong, exit status 0."""
    assert main.run(["migrate"]) == 0
    dsn = embedded.ensure_running(Settings()).url
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT streamvibe.lead_maintenance('a', '1 hour')")
    capsys.readouterr()
    assert main.run(["doctor"]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out == "Nothing is wrong.\n"


@pytest.mark.parametrize("with_slot", [False, True])
def test_a_query_on_a_standby_is_named(pg18: Server, database18: Database, with_slot: bool) -> None:
    """With hot_standby_feedback its horizon is this server's, in a slot or without; ended as printed, it is gone."""
    conn = database18.connect()
    replica = Server("replica", pg18_bin())
    slot = {"primary_slot_name": f"standby_{database18.name}"} if with_slot else {}
    check = "horizon_slot" if with_slot else "horizon_standby"
    for name in slot.values():
        conn.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    try:
        replica.start(replica_of=pg18, hot_standby_feedback="on", wal_receiver_status_interval="1", **slot)
        with replica.connect(database18.name) as reader:
            with reader.transaction():
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                reader.execute("SELECT count(*) FROM job_queue")
                sent = (
                    "SELECT (SELECT bool_or(backend_xmin IS NOT NULL) FROM pg_stat_replication)"
                    " OR (SELECT bool_or(xmin IS NOT NULL) FROM pg_replication_slots)"
                )
                wait_until(lambda: kit.value(conn, sent), "it sends its horizon")
                # Each subtransaction that writes counts as a transaction.
                conn.execute("CREATE TABLE written (n int)")
                conn.execute(
                    "DO $$ BEGIN FOR i IN 1..10100 LOOP BEGIN INSERT INTO written VALUES (i);"
                    " EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$"
                )
                [finding] = wait_until(lambda: found(conn, check), "it is named")
                assert "standby" in finding.subject and "pg_stat_activity" in finding.fix
            wait_until(lambda: not found(conn, check), "it is gone")
    finally:
        replica.stop()
        for name in slot.values():
            drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
            wait_until(
                lambda: (
                    not kit.value(
                        conn,
                        "SELECT bool_or(active) FROM pg_replication_slots WHERE slot_name = %s",
                        name,  # noqa: B023
                    )
                ),
                "the slot is free",
            )
            conn.execute(drop, [name])


def test_a_prepared_transaction_is_named(database: Database) -> None:
    """One that nobody commits; rolled back as printed, it is gone."""
    conn = database.connect()
    kit.register(conn)
    conn.execute("BEGIN")
    kit.job_id(conn)
    conn.execute(f"PREPARE TRANSACTION 'left over {database.name}'".encode())
    with hurried(database) as later:
        [finding] = [f for f in found(later, "horizon_prepared") if database.name in f.subject]
        later.execute(finding.fix.encode())
        assert not [f for f in found(later, "horizon_prepared") if database.name in f.subject]


def test_an_archive_that_does_not_keep_up(database18: Database, tmp_path: Path) -> None:
    """What waits for a day, in a leaf, deleted, or to be erased, is named; what is printed mends it."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    switch_on(conn, tmp_path)
    job, victim = kit.job_id(conn), uuid4()
    conn.execute(
        "UPDATE public.job_queue SET status = 'completed', completed_at = now() WHERE id = %s", [job]
    )
    assert kit.value(conn, "SELECT streamvibe.delete_jobs(ARRAY[%s])", job) == 1
    assert kit.value(conn, "SELECT streamvibe.seal_partition(%s)", leaf)
    conn.execute("INSERT INTO streamvibe.erasure VALUES (%s, now(), %s, '{}')", [victim, victim])

    def behind() -> set[tuple[str, str]]:
        findings = found(conn, "archive_behind")
        assert all(finding.severity == "warning" and finding.measured and finding.why for finding in findings)
        return {(finding.subject, finding.fix) for finding in findings}

    assert behind() == set()
    for statement in (
        "UPDATE streamvibe.partition SET sealed_at = sealed_at - interval '25 hours' WHERE sealed_at IS NOT NULL",
        "UPDATE streamvibe.leaving_job SET left_at = left_at - interval '25 hours'",
        "UPDATE streamvibe.erasure SET begun_at = begun_at - interval '25 hours'",
    ):
        conn.execute(statement.encode())
    named = {(leaf, "streamvibe archive run"), ("deleted jobs", "streamvibe archive run")}
    assert behind() == named | {(f"user {victim}", f"streamvibe jobs erase --yes --user {victim}")}
    conn.execute("UPDATE streamvibe.erasure SET left_queue_at = now()")
    assert behind() == named | {(f"user {victim}", "streamvibe archive run")}
    run_archive(database18)
    assert behind() == set()


def test_a_copy_of_a_database_with_an_archive(database18: Database, tmp_path: Path) -> None:
    """Named with the command that makes it one beside the original, and the one for instead of it; then it is gone."""
    conn = database18.connect()
    switch_on(conn, tmp_path)
    assert found(conn, "archive_copy") == []
    conn.execute("UPDATE streamvibe.setting SET archive_owner = '1/1'")
    [finding] = found(conn, "archive_copy")
    beside, instead = finding.fix.split("   # ")
    assert f"streamvibe archive set --moved file://{tmp_path}" in instead
    program, *arguments = shlex.split(beside)
    assert (program, streamvibe(database18.dsn, *arguments).status) == ("streamvibe", 0)
    assert found(conn, "archive_copy") == []
