"""streamvibe maintain, pause, resume, pauses, and jobs why: what an operator sees."""

import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.cli import USER, Run, command, environment
from tests.support.databases import Database
from tests.support.waiting import wait_until

DUTIES = (
    "SELECT streamvibe.register_duties(streamvibe.lead_maintenance('host-1'),"
    " '{sweep,mend}', '{* * * * *,every 5 seconds}')"
)


def test_maintain_run_and_status(run: Run, database18: Database, tmp_path: Path) -> None:
    """Run in a process of its own, every duty has run in a moment; status and runs show it; Ctrl-C ends it with 0."""
    database18.connect().execute(f"ALTER DATABASE {database18.name} SET TimeZone = 'America/New_York'")
    nobody = run("maintain", "status")
    assert (nobody.status, nobody.out) == (1, "") and "streamvibe up" in nobody.err
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command("maintain", "run"), env=environment(database18.dsn), stdout=log, stderr=log
        ) as process,
    ):
        try:
            wait_until(
                lambda: "new" not in {line[1] for line in run("maintain", "status").lines} != set(),
                "all have run",
            )
            ran = run("maintain", "status")
            assert ran.status == 0, ran.out
            assert {line[0] for line in ran.lines} >= {"recover_stuck_jobs", "drop_old_partitions"}
            led_since = ran.err.partition(" leads since ")[2].strip().rstrip(".")
            assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(led_since) < timedelta(hours=1)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
    assert run("maintain", "status").status == 1
    runs = run("maintain", "runs", "ensure_partitions", "--json").json["items"]
    assert [(item["duty"], item["done"], item["error"]) for item in runs] == [("ensure_partitions", 0, None)]
    assert len(run("maintain", "runs", "--limit", 3).lines) == 3


def test_a_failed_duty_is_seen(run: Run, database18: Database) -> None:
    """Its error, and exit status 1."""
    with database18.connect() as conn:
        conn.execute(DUTIES.encode())
        conn.execute(
            "UPDATE streamvibe.duty SET last_ended_at = now(), last_error = 'it broke' WHERE name = 'mend'"
        )
    ran = run("maintain", "status", "--json")
    assert ran.status == 1
    assert (ran.json["leader_id"], ran.json["leader_is_alive"]) == ("host-1", True)
    [mend, sweep] = ran.json["duties"]
    assert (mend["state"], mend["last_error"], sweep["state"]) == ("failed", "it broke", "new")
    assert run("maintain", "set", "mend", "--disable").status == 0
    assert run("maintain", "status").status == 0


def test_schedules_are_set(run: Run, database18: Database) -> None:
    """A new schedule, off and on again; what cannot be read, or is nothing, is refused by name."""
    with database18.connect() as conn:
        conn.execute(DUTIES.encode())
    assert "30 3 * * *" in run("maintain", "set", "sweep", "--schedule", "30 3 * * *").out
    assert "disabled" in run("maintain", "set", "sweep", "--disable").out
    assert "30 3 * * *" in run("maintain", "set", "sweep", "--enable").out
    assert "* * * * *" in run("maintain", "set", "sweep", "--schedule", "").out
    for options, field in (
        (("sweep", "--schedule", "61 * * * *"), "for --schedule: '61 * * * *'"),
        (("sweep",), "--enable or --disable"),
        (("swept", "--disable"), "for DUTY: swept"),
        (("swept", "--disable"), "`streamvibe maintain status`"),
    ):
        refused = run("maintain", "set", *options)
        assert refused.status == 2 and field in refused.err, refused.err


def test_runs_of_a_duty_that_there_is_not(run: Run, database18: Database) -> None:
    """Refused with those that there are, and no less before there are any; one that never ran has no runs."""
    early = run("maintain", "runs", "swept")
    assert (early.status, early.err.splitlines()[-1]) == (2, "They become known when maintenance first runs.")
    with database18.connect() as conn:
        conn.execute(DUTIES.encode())
    refused = run("maintain", "runs", "swept")
    assert (refused.status, refused.err.splitlines()) == (
        2,
        ["Error: There is no such duty.", "Received for DUTY: swept", "Use one of mend, sweep."],
    )
    assert (run("maintain", "runs", "sweep").status, run("maintain", "runs", "sweep").out) == (0, "")


def test_a_second_maintenance_says_that_another_leads(database18: Database, tmp_path: Path) -> None:
    """`maintain run` beside a leader is no accident that goes unnoticed."""
    with database18.connect() as conn:
        conn.execute("SELECT streamvibe.lead_maintenance('host-1', '1 hour')")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command("maintain", "run"), env=environment(database18.dsn), stdout=log, stderr=log
        )
    try:
        wait_until(lambda: "another_process_leads" in (tmp_path / "log").read_text(), "it says so")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.mark.parametrize("whom", ["type", "user", "all"])
def test_pause_and_resume(run: Run, database18: Database, whom: str) -> None:
    """Paused, it is listed and is why a job waits; resumed, it is neither."""
    option: tuple[object, ...] = {"type": ("--type", "note"), "user": ("--user", USER), "all": ("--all",)}[
        whom
    ]
    job_id = run("jobs", "request", "note", "--user", USER, "--json").json["job_id"]
    assert run("pause", *option, "--reason", "stocktaking").status == 0
    assert "before" in run("pause", *option).out
    [[what, _, reason]] = run("pauses").lines
    assert (what.split()[0], reason) == (
        {"type": "type", "user": "user", "all": "everything"}[whom],
        "stocktaking",
    )
    why = run("jobs", "why", job_id).lines
    assert why[0][0] == "paused" and "stocktaking" in why[0][1]
    assert run("resume", *option).status == 0
    assert "not paused" in run("resume", *option).out
    assert run("pauses", "--json").json == {"items": []}
    assert run("jobs", "why", job_id, "--json").json["items"][0]["reason"] == "no_worker"


def test_what_is_to_be_paused_must_be_clear(run: Run) -> None:
    """None and two of the options are refused; so are an unknown type and a broken id."""
    for options in ((), ("--all", "--type", "note"), ("--user", "x"), ("--type", "fax")):
        refused = run("pause", *options)
        assert refused.status == 2 and "Received for " in refused.err, refused.err


def test_why_of_a_job_that_is_not_there(run: Run) -> None:
    """Exit status 1, naming the id."""
    refused = run("--json", "jobs", "why", uuid4())
    assert (refused.status, refused.problem["code"], refused.problem["field"]) == (1, "SV007", "JOB_ID")
