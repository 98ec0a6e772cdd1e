"""`streamvibe migrate`, run as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.databases import Database

from streamvibe.db.migrate import pending

STREAMVIBE = Path(sys.executable).with_name("streamvibe")


def streamvibe(dsn: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; `dsn` is its STREAMVIBE_DATABASE_URL."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STREAMVIBE_")}
    if dsn is not None:
        environment["STREAMVIBE_DATABASE_URL"] = dsn
    return subprocess.run(
        [STREAMVIBE, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_it_says_what_it_did(empty_database: Database) -> None:
    """--check exits 1 while something is pending and 0 afterwards; a second run has nothing to do."""
    dsn = empty_database.dsn
    before = streamvibe(dsn, "migrate", "--check")
    assert (before.returncode, before.stdout.splitlines()[0]) == (1, "Pending:")
    assert "  migration 0001_foundation.sql" in before.stdout

    first = streamvibe(dsn, "migrate")
    assert (first.returncode, first.stderr) == (0, "")
    assert "Applied migration 0001_foundation.sql (" in first.stdout
    assert "Made 10 partitions: " in first.stdout
    assert first.stdout.splitlines()[-1].startswith("The schema is now that of StreamVibe ")

    after = streamvibe(dsn, "migrate", "--check")
    assert (after.returncode, after.stdout) == (0, "The schema is up to date.\n")
    assert "The schema is already that of StreamVibe" in streamvibe(dsn, "migrate").stdout


def test_json_is_one_document(empty_database: Database) -> None:
    """With --json standard output is the report alone; progress goes to standard error."""
    dsn = empty_database.dsn
    check = json.loads(streamvibe(dsn, "migrate", "--check", "--json").stdout)
    assert check["up_to_date"] is False
    assert check["pending"][0] == {"kind": "migration", "name": "0001_foundation.sql"}

    result = streamvibe(dsn, "migrate", "--json")
    report = json.loads(result.stdout)
    assert report["database"] == empty_database.name
    assert report["applied"][0]["name"] == "0001_foundation.sql"
    assert len(report["partitions"]) == 10
    assert "Applied migration" in result.stderr

    assert json.loads(streamvibe(dsn, "migrate", "--check", "--json").stdout) == {
        "up_to_date": True,
        "pending": [],
    }


def test_the_script_goes_straight_into_psql(empty_database: Database) -> None:
    """`streamvibe migrate --sql | psql` as the README has it; migrate --check is content afterwards."""
    script = streamvibe(None, "migrate", "--sql")
    assert (script.returncode, script.stderr) == (0, "")
    applied = subprocess.run(
        [empty_database.server.bin / "psql", empty_database.dsn, "-v", "ON_ERROR_STOP=1"],
        input=script.stdout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (applied.returncode, applied.stderr) == (0, "")
    assert pending(empty_database.dsn) == ()
    assert streamvibe(empty_database.dsn, "migrate", "--check").returncode == 0


def test_a_refusal_has_no_traceback(empty_database: Database) -> None:
    """What, the value received, what to do; exit status 1."""
    empty_database.connect().execute("CREATE TABLE public.job_queue ()")
    result = streamvibe(empty_database.dsn, "migrate")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "Error: There is a public.job_queue that is not StreamVibe's.",
        "Received for public.job_queue: public.job_queue, owned by postgres",
        "Rename it, or use another database. It was not touched.",
    ]


def test_a_dead_database_is_exit_status_3(tmp_path: Path) -> None:
    """Nothing answers there, and the password does not show."""
    result = streamvibe(f"postgresql://app:hunter2@/app?host={tmp_path}", "migrate")
    assert result.returncode == 3
    assert "hunter2" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage_is_exit_status_2() -> None:
    """--sql prints a script and nothing else."""
    assert streamvibe(None, "migrate", "--sql", "--check").returncode == 2
    assert streamvibe(None, "migrate", "--wait", "-1").returncode == 2
