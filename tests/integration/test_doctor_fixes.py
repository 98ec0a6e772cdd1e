"""What doctor prints as a fix, run as it is printed: in psql, or in a shell."""

import contextlib
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sql import kit
from tests.support.cli import command, environment, streamvibe
from tests.support.databases import Database
from tests.support.servers import Server, pg15_bin, pg18_bin
from tests.support.waiting import wait_until

from streamvibe.db.migrate import migrate
from streamvibe.monitoring.doctor import Finding, examine

#: Every setting that doctor looks at, as nobody should have it.
HURTING = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "128MB",
    "work_mem": "64kB",
    "maintenance_work_mem": "1MB",
    "autovacuum_vacuum_cost_delay": "50ms",
    "autovacuum_max_workers": "1",
    "max_locks_per_transaction": "10",
}
APP = """
from streamvibe import Context, job_type

@job_type("email")
def email(ctx: Context, params: dict[str, str]) -> None:
    pass
"""


@pytest.fixture(params=[pg18_bin, pg15_bin], ids=["pg18", "pg15"])
def hurting(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of its own with every setting that hurts."""
    server = Server("doctor", request.param())
    try:
        server.start(replica_of=None, **HURTING)
        migrate(server.dsn("postgres"))
        with server.connect() as conn:  # more partitions than there is room for locks
            conn.execute("SELECT public.ensure_partitions('20 weeks')")
        yield server
    finally:
        server.stop()


def about(server: Server, check: str) -> list[Finding]:
    """What that check finds now, in a session of its own."""
    with server.connect() as conn:
        return [finding for finding in examine(conn) if finding.check == check]


def in_psql(server: Server, text: str) -> None:
    """As a person pastes it."""
    psql = [str(pg18_bin() / "psql"), "-X", "-v", "ON_ERROR_STOP=1", server.dsn("postgres")]
    subprocess.run(psql, input=text.encode(), check=True, capture_output=True)


def test_settings_are_mended_by_what_is_printed(hurting: Server) -> None:
    """All of them; where the server has to be restarted, that is printed too."""
    findings = about(hurting, "settings")
    assert {finding.subject for finding in findings} == HURTING.keys()
    for finding in findings:
        in_psql(hurting, finding.fix)
    needs_restart = {finding.subject for finding in findings if "restart PostgreSQL" in finding.fix}
    wait_until(
        lambda: {finding.subject for finding in about(hurting, "settings")} == needs_restart,
        "what needs no restart is mended",
    )
    if needs_restart:
        hurting.crash()
        hurting.restart()
        assert about(hurting, "settings") == []


@contextlib.contextmanager
def in_a_shell(database: Database, folder: Path, fix: str) -> Iterator[None]:
    """The printed command, in a folder that has an application; ended as people end it."""
    program, *arguments = shlex.split(fix)
    assert program == "streamvibe"
    (folder / "yourapp").mkdir()
    (folder / "yourapp" / "jobs.py").write_text(APP)
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(database.dsn, PYTHONPATH=str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.parametrize(
    ("check", "job_type"), [("no_maintenance", None), ("no_worker", "email"), ("no_worker", "sync_youtube")]
)
def test_processes_that_are_missing_are_started_by_what_is_printed(
    database18: Database, tmp_path: Path, check: str, job_type: str | None
) -> None:
    """Gone while the printed command runs, in a folder with the application it names."""
    conn = database18.connect()
    if job_type is not None:
        kit.register(conn, job_type)
        kit.job_id(conn, job_type=job_type)
        conn.execute("UPDATE job_queue SET scheduled_for = now() - interval '2 minutes'")

    def named() -> list[Finding]:
        return [finding for finding in examine(conn) if finding.check == check]

    [finding] = named()
    with in_a_shell(database18, tmp_path, finding.fix):
        wait_until(lambda: not named(), f"{finding.fix} mends it")


def test_why_a_duty_fails_is_shown_by_what_is_printed(database18: Database) -> None:
    """The command shows the runs with their errors; the error itself is the operator's to mend."""
    conn = database18.connect()
    conn.execute("SELECT streamvibe.lead_maintenance('a', '1 hour')")
    conn.execute("SELECT * FROM streamvibe.register_duties(1, ARRAY['sweep'], ARRAY['* * * * *'])")
    conn.execute("SELECT streamvibe.begin_duty(1, 'sweep')")
    conn.execute("SELECT streamvibe.end_duty(1, 'a', 'sweep', now(), NULL, 'the disk is full')")
    [finding] = [finding for finding in examine(conn) if finding.check == "duty_failed"]
    _, *arguments = shlex.split(finding.fix)
    ran = streamvibe(database18.dsn, *arguments)
    assert (ran.status, "the disk is full" in ran.out) == (0, True)


def test_idle_connections_are_ended_by_what_is_printed() -> None:
    """Those that were idle for an hour; the hour is made shorter here, and nothing else."""
    server = Server("doctor", pg18_bin())
    try:
        server.start(max_connections="20")
        migrate(server.dsn("postgres"))
        idle = [server.connect() for _ in range(15)]
        [finding] = about(server, "connections")
        assert "of 17 are in use" in finding.measured
        assert finding.fix.count("'1 hour'") == 1
        in_psql(server, finding.fix.replace("'1 hour'", "'0 seconds'") + ";")
        wait_until(lambda: about(server, "connections") == [], "they are gone")
        for conn in idle:
            conn.close()
    finally:
        server.stop()
