"""``streamvibe db start|stop|status|url``, as typed."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from streamvibe.cli import main
from streamvibe.cli.db import db_app
from streamvibe.db import embedded
from streamvibe.errors import DatabaseUnreachable
from streamvibe.masking import mask_url

OTHER = "postgresql://app:hidden@db.example.org:5433/app?sslmode=require"
MASKED = "postgresql://app:***@db.example.org:5433/app?sslmode=require"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new home, named by the environment alone; what runs in it is stopped at the end."""
    parent = Path(tempfile.mkdtemp(prefix="sv", dir="/tmp"))
    monkeypatch.chdir(parent)
    for name in [name for name in os.environ if name.startswith("STREAMVIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STREAMVIBE_HOME", str(parent / "home"))
    try:
        yield parent / "home"
    finally:
        monkeypatch.delenv("STREAMVIBE_DATABASE_URL", raising=False)
        run("stop")
        shutil.rmtree(parent)


def run(*arguments: str) -> str:
    """What the command prints; it ends with status 0."""
    result = CliRunner().invoke(db_app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_start_and_stop_say_what_they_did(home: Path) -> None:
    """start tells a new server from one that runs, stop one that ran from none; both print where things are."""
    first = run("start")
    assert "was started" in first
    assert str(home / "postgres" / "data") in first
    assert "runs already" in run("start")
    assert "was stopped" in run("stop")
    assert "was not running" in run("stop")


def test_status_starts_nothing(home: Path) -> None:
    """Exit status 1 and where it would be while it does not run, 0 and where it is while it does; also as JSON."""
    before = CliRunner().invoke(db_app, ["status"])
    assert (before.exit_code, "does not run" in before.stdout, home.exists()) == (1, True, False)
    assert f"data  {home / 'postgres' / 'data'}" in before.stdout
    started = json.loads(run("start", "--json"))
    shown = run("status")
    assert all(f"  {started[name]}" in shown for name in ("url", "pid", "data_directory", "log_directory"))
    assert json.loads(run("status", "--json")) == {
        name: started[name] for name in ("state", "url", "tcp_url", "pid", "data_directory", "log_directory")
    }
    run("stop")
    after = CliRunner().invoke(db_app, ["status", "--json"])
    stopped = json.loads(after.stdout)
    assert (after.exit_code, stopped["state"], stopped["url"], stopped["pid"]) == (1, "stopped", None, None)


def test_status_asks_the_database_that_is_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With STREAMVIBE_DATABASE_URL set that one is meant: reached, or an error."""
    url = json.loads(run("start", "--json"))["url"]
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", url)
    assert json.loads(run("status", "--json"))["state"] == "external"
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", f"postgresql:///app?host={home}")
    with pytest.raises(DatabaseUnreachable):
        CliRunner().invoke(db_app, ["status"], catch_exceptions=False)


def test_json_holds_the_same(home: Path) -> None:
    """With --json each command prints one object and nothing else."""
    started = json.loads(run("start", "--json"))
    assert (started["state"], started["started"]) == ("running", True)
    assert started["data_directory"] == str(home / "postgres" / "data")
    assert json.loads(run("url", "--json")) == {"state": "running", "url": started["url"]}
    assert json.loads(run("stop", "--json")) == {"state": "stopped", "stopped": True, "connections": 0}
    assert json.loads(run("stop", "--json")) == {"state": "stopped", "stopped": False, "connections": 0}


def test_stop_says_who_was_connected(home: Path) -> None:
    """The connections that a stop ends are counted, and named after their programs."""
    url = run("url").strip()
    with (
        psycopg.connect(url, application_name="streamvibe claim w1"),
        psycopg.connect(url, application_name="streamvibe lease w1"),
        psycopg.connect(url, application_name="psql"),
    ):
        assert "It had 3 connections, of psql, streamvibe: what still runs waits for it." in run("stop")
    assert "connection" not in run("stop")


def test_nothing_is_called_masked_that_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`db url` speaks of a masked password only where there is one, however the connection string is written."""
    for url, masked in [("dbname=app user=ada", False), ("dbname=app password=s", True), (OTHER, True)]:
        monkeypatch.setenv("STREAMVIBE_DATABASE_URL", url)
        assert main.run(["db", "url"]) == 0
        assert ("is masked" in capsys.readouterr().err) == masked, url


def test_psql_connects_with_the_printed_url(home: Path) -> None:
    """psql "$(streamvibe db url)" works whether or not the database ran, and whatever PGPASSWORD says."""
    assert not home.exists()
    url = run("url").strip()
    command = [str(embedded.binary("psql")), url, "-XAtc", "SELECT current_database()"]
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": "for-another-database"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("streamvibe\n", "")


def test_a_url_has_one_spelling(home: Path) -> None:
    """What `db url` prints is what errors and other commands show of it."""
    url = run("url").strip()
    assert mask_url(url) == url and f"host={home}" in url


def test_a_port_is_opened_only_by_a_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs without a port is not restarted for one: start says how to get it."""
    run("start")
    monkeypatch.setenv("STREAMVIBE_EMBEDDED_PORTS", "20000-60000")
    assert "stop it and start it again" in run("start")
    run("stop")
    started = json.loads(run("start", "--json"))
    assert started["tcp_url"].startswith("postgresql://postgres@127.0.0.1:")
    assert started["password_file"] == str(home / "postgres" / "password")


def test_with_another_database_set_nothing_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With STREAMVIBE_DATABASE_URL set start says so and ends well, url prints it, masked unless asked not to."""
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", OTHER)
    said = run("start")
    assert "not started" in said and MASKED in said
    assert json.loads(run("start", "--json")) == {"state": "external", "url": MASKED}
    assert run("url").strip() == MASKED
    assert run("url", "--show-password").strip() == OTHER
    assert json.loads(run("url", "--json", "--show-password")) == {"state": "external", "url": OTHER}
    assert not home.exists()


def test_with_another_database_set_nothing_is_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With STREAMVIBE_DATABASE_URL set stop ends nothing, the embedded server neither, and says how to."""
    started = json.loads(run("start", "--json"))
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", OTHER)
    assert "nothing was stopped" in (said := run("stop")) and "unset STREAMVIBE_DATABASE_URL" in said
    assert json.loads(run("stop", "--json")) == {"state": "external", "stopped": False, "url": MASKED}
    monkeypatch.delenv("STREAMVIBE_DATABASE_URL")
    again = json.loads(run("start", "--json"))
    assert (again["started"], again["pid"]) == (False, started["pid"])


def test_errors_have_their_exit_status(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A home that cannot be used ends with status 2, a server that does not start with 3; no traceback."""
    monkeypatch.setenv("STREAMVIBE_HOME", str(home / "postgres"))
    home.mkdir()
    (home / "postgres").touch()
    assert main.run(["db", "start"]) == 2
    said = capfd.readouterr().err
    assert str(home / "postgres") in said and "STREAMVIBE_HOME" in said and "Traceback" not in said
    (home / "postgres").unlink()

    monkeypatch.setenv("STREAMVIBE_HOME", str(home))
    run("start")
    run("stop")
    (home / "postgres" / "data" / "global" / "pg_control").rename(home / "pg_control")
    assert main.run(["db", "start", "--json"]) == 3
    problem = json.loads(capfd.readouterr().err)
    assert problem["type"] == "database-unreachable" and "pg_control" in problem["received"]
    (home / "pg_control").rename(home / "postgres" / "data" / "global" / "pg_control")
