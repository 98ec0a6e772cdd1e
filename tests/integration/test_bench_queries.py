"""``streamvibe bench queries`` and ``streamvibe explain``: every question asked of a small queue, and its plan."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.support.cli import streamvibe
from tests.support.databases import Database

from streamvibe.bench.queries import baseline, fill
from streamvibe.bench.queries.catalog import QUESTIONS, Question
from streamvibe.bench.queries.measure import ask
from streamvibe.cli.main import run
from streamvibe.config import Settings
from streamvibe.db import embedded

TARGETS = {
    "User job list (paginated)": 5,
    "Worker job pickup": 10,
    "Job status check": 2,
    "Job result retrieval": 5,
    "Deduplication check": 5,
    "Bulk job creation": 100,
    "Cleanup old jobs": 500,
    "Analytics query": 50,
}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_every_question_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its milliseconds, the design's target where there is one, and the index that answered; a second run
    finds the jobs there, asks the older design the same, and draws the first beside it; --drop leaves nothing.
    """
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    arguments = ["bench", "queries", "--scale", "10k", "--calls", "3"]
    assert run([*arguments, "--json", str(first)]) in (0, 1), capsys.readouterr().err
    document = json.loads(first.read_text())
    assert (document["scale"], document["size"]["jobs"], document["size"]["lines"]) == ("10k", 10_000, 20_000)
    assert document["machine"]["cores"] >= 1 and document["machine"]["postgres"]["fsync"] == "on"
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == [question.name for question in QUESTIONS]
    assert {name: row["target_ms"] for name, row in rows.items() if row["target_ms"]} == TARGETS
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows.values())
    assert rows["Job status check"]["index"] == "job_queue_pkey"
    assert "idx_job_queue_type_status" in rows["Worker job pickup"]["index"]
    assert "idx_job_queue_identity" in rows["Deduplication check"]["index"]
    assert rows["Analytics query"]["index"] == "-"
    server = embedded.ensure_running(Settings().model_copy(update={"database_url": None})).url
    with psycopg.connect(server.replace("/streamvibe?", f"/{fill.database_name('10k')}?")) as conn:
        counted = conn.execute("SELECT status, count(*) FROM job_queue GROUP BY status").fetchall()
        states: dict[str, int] = dict(counted)
        assert states["completed"] + states["failed"] + states["cancelled"] > 9_000 > states["completed"]
        assert conn.execute("SELECT * FROM recount_stats()").fetchall() == []
        made = conn.execute("SELECT count(DISTINCT tableoid) FROM job_queue").fetchone()
        assert made == (3,)
        old = conn.execute(
            "SELECT count(*), count(completed_at) FROM job_queue"
            " WHERE tableoid = (SELECT min(tableoid::bigint)::oid FROM job_queue)"
        ).fetchone()
        assert old == (2500, 2500)
    capsys.readouterr()
    beside_it = ["--plot", str(tmp_path / "plot"), "--with", str(first), "--baseline", "seed"]
    assert run([*arguments, "--json", str(second), *beside_it]) in (0, 1)
    printed = capsys.readouterr()
    assert "what seed's document says" in printed.out
    pages = document["machine"]["postgres"]["huge_pages_status"]
    assert pages in ("on", "off") and "shared buffers" in printed.err and f"huge pages {pages}" in printed.err
    assert "p50 within a tenth" in printed.err and "Above 1, ours is faster" in printed.err
    [cleanup] = (row for row in rows.values() if row["name"] == "Cleanup old jobs")
    assert cleanup["dataset"] == "2,500 finished"
    again = json.loads(second.read_text())
    assert again["size"]["jobs"] == 10_000
    beside = {row["name"]: row for row in again["rows"] if "baseline" in row}
    assert set(beside) == set(baseline.questions("seed")) >= set(TARGETS)
    assert all(
        row["ratio"] > 0 and row["baseline"]["p99_ms"] >= row["baseline"]["p50_ms"] for row in beside.values()
    )
    assert [claim["said"] for claim in again["claims"]] == [
        "80 %", "90 %", "2 to 10 times", "10 to 100 times", "10,000/s", "50,000/s",
    ]  # fmt: skip
    with psycopg.connect(server.replace("/streamvibe?", f"/{fill.database_name('10k')}?")) as conn:
        # What its writing questions did was rolled back, too.
        copied = "SELECT (SELECT count(*) FROM seed.job_queue), (SELECT count(*) FROM seed.job_log)"
        assert conn.execute(copied).fetchone() == (10_000, 20_000)
        named = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'seed' AND indexname LIKE 'idx_job_%'"
        assert conn.execute(named).fetchone() == (15,)
    assert (tmp_path / "plot.png").stat().st_size > 10_000 and (tmp_path / "plot.svg").stat().st_size > 10_000
    capsys.readouterr()
    assert run([*arguments[:4], "--drop"]) == 0
    with psycopg.connect(server) as conn:
        found = conn.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [fill.database_name("10k")]
        ).fetchone()
        assert found is None


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("data", "query", "expected"),
    [
        ("one-user", "SELECT count(DISTINCT user_id) FROM job_queue", 1),
        ("same-time", "SELECT count(DISTINCT created_at) FROM job_queue", 3),
        (
            "scheduled",
            "SELECT count(*) FROM job_queue WHERE job_priority = 9 AND scheduled_for > '2099-01-01'",
            3750,
        ),
        ("large-params", "SELECT count(*) FROM job_queue WHERE octet_length(params::text) > 100000", 99),
    ],
)
def test_what_a_queue_would_rather_not_hold(
    data: str, query: str, expected: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every question is asked of each such queue, which stands in a database of its own."""
    file = tmp_path / "found.json"
    arguments = ["bench", "queries", "--scale", "10k", "--data", data]
    assert run([*arguments, "--calls", "1", "--json", str(file)]) in (0, 1), capsys.readouterr().err
    document = json.loads(file.read_text())
    assert (document["data"], document["size"]["jobs"]) == (data, 10_000)
    assert [row["name"] for row in document["rows"]] == [question.name for question in QUESTIONS]
    server = embedded.ensure_running(Settings().model_copy(update={"database_url": None})).url
    name = fill.database_name("10k", data)
    with psycopg.connect(server.replace("/streamvibe?", f"/{name}?")) as conn:
        assert conn.execute(query.encode()).fetchone() == (expected,)
    assert run([*arguments, "--drop"]) == 0
    assert name in capsys.readouterr().err


def test_a_baseline_is_asked_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its schema is not part of the package: elsewhere the command says where to run it."""
    monkeypatch.setattr(baseline, "DIRECTORY", tmp_path)
    assert run(["bench", "queries", "--baseline", "seed"]) == 2
    assert "checkout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--scale", "11k"], "--scale"),
        (["--data", "even"], "--data"),
        (["--baseline", "tree"], "--baseline"),
        (["--with", "/nowhere.json"], "--with"),
        (["--plot", "x.bmp"], "--plot"),
        (["--plot", "/nowhere/x.png"], "--json or --plot"),
        (["--json", "/nowhere/x.json"], "--json or --plot"),
    ],
)
def test_what_cannot_be_measured(
    arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another scale, a file that is no result and another picture are refused by name."""
    assert run(["bench", "queries", *arguments]) == 2
    error = capsys.readouterr().err
    assert field in error or arguments[1] in error


def test_what_writes_is_taken_back_and_stays_prepared(database: Database) -> None:
    """As for a caller who commits: the second call finds its statement made ready, and nothing of the first."""
    with database.connect() as conn:
        conn.execute("CREATE TABLE written (number int)")
        made = "INSERT INTO written SELECT count(*) FROM written RETURNING number"
        before = "DELETE FROM written"
        for _ in range(2):
            assert ask(conn, Question("", "", made, writes=True, before=before), {}) > 0
        found = conn.execute("SELECT statement FROM pg_prepared_statements").fetchall()
        assert (made,) in found
        assert conn.execute("SELECT count(*) FROM written").fetchone() == (0,)


def _filled(database: Database, jobs: int) -> psycopg.Connection[Any]:
    conn = database.connect()
    conn.execute("SELECT register_job_type('note')")
    conn.execute(
        "INSERT INTO job_queue (id, created_at, user_id, job_type, status, started_at, completed_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(now()) + n, n), now() + n * interval '1 us',"
        " ('00000000-0000-4000-8000-' || lpad((n %% 1000)::text, 12, '0'))::uuid, 'note',"
        " 'completed', now(), now() FROM generate_series(1, %s) n",
        [jobs],
    )
    conn.execute("ANALYZE job_queue")
    return conn


def explain(dsn: str, *arguments: str) -> Any:
    """What the command did."""
    return streamvibe(dsn, "explain", *arguments)


def test_explain_shows_every_statement_inside(database: Database) -> None:
    """The plan of what a function does, with rows and blocks; the questions are listed; nothing is written."""
    conn = _filled(database, 50)
    listed = explain(database.dsn, "--json").json["items"]
    # What is measured beside a function, with nothing inside.
    assert "bulk: the bare INSERT" not in {item["name"] for item in listed}
    assert {"get_job", "Worker job pickup"} < {item["name"] for item in listed}
    assert "Cleanup old jobs" not in {item["name"] for item in listed}
    ran = explain(database.dsn, "get_job", "--json")
    # A busy machine may take its time to plan.
    assert not [verdict for verdict in ran.json["verdicts"] if "planning" not in verdict]
    assert any("job_queue" in json.dumps(statement["plan"]) for statement in ran.json["statements"])
    text = explain(database.dsn, "user job list").out
    assert "Index" in text and "idx" in text and "blocks" in text
    assert "Nothing to complain of." in text or "planning" in text
    assert "claim_jobs" in explain(database.dsn, "claim_jobs").out
    assert "request_job" in explain(database.dsn, "request_job: created").out
    assert conn.execute("SELECT count(*) FROM job_queue").fetchone() == (50,)
    assert conn.execute("SELECT count(*) FROM streamvibe.claim").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM streamvibe.worker").fetchone() == (0,)


def test_explain_says_what_is_wrong(database: Database) -> None:
    """Without its index a list walks over everybody's jobs: the command says so, and exits 1."""
    conn = _filled(database, 5000)
    conn.execute("DROP INDEX idx_job_queue_user_status_created")
    ran = explain(database.dsn, "get_user_jobs_by_cursor: first", "--json")
    assert ran.status == 1
    assert any("is missing" in verdict for verdict in ran.json["verdicts"]), ran.json["verdicts"]


def test_explain_refuses(database: Database) -> None:
    """What is not a question, what is several, an empty queue, and a role that may not look."""
    assert explain(database.dsn, "get_job").status == 2
    _filled(database, 5)
    for name in ("no such", "get_user"):
        ran = explain(database.dsn, name, "--json")
        assert (ran.status, ran.problem["field"], ran.problem["received"]) == (2, "NAME", name)
    ran = explain(make_conninfo(database.dsn, options="-c role=service_role"), "get_job", "--json")
    assert (ran.status, ran.problem["type"]) == (1, "not-allowed")
