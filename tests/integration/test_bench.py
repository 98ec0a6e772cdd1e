"""``streamvibe bench``: tiny measurements on a real embedded server, through the command, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from streamvibe.bench import plot, systems
from streamvibe.bench.agent import Handled, Spooled
from streamvibe.bench.results import comparison
from streamvibe.bench.stage import percentile
from streamvibe.cli.bench import with_values
from streamvibe.cli.main import run
from streamvibe.config import Settings
from streamvibe.db import embedded

THROUGHPUT = ("bench", "throughput", "--jobs", "200", "--runs", "1", "--window", "1", "--workers", "1,2")


def rows_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in document["rows"]}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_throughput_writes_the_documented_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every measure of ours ends in a row with a unit and its runs; the machine and all versions are named."""
    file = tmp_path / "result.json"
    assert run([*THROUGHPUT, "--json", str(file)]) == 0, capsys.readouterr().err
    document = json.loads(file.read_text())
    machine = document["machine"]
    assert machine["cores"] >= 1 and machine["memory_mib"] > 0 and machine["cpu"] and machine["kernel"]
    assert (machine["postgres"]["fsync"], machine["postgres"]["synchronous_commit"]) == ("on", "on")
    assert machine["postgres"]["server_version"].startswith("18")
    assert document["versions"]["streamvibe"]["streamvibe"]
    rows = rows_of(document)
    assert set(rows) >= {
        *("drain", "worker_memory", "worker_memory_peak", "wal", "wal_without_full_pages"),
        *(
            "enqueue_1",
            "enqueue_10",
            "enqueue_1_asleep",
            "enqueue_10_asleep",
            "notify_cost_1",
            "notify_cost_10",
        ),
        *("bulk", "bulk_2_clients", "bulk_guarded", "bulk_guarded_2_clients", "sustained"),
        *("pinned", "floor_100", "floor_500", "floor_500_2_sessions", "drain_by_floor_100"),
        *("bare_copy", "bare_insert_1", "bare_insert_10"),
        *("drain_1_workers", "drain_2_workers", "fairness_2_workers"),
    }
    for row in rows.values():
        assert row["system"] == "streamvibe" and row["unit"] and len(row["runs"]) == 1
        assert row["value"] == row["runs"][0]
    for measure in ("drain", "enqueue_10", "bulk", "floor_500", "wal", "worker_memory"):
        assert rows[measure]["value"] > 0, measure
    assert rows["wal_without_full_pages"]["value"] <= rows["wal"]["value"]
    assert rows["fairness_1_workers"]["value"] == 1
    assert "drain" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
def test_latency_prints_json_and_leaves_no_database(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json -` prints one document and nothing else; the databases of the cells are gone afterwards."""
    arguments = ["--samples", "20", "--backlog", "1000", "--runs", "2", "--measures", "start,fair"]
    assert run(["bench", "latency", *arguments, "--json", "-"]) == 0, capsys.readouterr().err
    rows = rows_of(json.loads(capsys.readouterr().out))
    assert 0 < rows["start_p50"]["value"] <= rows["start_p99"]["value"]
    assert len(rows["start_p50"]["runs"]) == 2
    assert rows["fair_last_of_999"]["value"] >= 999
    with psycopg.connect(embedded.ensure_running(Settings()).url) as conn:
        left = conn.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE 'streamvibe_bench%'"
        ).fetchall()
    assert left == []


@pytest.mark.usefixtures("home")
def test_cells_are_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --cells a second run takes what the first one measured, unless the sizes are others."""
    cells = tmp_path / "cells.jsonl"
    arguments = [*THROUGHPUT, "--measures", "bare", "--cells", str(cells), "--json", "-"]
    assert run(arguments) == 0
    first = json.loads(capsys.readouterr().out)["rows"]
    assert run(arguments) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["rows"] == first and "1 of 1 were measured before" in again.err
    assert run([*arguments, "--jobs", "300"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] != first
    assert len(cells.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["throughput", "--jobs", "1"], "'--jobs': Input should be greater than or equal to 100"),
        (["throughput", "--runs", "0"], "'--runs': Input should be greater than or equal to 1"),
        (["throughput", "--workers", "1,x"], "Received for --workers: 1,x"),
        (["throughput", "--measures", "speed"], "Received for --measures: speed"),
        (["throughput", "--peers", "nobody"], "Received for --peers: nobody"),
        (["throughput", "--json"], "requires an argument"),
        (["throughput", "--json", "/nowhere/x.json"], "/nowhere/x.json"),
        (["throughput", "--plot", "x.gif"], "End the name in .png or .svg"),
        (["latency", "--backlog", "5"], "'--backlog': Input should be greater than or equal to 1000"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage is exit status 2 and one clear error, before any server is started."""
    monkeypatch.setattr(embedded, "ensure_running", lambda _: pytest.fail("a server was started"))
    assert run(["bench", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_plot_without_matplotlib_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra `bench`, --plot says how to install it, before anything is measured."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert run(["bench", "latency", "--plot", "x.png"]) == 2
    assert "pip install 'streamvibe[bench]'" in capsys.readouterr().err


def test_a_plot_is_written_in_both_formats(tmp_path: Path) -> None:
    """A name without an ending makes a PNG and an SVG; the same document makes the same SVG."""
    row = {
        "system": "streamvibe",
        "measure": "drain",
        "value": 2.0,
        "unit": "jobs/s",
        "runs": [1.0, 2.0, 3.0],
    }
    peer = {**row, "system": "peer", "value": 1.0}
    paths = plot.check_plot(tmp_path / "picture")
    assert [path.name for path in paths] == ["picture.png", "picture.svg"]
    plot.plot({"rows": [row, peer]}, paths)
    first = paths[1].read_bytes()
    plot.plot({"rows": [row, peer]}, paths)
    assert paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes() == first


def test_the_best_of_each_column_is_starred() -> None:
    """The comparison lists the fastest drain first and stars the best value: most jobs, least milliseconds."""
    rows = [
        {"system": system, "measure": measure, "value": value, "unit": "", "runs": [value]}
        for system, measure, value in [
            ("a", "drain", 100.0),
            ("b", "drain", 200.0),
            ("a", "start_p50", 3.0),
            ("b", "start_p50", 5.0),
        ]
    ]
    _, lines = comparison({"rows": rows, "versions": {"a": {"a": "1.0"}}})
    assert [line[:2] for line in lines] == [["b", "200*"], ["a 1.0", "100"]]
    assert [line[4] for line in lines] == ["5.00 / -", "3.00* / -"]


def test_every_peer_says_what_it_needs() -> None:
    """Each adapter file pins the version of its system and is read without being run."""
    names = systems.peer_names()
    assert names == sorted(
        ["absurd", "awa", "celery", "chancy", "dramatiq", "oban", "pgqueuer", "procrastinate", "saq"]
    )
    for name in names:
        peer = systems.read_peer(name)
        assert "==" in peer.requirements[0], name
        assert peer.needs_redis == (name in ("celery", "dramatiq"))


def test_starts_in_child_processes_are_counted_like_ours(tmp_path: Path) -> None:
    """What children note in a file comes out as the same counts, marks, latencies and places."""
    direct, spooled = Handled([2]), Spooled([2], str(tmp_path / "spool"))
    with (tmp_path / "spool").open("ab", buffering=0) as file:
        for number, sent in ((1, 0), (-1, 5), (3, 7)):
            direct(number, sent)
            Spooled.write(file.fileno(), number, sent)
            spooled.look()
        file.write(b"half a record")
    spooled.look()
    assert (spooled.count, list(spooled.positions)) == (direct.count, list(direct.positions)) == (3, [2])
    assert list(spooled.started_at) == list(direct.started_at) == [2]
    assert len(spooled.latencies) == len(direct.latencies) == 2


def test_percentiles_are_values_that_were_measured() -> None:
    """Nearest rank: p50 of four is the second, p99 of a hundred the ninety-ninth, p99 of one that one."""
    assert percentile([4, 1, 3, 2], 50) == 2
    assert percentile(list(range(1, 101)), 99) == 99
    assert (percentile([1, 2, 3], 50), percentile([7], 99)) == (2, 7)


def test_json_takes_a_file_and_peers_may_stand_alone() -> None:
    """--json is bound to the file after it; --peers without names means all of them."""
    assert with_values(["bench", "latency", "--json", "-", "--peers"]) == [
        "bench",
        "latency",
        "--json=-",
        "--peers=all",
    ]
    assert with_values(["--peers", "oban", "--runs", "1"]) == ["--peers=oban", "--runs", "1"]
    assert with_values(["--peers", "--runs", "1"]) == ["--peers=all", "--runs", "1"]
