"""`streamvibe up`, `worker` and `demo` as processes of their own, ended as people end them."""

import contextlib
import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from psycopg.conninfo import make_conninfo
from tests.support import hands
from tests.support.cli import command, environment, streamvibe
from tests.support.databases import Database, new_database, temporary_roles
from tests.support.servers import Server
from tests.support.waiting import wait_until

from streamvibe.masking import mask_url

APP = """
from streamvibe import Context, job_type

@job_type("greet")
def greet(ctx: Context, params: dict[str, str]) -> str:
    ctx.log("greeting")
    return f"Hello, {params['name']}!"
"""


@pytest.fixture
def empty18(pg18: Server) -> Iterator[Database]:
    """A database that was never migrated, on PostgreSQL 18."""
    with new_database(pg18) as fresh:
        yield fresh


class Running:
    """A command that runs until it is told to stop."""

    def __init__(self, dsn: str, folder: Path, *arguments: str) -> None:
        self._output = folder / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                command(*arguments),
                cwd=folder,
                env=environment(dsn, PYTHONUNBUFFERED="1"),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._output.read_text()

    def stop(self, number: signal.Signals) -> int:
        """Send the signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def running(database: Database | str, folder: Path, *arguments: str) -> Iterator[Running]:
    """A command for the length of a with block."""
    started = Running(database if isinstance(database, str) else database.dsn, folder, *arguments)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


def status(database: Database, job_id: UUID | str) -> str:
    """A job's status as the service sees it."""
    found: str = database.fetch_value("SELECT status FROM get_job(%s)", job_id)
    return found


def test_up_brings_everything_and_stops_at_ctrl_c(empty18: Database, tmp_path: Path) -> None:
    """On an empty database: the schema is made, a worker runs jobs, Ctrl-C ends it with 0 and nothing held."""
    with running(empty18, tmp_path, "up") as up:
        wait_until(lambda: "Ctrl-C stops it" in up.output or up.process.poll(), "up is up")
        params = '{"social_account_id": "@harbourlanekitchen", "max_videos": 60}'
        ran = streamvibe(
            empty18.dsn,
            "jobs",
            "request",
            "sync_youtube",
            "--user",
            uuid4(),
            "--params",
            params,
            "--wait",
            "--json",
        )
        assert (ran.status, ran.json["status"], ran.json["result"]["videos_synced"]) == (0, "completed", 60)
        assert up.stop(signal.SIGINT) == 0, up.output
    assert "handed back" in up.output and "Traceback" not in up.output
    assert empty18.fetch_value("SELECT count(*) FROM streamvibe.claim") == 0


@pytest.mark.parametrize("verbose", [False, True])
def test_a_worker_says_whether_it_logs_what_succeeds(
    database18: Database, tmp_path: Path, verbose: bool
) -> None:
    """Silent about successes it says so at first; with --verbose each has a line."""
    (tmp_path / "shop.py").write_text(APP)
    with running(
        database18, tmp_path, "worker", "--app", "shop", *(["--verbose"] if verbose else [])
    ) as worker:
        wait_until(lambda: "Ctrl-C stops it" in worker.output, "it runs")
        asked = streamvibe(
            database18.dsn,
            "jobs",
            "request",
            "greet",
            "--user",
            uuid4(),
            "--params",
            '{"name": "Ada"}',
            "--wait",
        )
        assert asked.status == 0
        assert worker.stop(signal.SIGINT) == 0, worker.output
    assert ("job_completed job_id=" in worker.output) == verbose
    assert ("Jobs that succeed are not logged; with --verbose they are." in worker.output) == (not verbose)
    assert "job_types=greet " in worker.output


def test_up_maintains_the_queue(database18: Database, tmp_path: Path) -> None:
    """What a dead worker held is taken back and run, without anybody asking."""
    (tmp_path / "shop.py").write_text(APP)
    database18.fetch_value("SELECT register_job_type('greet', p_backoff_base => '0')")
    job_id = database18.fetch_value(
        "SELECT job_id FROM request_job(%s, 'greet', '{\"name\": \"Ada\"}')", uuid4()
    )
    hands.claim(database18.dsn)
    database18.fetch_value(
        "WITH died AS (UPDATE streamvibe.worker SET heartbeat_at = heartbeat_at - interval '1 day' RETURNING 1)"
        " SELECT count(*) FROM died"
    )
    with running(database18, tmp_path, "up", "--app", "shop") as up:
        wait_until(lambda: status(database18, job_id) == "completed", "the job is taken back and run")
        assert up.stop(signal.SIGTERM) == 0, up.output
    assert database18.fetch_value("SELECT retry_count FROM get_job(%s)", job_id) == 1


def test_up_runs_as_an_application_that_may_not_migrate(
    database18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login whose role is service_role runs `up`, which says that it uses the schema as it is; another is refused."""
    with temporary_roles(database18.server, "app"):
        with database18.connect() as admin:
            admin.execute("GRANT service_role TO app")
            admin.execute("ALTER ROLE app SET role = 'service_role'")
        login = make_conninfo(database18.dsn, user="app")
        (tmp_path / "shop.py").write_text(APP)
        with running(login, tmp_path, "up", "--app", "shop") as up:
            wait_until(lambda: "Ctrl-C stops it" in up.output or up.process.poll(), "up is up")
            assert f"Database: {mask_url(login)}\n" in up.output
            assert up.stop(signal.SIGTERM) == 0, up.output
        assert "The role app may not migrate, nor see what is pending" in up.output
        with database18.connect() as admin:
            admin.execute("ALTER ROLE app RESET role")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "shop", raising=False)
        importlib.invalidate_caches()
        ran = streamvibe(login, "up", "--app", "shop")
        assert (ran.status, "Ctrl-C" in ran.out) == (1, False), ran.err


def test_dead_workers_that_hold_jobs_are_pointed_out(database18: Database) -> None:
    """`streamvibe workers` counts those whose jobs nobody takes back without maintenance; a live one is none."""
    database18.fetch_value("SELECT register_job_type('greet')")
    database18.fetch_value("SELECT job_id FROM request_job(%s, 'greet')", uuid4())
    hands.claim(database18.dsn)
    assert streamvibe(database18.dsn, "workers").err == ""
    database18.fetch_value(
        "WITH died AS (UPDATE streamvibe.worker SET heartbeat_at = heartbeat_at - interval '1 day' RETURNING 1)"
        " SELECT count(*) FROM died"
    )
    said = streamvibe(database18.dsn, "workers").err
    assert said == "1 dead worker still holds jobs: maintenance takes them back; run `streamvibe up`.\n"


def test_a_worker_runs_the_job_types_of_an_application(database18: Database, tmp_path: Path) -> None:
    """--app finds the module from the working directory and registers its job types; SIGTERM ends it with 0.

    A job type that two --app options name is one job type.
    """
    (tmp_path / "shop.py").write_text(APP)
    with running(
        database18, tmp_path, "worker", "--app", "shop:greet", "--app", "shop", "--concurrency", "2"
    ) as worker:
        wait_until(lambda: "runs greet" in worker.output or worker.process.poll(), "the worker is up")
        wait_until(
            lambda: database18.fetch_value("SELECT count(*) FROM streamvibe.job_type WHERE name = 'greet'"),
            "its type is registered",
        )
        ran = streamvibe(
            database18.dsn,
            "jobs",
            "request",
            "greet",
            "--user",
            uuid4(),
            "--params",
            '{"name": "Ada"}',
            "--wait",
        )
        assert (ran.status, ran.out) == (0, '"Hello, Ada!"\n')
        assert worker.stop(signal.SIGTERM) == 0, worker.output
    assert "It does no maintenance" in worker.output
    assert "worker_stopped" in worker.output and "Traceback" not in worker.output


def test_a_worker_that_cannot_start_does_not_say_that_it_runs(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a database without the schema: exit 2 with the fix, and nothing else is printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "shop.py").write_text(APP)
    importlib.invalidate_caches()
    ran = streamvibe(empty_database.dsn, "worker", "--app", "shop")
    assert (ran.status, ran.out, ran.err.splitlines()[-1]) == (2, "", "Run `streamvibe migrate`.")


@pytest.mark.parametrize("name", ["nowhere", "shop:nothing", "json"])
def test_an_application_without_job_types_is_named(
    database18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A module that is not there, a name that is not in it, no job types: exit 2 with what to write instead."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(APP)
    ran = streamvibe(database18.dsn, "worker", "--app", name)
    assert ran.status == 2
    assert f"Received for --app: {name}" in ran.err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("./shop/jobs.py", "", ["Name a module, not a file.", "that import works: shop.jobs"]),
        ("../shop.jobs:x", "", ["Name a module, not a file."]),
        ("shop.", "", ["That is not a module's name."]),
        ("shop:Nothing", "", ["The module shop has no Nothing."]),
        ("shop", "import no_such_module", ["ModuleNotFoundError: No module named 'no_such_module'", ":1."]),
        (
            "shop",
            "import os\n1 / 0",
            ["The module shop could not", "ZeroDivisionError: division by zero", ":2."],
        ),
        ("shop", "import json\njson.loads('{')", ["JSONDecodeError", "shop.py:2."]),
        ("shop", "\ndef f(:", ["SyntaxError", "shop.py:2."]),
        ("shop", "raise SystemExit(7)", ["SystemExit: 7", "shop.py:1."]),
        (
            "shop",
            "from streamvibe import job_type\n@job_type('Bad')\ndef bad(ctx, params): ...",
            ["the job type's name cannot be used at", "shop.py:", "Received for name: 'Bad'"],
        ),
        (
            "shop",
            "from streamvibe import job_type\n@job_type('bad', timeout=5)\ndef bad(ctx, params): ...",
            ["timeout is not a timedelta at", "Received for timeout: 5", "Write timedelta(seconds=5)."],
        ),
        (
            "shop",
            "from streamvibe import job_type\n@job_type\ndef resize(ctx, params): ...",
            ["shop.py:2", "Received for name: the handler resize", 'Write @job_type("resize").'],
        ),
        (
            "shop.resize",
            "resize = 1",
            ["There is no module shop.resize.", "inside of a module: shop:resize."],
        ),
        ("/", "", ["Name a module, not a file.", "that import works: myapp.jobs."]),
        ("./", "", ["Name a module, not a file."]),
        ("../", "", ["Name a module, not a file."]),
        (".py", "", ["Name a module, not a file."]),
    ],
)
def test_an_application_that_cannot_be_imported_says_where(
    database18: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    says: list[str],
) -> None:
    """A file's name, a module that fails while it is imported: exit 2, with the error, its file and its line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "shop.py").write_text(text)
    importlib.invalidate_caches()
    ran = streamvibe(database18.dsn, "worker", "--app", name)
    assert (ran.status, ran.out) == (2, "")
    for words in says:
        assert words in ran.err


def test_a_demo_whose_step_does_not_hold_fails(database18: Database) -> None:
    """Where an eleventh live job is let in, the demo says which step failed and ends with 1."""
    with database18.connect() as conn:
        conn.execute("UPDATE streamvibe.setting SET default_max_live_jobs = 11")
    ran = streamvibe(database18.dsn, "demo")
    assert ran.status == 1
    assert "The demo failed: an eleventh live job was created" in ran.out
