"""kill -9 of workers in the middle of 200 jobs. Ten runs here; a hundred with kill_workers.py (results/)."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.kill_workers import run
from tests.faults.trial import Trial
from tests.support.databases import Database
from tests.support.servers import Server

RESULTS = Path(__file__).with_name("results") / "kill_workers_100.json"


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11])
def test_every_job_ends_once_however_workers_are_killed(pg18: Server, seed: int) -> None:
    """Starts per job are at most 1 + the kills that hit it, every job ends once, no stale token is accepted."""
    report = run(pg18, seed, 200, longest=0.1)
    assert report.violations == []
    assert report.kills and report.starts >= 200


def test_a_job_that_kills_its_process_takes_no_neighbour_with_it(database18: Database) -> None:
    """It is failed as a crash after its attempts; the others complete, and no attempt is counted against them."""
    report = Trial(database18, seed=7, jobs=30, killers=1, longest=0.1).run(kills=0)
    assert report.violations == []
    with database18.connect() as conn:
        [killer] = conn.execute(
            "SELECT status, failure_kind, retry_count, error_message FROM job_queue WHERE job_type = 'killer'"
        ).fetchall()
        others = conn.execute(
            "SELECT DISTINCT status, retry_count FROM job_queue WHERE job_type NOT IN ('killer', 'flaky')"
        ).fetchall()
    assert killer[:3] == ("failed", "crash", 3) and "died while it ran this job alone" in killer[3]
    assert others == [("completed", 0)]


def test_ctrl_c_ends_the_runs_with_what_they_showed() -> None:
    """The summary of the finished runs, and no traceback; the interrupted one does not count."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_workers.py")), "--runs", "1000", "--jobs", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as runs:
        assert runs.stdout is not None
        assert runs.stdout.readline().startswith("run 1: ")
        runs.send_signal(signal.SIGINT)
        out, err = runs.communicate(timeout=120)
    assert (runs.returncode, err) == (130, "")
    finished = 1 + sum(line.startswith("run ") for line in out.splitlines())
    assert re.search(rf"^runs +{finished}$", out, re.MULTILINE), out


def test_the_recorded_hundred_runs_held_every_promise() -> None:
    """The committed result is of 100 runs of 200 jobs, with kills at every phase and not one violation."""
    runs = json.loads(RESULTS.read_text())["runs"]
    assert len(runs) == 100
    assert {report["jobs"] for report in runs} == {200}
    assert not [violation for report in runs for violation in report["violations"]]
    assert sum(report["stale_tried"] for report in runs) > 10_000
    assert sum(report["stale_accepted"] for report in runs) == 0
    landed = {kill["phase"] for report in runs for kill in report["kills"]}
    assert {"lock", "claim", "handler", "completion", "itself"} <= landed
