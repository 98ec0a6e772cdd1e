"""The reference is complete and true: nothing a user can call, set or meet goes undocumented."""

import re
from pathlib import Path

import pytest
from tests.docs.pages import REFERENCE, ROOT, markdown_files
from tests.support.databases import Database
from tools.write_reference import PAGES, commands, rewritten

import streamvibe
from streamvibe import errors
from streamvibe.config import ENV_PREFIX, Settings
from streamvibe.creators.jobs import SyncYouTubeParams, SyncYouTubeResult
from streamvibe.creators.local_youtube.dataset import load_dataset
from streamvibe.db.migrate_files import SQL_ROOT
from streamvibe.errors import BY_SQLSTATE, StreamVibeError

USERS = "Callers: users, for themselves; the service, for anybody."
SERVICE = "Callers: the service."


def page(name: str) -> str:
    """The text of a page of the reference."""
    return (REFERENCE / name).read_text()


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The first table below a heading, without its head: the other cells by the first, without backquotes."""
    section = re.split(r"^#+ ", text.partition(heading)[2], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {first: others for first, *others in cells}


def sql_text() -> str:
    """The text of all SQL files."""
    return "".join(path.read_text() for path in sorted(SQL_ROOT.rglob("*.sql")))


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_say_what_the_code_says(name: str) -> None:
    """What is generated from SQL headers, signatures, error classes and --help is up to date."""
    assert page(name) == rewritten(name), "run: .venv/bin/python tools/write_reference.py"


def test_every_callable_sql_function_is_documented(database18: Database) -> None:
    """sql.md has each function somebody was granted, with its parameters, and says truly who may call it."""
    with database18.connect() as conn:
        granted = conn.execute(
            "SELECT CASE n.nspname WHEN 'public' THEN p.proname ELSE n.nspname || '.' || p.proname END,"
            " p.proargnames[1:p.pronargs], has_function_privilege('authenticated', p.oid, 'EXECUTE')"
            " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname IN ('public', 'streamvibe') AND"
            " (has_function_privilege('service_role', p.oid, 'EXECUTE')"
            "  OR has_function_privilege('authenticated', p.oid, 'EXECUTE'))"
        ).fetchall()
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", page("sql.md"), re.MULTILINE | re.DOTALL))
    # The clock, by which maintenance tells how late it is, is a detail.
    granted = [row for row in granted if row[0] != "streamvibe.now"]
    assert sections.keys() == {name for name, _, _ in granted}
    for name, parameters, for_users in granted:
        section = sections[name]
        assert (USERS if for_users else SERVICE) in section, name
        signature = section.partition(f"{name}(")[2]
        assert re.findall(r"\b(p_\w+) ", signature.partition("RETURNS")[0]) == (parameters or []), name


def test_every_setting_is_documented() -> None:
    """settings.md has a row for each setting, with its environment variable and its default, and no other."""
    table = rows(page("settings.md"), "# Settings\n")
    assert table.keys() == Settings.model_fields.keys()
    for name, (variable, default, _) in table.items():
        assert variable == ENV_PREFIX + name.upper()
        field = Settings.model_fields[name]
        if field.default_factory is None and field.default is not None:
            assert default == f"{field.default}"


def test_every_setting_in_the_database_is_documented(database18: Database) -> None:
    """settings.md has each column of streamvibe.setting with its default."""
    table = rows(page("settings.md"), "## Settings in the database\n")
    with database18.connect() as conn:
        conn.execute("SET intervalstyle = 'postgres_verbose'")
        stored = conn.execute(
            "SELECT s.key, s.value FROM streamvibe.setting t, jsonb_each_text(to_jsonb(t)) s WHERE s.key <> 'only_row'"
        ).fetchall()
    assert {name: default for name, (default, _) in table.items()} == {
        name: re.sub(r"^@ |(?<=min)s$", "", value or "none").replace("min", "minutes")
        for name, value in stored
    }


def test_every_error_is_documented() -> None:
    """errors.md has each class of the tree, and each SQLSTATE that the SQL raises."""
    table = rows(page("errors.md"), "begin -->\n")
    classes = {
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, StreamVibeError)
    }
    classes.remove(StreamVibeError)
    assert table.keys() == {cls.__name__ for cls in classes}
    assert {code for code, *_ in table.values()} - {"—"} == BY_SQLSTATE.keys()
    raised = {
        code for path in SQL_ROOT.rglob("*.sql") for code in re.findall(r"'(SV\d\d\d)'", path.read_text())
    }
    assert raised <= BY_SQLSTATE.keys()


def test_every_kind_of_failure_is_documented() -> None:
    """errors.md has each failure_kind that the worker or the SQL writes."""
    table = rows(page("errors.md"), "## A handler's failures\n")
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    written = set(re.findall(r"\bfailure\(\s*\"(\w+)\"", source))
    written |= set(re.findall(r"(?:'kind', |failure_kind = )'(\w+)'", sql_text()))
    assert table.keys() == written


def test_every_channel_is_documented() -> None:
    """sql.md has each NOTIFY channel."""
    table = rows(page("sql.md"), "## Notifications\n")
    assert table.keys() == set(re.findall(r"pg_notify\('(\w+)'", sql_text()))


def test_every_public_python_name_is_documented() -> None:
    """python.md has each name of the package, and each public method of Client, Worker and Context."""
    text = page("python.md")
    for name in streamvibe.__all__:
        assert f"### {name}\n" in text
        value = getattr(streamvibe, name)
        section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        if name in ("Client", "Worker", "Context"):
            for method in vars(value):
                assert method.startswith("_") or re.search(rf"def {method}\(|{method} = ", section), (
                    name,
                    method,
                )


@pytest.mark.parametrize("path", list(markdown_files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_documentation_exist(path: Path) -> None:
    """Each `streamvibe ...` command shown on a page exists, with the options shown."""
    known = dict(commands())
    groups = {name.rpartition(" ")[0] for name in known}
    for shown in re.findall(r"(?:^|[`$(])(streamvibe [a-z][^`)\n|]*)", path.read_text(), re.MULTILINE):
        for words in spelled_out(shown.partition(" #")[0]):
            line = " ".join(words)
            name = max((name for name in known if f"{line} ".startswith(f"{name} ")), key=len, default=None)
            if name is None:
                assert line in groups or "--help" in line, f"{path.name}: there is no {line}"
                continue
            options = {option for item in known[name].params for option in (*item.opts, *item.secondary_opts)}
            assert set(re.findall(r"--[a-z-]+", line)) - {"--help"} <= options, f"{path.name}: {line}"


def spelled_out(shown: str) -> list[list[str]]:
    """`streamvibe db start|stop` as the commands it stands for."""
    lines: list[list[str]] = [[]]
    for word in shown.split():
        lines = [[*line, choice] for line in lines for choice in word.split("|")]
    return lines


def test_sync_youtube_is_documented() -> None:
    """sync_youtube.md has each param and each result field, and each packaged channel with its number of videos."""
    text = page("sync_youtube.md")
    assert (
        rows(text.partition("| result | |")[0], "--wait\n```\n").keys()
        == SyncYouTubeParams.model_fields.keys()
    )
    results = text.partition("| result | |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", results)) == SyncYouTubeResult.model_fields.keys()
    channels = rows(text, "knows these channels alone:\n")
    assert {handle: cells[0] for handle, cells in channels.items()} == {
        channel.handle: str(len(channel.videos)) for channel in load_dataset().channels
    }


def test_every_outcome_is_documented() -> None:
    """sql.md has each outcome that retry_job answers, and the command's help names it."""
    text = page("sql.md").partition("## Outcomes\n")[2].partition("\n## ")[0]
    body = (SQL_ROOT / "functions" / "internal" / "retry_job.sql").read_text()
    told = set(re.findall(r"RETURN '(\w+)'", body))
    assert told <= set(re.findall(r"^\| .*?\| `(\w+)` \|", text, re.MULTILINE))
    shown = page("cli.md").partition("## streamvibe jobs retry")[2].partition("\n## ")[0]
    assert told <= set(re.findall(r"\w+", shown))
