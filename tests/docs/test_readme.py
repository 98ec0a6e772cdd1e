"""What the README shows is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import README, ROOT, between, example
from tests.support.databases import Database

QUICKSTART = ROOT / "examples" / "quickstart.py"


def run(command: list[str | Path], database: Database, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program's whole run in a process of its own, which finds the database as a user's would."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STREAMVIBE_")}
    environment |= {
        "STREAMVIBE_DATABASE_URL": database.dsn,
        "STREAMVIBE_HOME": str(folder / "home"),
        "COLUMNS": "110",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def comments(code: str) -> list[str]:
    """What the comments behind `print(...)` say that it prints."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE)


def test_the_quickstart_is_the_example_file() -> None:
    """The README's Python block and examples/quickstart.py are the same text."""
    assert example(README, "examples/quickstart.py", "python") == QUICKSTART.read_text()


def test_the_quickstart_prints_what_its_comments_say(database18: Database, tmp_path: Path) -> None:
    """The example runs as a program of its own and prints exactly what the comments beside its prints say."""
    done = run([sys.executable, QUICKSTART], database18, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == comments(QUICKSTART.read_text())


def test_psql_alone_can_use_the_queue(database: Database, tmp_path: Path) -> None:
    """The README's SQL runs through psql: created, joined when asked again, and cached once it is completed."""
    script = example(README, "psql", "sql")
    file = tmp_path / "example.sql"
    file.write_text(script)
    psql: list[str | Path] = [
        database.server.bin / "psql",
        "-X",
        "-A",
        "-t",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        database.dsn,
    ]
    done = run([*psql, "-f", str(file)], database, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    created, joined, cached = (line.split("|") for line in done.stdout.splitlines() if line)
    assert (created[0], joined[0]) == ("created", "joined")
    assert created[1] == joined[1]
    assert cached == ["cached", '{"sent": true}']
    assert database.fetch_value("SELECT message FROM job_log") == "sent it"
    for outcome in ("created", "joined", "cached"):
        assert f": {outcome}." in script


VARIABLE = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\bv1[A-Za-z0-9_-]{28}(?![A-Za-z0-9_-])"), "<cursor>"),
    (re.compile(r"postgresql://\S+"), "<database url>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<local url>"),
    (re.compile(r"\d\d:\d\d:\d\d\.\d+"), "<time of day>"),
    (re.compile(r"\d+:\d\d:\d\d"), "<elapsed>"),
    (re.compile(r"\d+(\.\d+)? (m?s)\b"), r"<duration> \2"),
    (re.compile(r"PostgreSQL 18\.\d+"), "PostgreSQL 18"),
    (re.compile(r"\d+ files applied, \d+ partitions made"), "<files> applied"),
    (re.compile(r"on [\w.-]+-\d+-[0-9a-f]{8}\b"), "on <worker>"),
    # Said of the embedded PostgreSQL alone, with which the README's output is made.
    (re.compile(r"^PostgreSQL keeps running; .*\n?", re.MULTILINE), ""),
    (re.compile(r" +"), " "),
)


def normalised(output: str) -> list[str]:
    """Lines of the demo's output without what differs from run to run: ids, times, ports, paths."""
    for pattern, name in VARIABLE:
        output = pattern.sub(name, output)
    return [line.rstrip() for line in output.strip().splitlines()]


@pytest.mark.timeout(120)
def test_the_demo_prints_what_the_readme_shows(pg18_empty: Database, tmp_path: Path) -> None:
    """`streamvibe demo` ends 0 and its output is, line by line, the README's (`make readme` rewrites that)."""
    done = run([Path(sys.executable).with_name("streamvibe"), "demo"], pg18_empty, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = between(README.read_text(), "demo output").removeprefix("```text\n").removesuffix("```\n")
    assert normalised(done.stdout) == normalised(shown)
