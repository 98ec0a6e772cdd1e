"""streamvibe maintain report and stats --slow: what an operator sees of a week, and of the slowest statements."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from tests.sql import kit
from tests.support.cli import Run, command, environment, streamvibe
from tests.support.databases import TEMPLATE, Database, make_template, new_database
from tests.support.servers import Server, pg18_bin

WEEK = 7 * kit.DAY


@pytest.fixture(scope="module")
def watched() -> Iterator[Server]:
    """A server that counts statements."""
    server = Server("watched", pg18_bin())
    try:
        server.start(shared_preload_libraries="pg_stat_statements")
        make_template(server)
        yield server
    finally:
        server.stop()


@pytest.fixture
def counted(watched: Server) -> Iterator[Database]:
    """A migrated database with pg_stat_statements in it."""
    with new_database(watched, TEMPLATE) as database:
        database.connect().execute("CREATE EXTENSION pg_stat_statements")
        yield database


def two_weeks(database: Database) -> None:
    """Two weeks with jobs, and their reports; the clock stands on the Monday after."""
    conn = database.connect()
    kit.register(conn, "sync")
    kit.register(conn, "mail")
    for week, (good, bad) in enumerate([(4, 0), (6, 2)]):
        monday: datetime = kit.value(
            conn, "SELECT date_trunc('week', streamvibe.now() + interval '7 days', 'UTC')"
        )
        database.advance_clock(monday + kit.HOUR - kit.value(conn, "SELECT streamvibe.now()"))
        if week:
            kit.call(conn, "make_report", p_kind="weekly")
        kit.worker(conn, p_lease="1 hour")
        for name, count in (("sync", good), ("mail", bad)):
            for _ in range(count):
                kit.job_id(conn, uuid4(), name)
        claimed = kit.claim(conn, limit=20)
        database.advance_clock(timedelta(seconds=20 + 40 * week))
        for job in claimed:
            if job["job_type"] == "sync":
                kit.complete(conn, [job])
            else:
                kit.fail(conn, [job], failure=kit.PERMANENT)
        conn.execute("SELECT count(*) FROM job_queue WHERE user_id = gen_random_uuid()")
    database.advance_clock(WEEK)
    kit.call(conn, "make_report", p_kind="weekly")


def on_a_terminal(dsn: str, *arguments: object, columns: int = 120) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env=environment(dsn, COLUMNS=str(columns), TERM="xterm", NO_COLOR="1"),
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how a terminal says that its last program has ended
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0, shown.decode()
    # Without what makes headings bold.
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def test_there_is_none_yet(run: Run) -> None:
    """Exit status 1, and who makes one; an empty list is no failure."""
    for kind, period in (("weekly", "week"), ("monthly", "month")):
        ran = run("maintain", "report", "--kind", kind)
        assert (ran.status, ran.out) == (1, "") and f"no {kind} report yet" in ran.err and period in ran.err
    ran = run("maintain", "report", "--json")
    assert (ran.status, ran.json) == (1, None)
    assert run("maintain", "report", "--list", "--json").json == {"items": []}


def test_the_latest_is_shown_beside_the_one_before(counted: Database) -> None:
    """Counts, change, failures, sizes, indexes, statements; the worst first; as lines, JSON and a list."""
    # Times are in UTC, whatever the server's zone.
    counted.connect().execute(f"ALTER DATABASE {counted.name} SET TimeZone = 'America/New_York'")
    two_weeks(counted)
    ran = streamvibe(counted.dsn, "maintain", "report", "--free-disk", "200GB")
    assert ran.status == 0, ran.err
    rows = ran.lines
    assert "Weekly report of" in ran.out and "beside that from" in ran.out and "the first one" not in ran.out
    assert ["completed", "6", "4", "+50%"] in rows
    assert ["failed", "2", "0", "-"] in rows
    assert ["error rate", "25.0%", "0.0%", "-"] in rows
    [p95] = [row for row in rows if row[0] == "processing p95"]
    assert float(p95[1].removesuffix(" s")) == pytest.approx(60, rel=0.02)
    assert p95[3].startswith("+")
    types = [row[0] for row in rows if row[0] in ("mail", "sync") and len(row) == 8]
    assert types == ["mail", "sync"], "the one that fails most stands first"
    assert ["mail", "permanent", "2", "-"] in rows
    assert any(row[0] == "job_queue" and row[-1] == "ok" for row in rows)
    assert any(row[0] == "idx_job_queue_pending_pickup" for row in rows)
    assert any("FROM job_queue WHERE user_id" in row[-1] for row in rows)
    assert "10 million jobs in more than a hundred years" in ran.out
    assert "The disk is full in" in ran.out or "does not grow" in ran.out

    found = streamvibe(counted.dsn, "maintain", "report", "--json").json
    first, after = (datetime.fromisoformat(found[name]).date() for name in ("period_start", "period_end"))
    assert first.isoweekday() == after.isoweekday() == 1
    assert f"report of {first} to {after - kit.DAY} (UTC), made {after} 01:" in ran.out
    assert found["kind"] == "weekly" and found["content"]["jobs"]["completed"] == 6
    listed = streamvibe(counted.dsn, "maintain", "report", "--list", "--json").json["items"]
    assert [(item["completed"], item["failed"]) for item in listed] == [(6, 2), (4, 0)]
    assert listed[0]["period_start"] == found["period_start"]
    assert len(streamvibe(counted.dsn, "maintain", "report", "--list", "--limit", 1).lines) == 1
    assert streamvibe(counted.dsn, "maintain", "report", "--kind", "monthly").status == 1


@pytest.mark.parametrize("columns", [80, 140])
def test_it_is_readable_on_a_terminal(counted: Database, columns: int) -> None:
    """Titles, a dozen lines of each list, and no statement is wider than the terminal."""
    two_weeks(counted)
    shown = on_a_terminal(counted.dsn, "maintain", "report", columns=columns)
    for title in ("Jobs", "Job types", "Failures", "Size and growth", "Tables", "Indexes", "Partitions"):
        assert f"\n{title}\n" in shown
    assert "Slowest statements" in shown and "more: --json shows all" in shown
    statements = shown.partition("Slowest statements\n")[2].splitlines()
    assert all(len(line) <= columns for line in statements)


def test_slow_statements(counted: Database) -> None:
    """The longest in all first, without constants; the same as JSON; --limit."""
    conn = counted.connect()
    for _ in range(3):
        conn.execute("SELECT pg_sleep(0.02), count(*) FROM job_queue WHERE job_type = 'secret'")
    conn.execute("SELECT count(*) FROM job_log")
    ran = streamvibe(counted.dsn, "stats", "--slow")
    assert ran.status == 0 and ran.err == ""
    [first, second] = ran.lines
    assert "FROM job_queue WHERE job_type = $" in first[-1] and first[1] == "3" and "secret" not in ran.out
    assert "FROM job_log" in second[-1]
    found = streamvibe(counted.dsn, "stats", "--slow", "--json").json
    assert (found["problem"], found["fix"]) == (None, None)
    [item] = [item for item in found["items"] if "job_type" in item["statement"]]
    assert item["calls"] == 3 and item["total_seconds"] >= 0.06
    assert len(streamvibe(counted.dsn, "stats", "--slow", "--limit", 1).lines) == 1


def test_without_the_extension(run: Run) -> None:
    """Nothing is printed but why, and how to get it."""
    ran = run("stats", "--slow")
    assert (ran.status, ran.out) == (0, "")
    assert "pg_stat_statements is not in this database" in ran.err and "CREATE EXTENSION" in ran.err
    found = run("stats", "--slow", "--json").json
    assert found["items"] == [] and "CREATE EXTENSION" in found["fix"]
    assert json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("maintain", "report", "--kind", "daily"), "--kind"),
        (("maintain", "report", "--kind", "yearly"), "--kind"),
        (("maintain", "report", "--free-disk", "much"), "--free-disk"),
        (
            (
                "maintain",
                "report",
                "--free-disk=-5GB",
            ),
            "--free-disk",
        ),
        (("maintain", "report", "--list", "--limit", "0"), "--limit"),
        (("stats", "--slow", "--limit", "1001"), "--limit"),
        (("stats", "--limit", "5"), "--limit"),
        (("stats", "--prometheus", "--limit", "5"), "--prometheus"),
        (("stats", "--slow", "--type", "note"), "--slow"),
        (("stats", "--slow", "--recount"), "--slow"),
    ],
)
def test_bad_input(run: Run, arguments: tuple[str, ...], field: str) -> None:
    """Exit status 2, naming the option, what was given and what to do."""
    refused = run("--json", *arguments)
    assert refused.status == 2
    assert refused.problem["field"] == field and refused.problem["received"] and refused.problem["fix"]
