"""What the command line does with wrong usage, no database, and what nobody foresaw."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from uuid import uuid4

import pytest
from tests.support import hands
from tests.support.cli import command, environment, streamvibe
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe import SyncClient
from streamvibe.cli.wording import on_the_command_line
from streamvibe.errors import DatabaseUnreachable
from streamvibe.masking import mask_url

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
    assert (ran.status, ran.out) == (3, "")
    assert lines[0].startswith("Error: The database cannot be reached: ")
    assert "No such file or directory" in lines[0]
    assert lines[1] == f"Received for database_url: {mask_url(dead)}"
    assert "STREAMVIBE_DATABASE_URL" in lines[2]
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
    assert ran.err.splitlines()[0] == "Error: The database does not have this release's StreamVibe schema."
    assert f"Received for database_url: {mask_url(empty_database.dsn)}\n" in ran.err


@pytest.mark.parametrize(
    ("arguments", "says", "see"),
    [
        (("jobs", "lsit"), "No such command 'lsit'. Did you mean 'list'?", "streamvibe jobs --help"),
        (("jobs", "list"), "Missing option '--user'.", "streamvibe jobs list --help"),
        (
            ("jobs", "list"),
            "Missing option '--user'.",
            "`streamvibe jobs search` looks at the jobs of all users",
        ),
        (("jobs", "status", "x"), "No such command 'status'. Did you mean 'show'?", "streamvibe jobs --help"),
        (
            ("jobs", "delete", "x"),
            "No such command 'delete'. Did you mean 'cancel'?",
            "streamvibe jobs --help",
        ),
        (("status",), "No such command 'status'. Did you mean 'stats'?", "streamvibe --help"),
        (("jobs", "list", "--usr", "x"), "No such option: --usr", "streamvibe jobs list --help"),
        (
            ("jobs", "list", "--user", "x", "--limit", "many"),
            "Invalid value for '--limit'",
            "streamvibe jobs list",
        ),
        (("stats", "--database-url"), "Option '--database-url' requires an argument.", "streamvibe --help"),
        (
            ("jobs", "request", "note", "--user", "x", "--timeout", 3),
            "--timeout needs --wait",
            "leave --timeout out",
        ),
        (("nonsense",), "No such command 'nonsense'.", "streamvibe --help"),
        (
            ("--database-url", "nonsense", "stats"),
            "The setting database_url (STREAMVIBE_DATABASE_URL) is not a PostgreSQL connection string",
            "Write it like postgresql://",
        ),
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


@pytest.mark.parametrize(
    ("arguments", "field", "received"),
    [
        (("jobs", "list", "--user", "x", "--limit", "ten"), "--limit", "ten"),
        (("jobs", "request", "note", "--user", "x", "--priority=high"), "--priority", "high"),
        (("jobs", "request", "note", "--user", "x", "--dedupe-window", -1), "--dedupe-window", "-1"),
        (("jobs", "list"), "--user", None),
        (("jobs", "list", "--usr", "x"), "--usr", None),
    ],
)
def test_wrong_usage_names_the_option_and_what_was_typed(
    arguments: tuple[object, ...], field: str, received: str | None
) -> None:
    """The option at fault and its value have fields of their own, and a line for people."""
    problem = streamvibe(None, *arguments, "--json").problem
    assert (problem["field"], problem["received"]) == (field, received)
    shown = f"Received for {field}: {received}\n" in streamvibe(None, *arguments).err
    assert shown == (received is not None)


def test_a_command_is_needed(tmp_path: Path) -> None:
    """Without a command the help is shown, as wrong usage."""
    for arguments in [(), ("jobs",)]:
        ran = streamvibe(None, *arguments)
        assert (ran.status, "Usage: streamvibe" in ran.err + ran.out) == (2, True)
    assert streamvibe(None, "--help").status == 0
    assert streamvibe(None, "--version").out == "0.1.0\n"


def test_without_a_url_the_embedded_database_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and clients start it in STREAMVIBE_HOME without a word, and say when the schema is missing."""
    home = str(tmp_path / "home")
    try:
        first = streamvibe(None, "stats", "--json", STREAMVIBE_HOME=home)
        assert (first.status, first.problem["fix"]) == (2, "Run `streamvibe migrate`.")
        assert streamvibe(None, "migrate", STREAMVIBE_HOME=home).status == 0
        second = streamvibe(None, "stats", "--json", STREAMVIBE_HOME=home)
        assert (second.status, second.err, second.json["total_jobs"]) == (0, "", 0)
        monkeypatch.delenv("STREAMVIBE_DATABASE_URL", raising=False)
        monkeypatch.setenv("STREAMVIBE_HOME", home)
        with SyncClient() as client:
            assert client.stats().total_jobs == 0
    finally:
        assert streamvibe(None, "db", "stop", STREAMVIBE_HOME=home).status == 0


def test_an_argument_wins_over_the_environment(database18: Database, tmp_path: Path) -> None:
    """--database-url, before or after the command, is used in place of STREAMVIBE_DATABASE_URL."""
    dead = f"postgresql:///app?host={tmp_path}"
    assert streamvibe(dead, "--database-url", database18.dsn, "stats").status == 0
    assert streamvibe(database18.dsn, "--database-url", dead, "stats").status == 3
    assert streamvibe(dead, "stats", "--database-url", database18.dsn).status == 0
    assert streamvibe(database18.dsn, "jobs", "show", uuid4(), f"--database-url={dead}").status == 3


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


@pytest.mark.parametrize("arguments", [("--help",), ("stats",), ("jobs", "--help"), ("doctor", "--json")])
def test_a_pipe_that_nobody_reads_ends_quietly(database18: Database, arguments: tuple[str, ...]) -> None:
    """Also what is short, and so written when the command ends: `streamvibe stats | true`."""
    # As on most machines: what is printed is written at the end.
    env = environment(database18.dsn)
    env.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(
        command(*arguments),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ran:
        assert ran.stdout is not None and ran.stderr is not None
        ran.stdout.close()
        assert ran.stderr.read() == ""


@pytest.mark.parametrize(
    "arguments", [(), ("jobs",), ("logs",), ("maintain",), ("archive",), ("bench",), ("db",)]
)
def test_summaries_are_whole(arguments: tuple[str, ...]) -> None:
    """The help of a group says what each command does in whole sentences, on 80 columns too; -h is --help."""
    shown = streamvibe(None, *arguments, "--help", COLUMNS="80")
    listed = shown.out.partition("Commands:\n")[2]
    assert (shown.status, listed != "", "..." in listed) == (0, True, False)
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert streamvibe(None, *arguments, "-h", COLUMNS="80") == shown


def test_every_command_takes_h() -> None:
    """-h is --help wherever that works."""
    assert streamvibe(None, "jobs", "request", "-h") == streamvibe(None, "jobs", "request", "--help")


TERMINAL = {"COLUMNS": "200", "TERM": "xterm"}


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: our side and the command's, which the caller closes."""
    primary, secondary = pty.openpty()
    try:
        yield primary, secondary
    finally:
        os.close(primary)


def read_all(primary: int) -> str:
    """Everything written to a terminal until its other side is closed."""
    shown = b""
    with contextlib.suppress(OSError):  # that is how the end shows
        while block := os.read(primary, 65536):
            shown += block
    return shown.decode()


def test_a_terminal_gets_a_progress_bar(database18: Database) -> None:
    """--wait draws a bar on the terminal (standard error); standard output gets the result alone."""
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('note')")
    with terminal() as (primary, secondary):
        waiting = subprocess.Popen(
            command("jobs", "request", "note", "--user", uuid4(), "--wait"),
            env=environment(database18.dsn, **TERMINAL),
            stdout=subprocess.PIPE,
            stderr=secondary,
            text=True,
        )
        os.close(secondary)
        wait_until(lambda: database18.fetch_value("SELECT count(*) FROM job_queue") == 1, "the request")
        hands.complete(database18.dsn, {"total": 3})
        out, _ = waiting.communicate(timeout=60)
        text = read_all(primary)
    assert (waiting.returncode, json.loads(out)) == (0, {"total": 3})
    assert "pending" in text and "\u2501" in text


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        ("80", ["id", "job_type", "status", "what", "happened"]),
        ("120", ["id", "job_type", "status", "created_at", "what", "happened"]),
        ("200", ["id", "job_type", "status", "priority", "created_at", "progress", "what", "happened"]),
    ],
)
def test_a_list_fits_the_terminal(database18: Database, columns: str, headings: list[str]) -> None:
    """A job is one line no longer than the terminal; its id is never cut, other columns are cut or left out."""
    user_id = uuid4()
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('a_job_type_of_some_length')")
        conn.execute("SELECT request_job(%s, 'a_job_type_of_some_length')", [user_id])
        job_id = database18.fetch_value("SELECT id FROM job_queue")
    hands.fail(database18.dsn, kind="permanent", message="no such\nchannel " + "x" * 300)
    with terminal() as (primary, secondary):
        ran = subprocess.Popen(
            command("jobs", "list", "--user", user_id),
            env=environment(database18.dsn, **TERMINAL | {"COLUMNS": columns}),
            stdout=secondary,
        )
        os.close(secondary)
        text = re.sub(r"\x1b\[[0-9;]*m", "", read_all(primary))
    assert ran.wait() == 0
    head, line = text.splitlines()
    assert head.split() == headings
    assert line.startswith(f"{job_id} a_job_ty") and " failed " in line and "no such" in line
    assert len(line.rstrip()) <= int(columns)


def test_a_terminal_gets_tables(database18: Database) -> None:
    """On a terminal there are headings and aligned columns; values are shown as they are, markup included."""
    user_id = uuid4()
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('note')")
        conn.execute("SELECT request_job(%s, 'note', '{\"a\": \"[bold]x[/bold]\"}')", [user_id])
        job_id = database18.fetch_value("SELECT id FROM job_queue")
    with terminal() as (primary, secondary):
        ran = subprocess.Popen(
            command("jobs", "show", job_id), env=environment(database18.dsn, **TERMINAL), stdout=secondary
        )
        os.close(secondary)
        text = read_all(primary)
    assert ran.wait() == 0
    assert "field" in text and "\x1b[1m" in text
    assert json.dumps({"a": "[bold]x[/bold]"}) in text


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_lines_of_a_log_keep_their_ids_whole(database18: Database, columns: int) -> None:
    """However narrow the terminal, times and ids can be copied, and of messages nothing is lost."""
    message = " ".join(f"word{n}" for n in range(40))
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('note')")
        conn.execute("SELECT request_job(%s, 'note')", [uuid4()])
        job_id = database18.fetch_value("SELECT id FROM job_queue")
    hands.log(database18.dsn, hands.claim(database18.dsn), ("info", message))
    with terminal() as (primary, secondary):
        ran = subprocess.Popen(
            command("logs", "search"),
            env=environment(database18.dsn, **TERMINAL | {"COLUMNS": str(columns)}),
            stdout=secondary,
        )
        os.close(secondary)
        text = re.sub(r"\x1b\[[0-9;]*m", "", read_all(primary))
    assert ran.wait() == 0
    assert re.search(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{6}}Z +{job_id} +info", text), text
    assert re.findall(r"word\d+", text) == message.split()


def test_a_search_across_users_says_whose_they_are(database18: Database) -> None:
    """Where there is room; a narrow terminal does without, and cuts no id."""
    user_id = uuid4()
    with database18.connect() as conn:
        conn.execute("SELECT register_job_type('note')")
        conn.execute("SELECT request_job(%s, 'note', '{\"a\": 1}')", [user_id])
    shown = {}
    for columns in ("80", "160"):
        with terminal() as (primary, secondary):
            ran = subprocess.Popen(
                command("jobs", "search", "--params", '{"a": 1}'),
                env=environment(database18.dsn, **TERMINAL | {"COLUMNS": columns}),
                stdout=secondary,
            )
            os.close(secondary)
            shown[columns] = read_all(primary)
        assert ran.wait() == 0
    assert str(user_id) in shown["160"] and str(user_id)[:8] not in shown["80"]
    assert streamvibe(database18.dsn, "jobs", "search", "--params", '{"a": 1}').lines[0][1] == str(user_id)
    mine = streamvibe(database18.dsn, "jobs", "search", "--params", '{"a": 1}', "--user", user_id).lines[0]
    assert str(user_id) not in mine


def test_an_empty_list_says_so_on_a_terminal(database18: Database) -> None:
    """On standard error; the standard output of a terminal gets no headings of nothing, a pipe no word."""
    arguments = ("jobs", "list", "--user", uuid4())
    with terminal() as (primary, secondary):
        ran = subprocess.Popen(
            command(*arguments),
            env=environment(database18.dsn, **TERMINAL),
            stdout=secondary,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(secondary)
        text, err = read_all(primary), ran.communicate(timeout=60)[1]
    assert (ran.returncode, text, err) == (0, "", "No jobs.\n")
    piped = streamvibe(database18.dsn, *arguments)
    assert (piped.status, piped.out, piped.err) == (0, "", "")


def test_unknown_variables_are_named(database18: Database) -> None:
    """A misspelt STREAMVIBE_ variable is passed over with a line on standard error; with --json it is an object."""
    ran = streamvibe(database18.dsn, "stats", STREAMVIBE_HOEM="/x", STREAMVIBE_TEST_PG15_BIN="/y")
    assert (ran.status, ran.err) == (
        0,
        "There is no setting STREAMVIBE_HOEM: it is passed over. Did you mean STREAMVIBE_HOME?\n",
    )
    unlike = streamvibe(database18.dsn, "stats", STREAMVIBE_XYZ="/x").err
    assert unlike == "There is no setting STREAMVIBE_XYZ: it is passed over. See docs/reference/settings.md\n"
    as_json = streamvibe(database18.dsn, "stats", "--json", STREAMVIBE_HOEM="/x")
    assert (as_json.status, list(json.loads(as_json.err))) == (0, ["hint"])


def test_what_to_do_about_the_database_depends_on_which_it_is(tmp_path: Path) -> None:
    """With a URL set, the URL is to be checked; the embedded one is to be started. Never both."""
    assert on_the_command_line(DatabaseUnreachable("gone", field="database_url")).fix is not None
    dead = streamvibe(f"postgresql:///app?host={tmp_path}", "stats").err.splitlines()[-1]
    assert dead == "Check that it runs, and that STREAMVIBE_DATABASE_URL (or --database-url) is right."
    with mock.patch.dict(os.environ, environment(None), clear=True):
        error = on_the_command_line(DatabaseUnreachable("gone", field="database_url"))
    assert error.fix == "Start the embedded database: `streamvibe db start`"


def test_the_package_can_be_run() -> None:
    """python -m streamvibe is the command."""
    ran = subprocess.run(
        [sys.executable, "-m", "streamvibe", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "0.1.0\n"
