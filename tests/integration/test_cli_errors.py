"""What the command line does with wrong usage, no database, and what nobody foresaw."""

import json
import os
import pty
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.cli import command, environment, streamvibe
from tests.support.databases import Database

COMMANDS = [
    ("stats",),
    ("jobs", "request", "note", "--user", uuid4()),
    ("jobs", "list", "--user", uuid4()),
    ("jobs", "show", uuid4()),
    ("jobs", "result", uuid4()),
    ("jobs", "logs", uuid4()),
    ("jobs", "cancel", uuid4(), "--user", uuid4()),
    ("jobs", "retry", uuid4(), "--user", uuid4()),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: "-".join(map(str, arguments[:2])))
def test_a_dead_database_is_exit_3(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    """Every command says at once that the database cannot be reached and why, and never shows a password."""
    dead = f"postgresql://app:hunter2@/app?host={tmp_path}"
    ran = streamvibe(dead, *arguments)
    lines = ran.err.splitlines()
    assert (ran.status, ran.out, lines[0]) == (3, "", "Error: The database cannot be reached.")
    assert "No such file or directory" in lines[1] and "STREAMVIBE_DATABASE_URL" in lines[2]
    as_json = streamvibe(dead, *arguments, "--json")
    assert (as_json.status, as_json.problem["type"]) == (3, "database-unreachable")
    assert "hunter2" not in ran.err + as_json.err


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: "-".join(map(str, arguments[:2])))
def test_a_database_without_our_schema_says_what_to_run(
    empty_database: Database, arguments: tuple[object, ...]
) -> None:
    """A database that was never migrated is a matter of configuration: exit 2."""
    ran = streamvibe(empty_database.dsn, *arguments)
    assert (ran.status, ran.err.splitlines()[-1]) == (2, "Run `streamvibe migrate`.")


@pytest.mark.parametrize(
    ("arguments", "says", "see"),
    [
        (("jobs", "lsit"), "No such command 'lsit'. Did you mean 'list'?", "streamvibe jobs --help"),
        (("jobs", "list"), "Missing option '--user'.", "streamvibe jobs list --help"),
        (("jobs", "list", "--usr", "x"), "No such option: --usr", "streamvibe jobs list --help"),
        (
            ("jobs", "list", "--user", "x", "--limit", "many"),
            "Invalid value for '--limit'",
            "streamvibe jobs list",
        ),
        (("nonsense",), "No such command 'nonsense'.", "streamvibe --help"),
        (("--database-url", "nonsense", "stats"), "The setting database_url", "Write it like postgresql://"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: tuple[object, ...], says: str, see: str) -> None:
    """Wrong usage says what is wrong and where to look it up."""
    ran = streamvibe(None, *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"Error: {says}")
    assert see in ran.err
    problem = streamvibe(None, *arguments, "--json").problem
    assert problem["title"].startswith(says) and see in problem["fix"]


def test_a_command_is_needed(tmp_path: Path) -> None:
    """Without a command the help is shown, as wrong usage."""
    for arguments in [(), ("jobs",)]:
        ran = streamvibe(None, *arguments)
        assert (ran.status, "Usage: streamvibe" in ran.err + ran.out) == (2, True)
    assert streamvibe(None, "--help").status == 0
    assert streamvibe(None, "--version").out == "0.1.0\n"


def test_an_argument_wins_over_the_environment(database18: Database, tmp_path: Path) -> None:
    """--database-url is used in place of STREAMVIBE_DATABASE_URL."""
    dead = f"postgresql:///app?host={tmp_path}"
    assert streamvibe(dead, "--database-url", database18.dsn, "stats").status == 0
    assert streamvibe(database18.dsn, "--database-url", dead, "stats").status == 3


def test_what_nobody_foresaw_is_one_line_and_a_way_on(database18: Database) -> None:
    """An unexpected failure is exit 1 without a traceback; --debug, before or after the command, shows it."""
    database18.connect().execute(
        "CREATE OR REPLACE FUNCTION streamvibe.require_service(p_function text) RETURNS void "
        "LANGUAGE plpgsql AS $$BEGIN PERFORM 1 / 0; END$$"
    )
    ran = streamvibe(database18.dsn, "stats")
    lines = ran.err.splitlines()
    assert (ran.status, len(lines)) == (1, 3)
    assert "DivisionByZero: division by zero" in lines[1] and "--debug" in lines[2]
    assert streamvibe(database18.dsn, "stats", "--json").problem["type"] == "error"
    for arguments in [("--debug", "stats"), ("stats", "--debug")]:
        shown = subprocess.run(
            command(*arguments),
            env=environment(database18.dsn),
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 1
        assert "Traceback" in shown.stderr


def test_a_closed_pipe_ends_quietly(database18: Database) -> None:
    """`streamvibe jobs list | head` shows no error when head has seen enough."""
    user_id = uuid4()
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('note')")
        conn.execute(
            "SELECT create_jobs(jsonb_agg(jsonb_build_object('user_id', %s::text, 'job_type', 'note',"
            " 'params', jsonb_build_object('n', n)))) FROM generate_series(1, 1000) n",
            [str(user_id)],
        )
    with subprocess.Popen(
        command("jobs", "list", "--user", user_id, "--limit", 1000, "--json"),
        env=environment(database18.dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ran:
        assert ran.stdout is not None and ran.stderr is not None
        ran.stdout.close()
        assert ran.stderr.read() == ""


def test_a_terminal_gets_tables(database18: Database) -> None:
    """On a terminal there are headings and aligned columns; values are shown as they are, markup included."""
    user_id = uuid4()
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('note')")
        conn.execute("SELECT request_job(%s, 'note', '{\"a\": \"[bold]x[/bold]\"}')", [user_id])
        job_id = database18.fetch_value("SELECT id FROM job_queue")
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        command("jobs", "show", job_id),
        env=environment(database18.dsn, COLUMNS="200", TERM="xterm"),
        stdout=secondary,
    ) as ran:
        os.close(secondary)
        shown = b""
        while True:
            try:
                block = os.read(primary, 65536)
            except OSError:  # the terminal's other side is closed
                break
            shown += block
    os.close(primary)
    assert ran.returncode == 0
    text = shown.decode()
    assert "field" in text and "\x1b[1m" in text
    assert json.dumps({"a": "[bold]x[/bold]"}) in text
