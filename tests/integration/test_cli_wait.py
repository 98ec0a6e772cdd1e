"""`streamvibe jobs request --wait`: what it says meanwhile, and how it ends."""

import json
import re
import signal
import subprocess

import pytest
from tests.support import hands
from tests.support.cli import USER, Run, command, environment
from tests.support.databases import Database
from tests.support.waiting import wait_until


def start_waiting(database: Database, *options: str) -> subprocess.Popen[str]:
    """`jobs request --wait`, running; returned once its job is there."""
    before = database.fetch_value("SELECT count(*) FROM job_queue")
    waiting = subprocess.Popen(
        command("jobs", "request", "note", "--user", USER, "--wait", *options),
        env=environment(database.dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(
        lambda: database.fetch_value("SELECT count(*) FROM job_queue") == before + 1, "the job's creation"
    )
    return waiting


def test_wait_prints_the_result(run: Run, database18: Database) -> None:
    """--wait prints plain lines of progress on standard error and the result, alone, on standard output."""
    with start_waiting(database18) as waiting:
        hands.complete(database18.dsn, {"total": 3})
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, json.loads(out)) == (0, {"total": 3})
    assert err.splitlines()[0].startswith("created ") and err.splitlines()[-1] == "completed"

    cached = run("jobs", "request", "note", "--user", USER, "--wait", "--json")
    assert (cached.status, cached.err) == (0, "")
    assert (cached.json["outcome"], cached.json["status"], cached.json["result"]) == (
        "cached",
        "completed",
        {"total": 3},
    )


def test_waiting_for_a_job_that_fails_is_exit_1(run: Run, database18: Database) -> None:
    """The job's own message is the reason given."""
    with start_waiting(database18, "--json") as waiting:
        hands.fail(database18.dsn, kind="permanent", message="no such channel")
        out, err = waiting.communicate(timeout=60)
    problem, ended = json.loads(err), json.loads(out)
    assert (waiting.returncode, problem["type"]) == (1, "job-failed")
    assert "no such channel" in problem["title"]
    assert problem["received"] == f"{ended['job_id']} (failed, permanent)"
    assert problem["fix"] == "Mend the cause, then request it again."
    assert ended.pop("completed_at") is not None
    assert ended.pop("job_id") == run("jobs", "list", "--user", USER).lines[0][0]
    assert ended == {
        "outcome": "created",
        "result_age": None,
        "status": "failed",
        "result": None,
        "failure_kind": "permanent",
        "error_message": "no such channel",
    }


def test_the_log_is_named_when_it_has_lines(run: Run, database18: Database) -> None:
    """The error of a job that failed names the command that shows its log, if there is something to see."""
    with start_waiting(database18) as waiting:
        [job] = hands.claim(database18.dsn)
        hands.log(database18.dsn, [job], ("error", "no such channel"))
        hands.fail(database18.dsn, claimed=[job], kind="permanent", message="it broke")
        err = waiting.communicate(timeout=60)[1]
    job_id = run("jobs", "list", "--user", USER).lines[0][0]
    assert err.splitlines()[-2] == f"Job: {job_id} (failed, permanent)"
    assert err.splitlines()[-1] == (
        f"`streamvibe jobs logs {job_id}` says more. Mend the cause, then request it again."
    )


def test_a_job_that_waits_for_its_retry_says_when(run: Run, database18: Database) -> None:
    """`jobs result` and --wait name the time at which a failed job comes back; it can be cancelled meanwhile."""
    with start_waiting(database18) as waiting:
        hands.fail(database18.dsn, retryable=True, retry_after_seconds=3000, message="try later")
        job_id = run("jobs", "list", "--user", USER).lines[0][0]
        found = run("jobs", "result", job_id)
        assert (found.status, found.out) == (1, "")
        assert re.fullmatch(
            r"No result yet: the job is failed, will be retried after 2\S+ \S+Z: try later\n", found.err
        )
        assert run("jobs", "result", job_id, "--json").json["retry_at"].startswith("2")
        lines = waiting.stderr
        assert lines is not None
        wait_until(lambda: "will be retried after 2" in lines.readline(), "it says when")
        cancelled = run("jobs", "cancel", job_id, "--user", USER)
        assert (cancelled.lines, cancelled.err) == ([[job_id, "cancelled", "cancelled"]], "")
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, "will be retried" in err) == (1, "", False)
    assert run("jobs", "result", job_id).err == "No result: the job is cancelled: try later\n"
    assert run("jobs", "result", job_id, "--json").json["retry_at"] is None


def test_waiting_without_a_worker_says_so(
    run: Run, database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A due job whose type no live worker takes: said once, with the command that starts one."""
    monkeypatch.setattr("streamvibe.cli.jobs_wait.NO_WORKER_SECONDS", 0.0)
    waiting = ("jobs", "request", "note", "--user", USER, "--wait", "--timeout", 0.1)
    said = "No live worker takes note: start one with `streamvibe up`"
    assert run(*waiting).err.count(said) == 1
    hint, problem = run(*waiting, "--json").err.splitlines()
    assert said in json.loads(hint)["hint"] and json.loads(problem)["type"] == "wait-timeout"
    assert said not in run(*waiting, "--at", "2030-01-01T00:00Z", "--dedupe-window", 0).err
    database18.connect().execute("SELECT heartbeat_worker('busy', p_job_types => '{note}')")
    assert said not in run(*waiting).err
    database18.connect().execute("SELECT heartbeat_worker('busy', p_job_types => '{other}')")
    assert said in run(*waiting).err


def test_waiting_for_too_long_is_exit_1(run: Run) -> None:
    """What the job is by then goes to standard output with --json; the error says where to look later."""
    late = run("jobs", "request", "note", "--user", USER, "--wait", "--timeout", 0)
    assert (late.status, late.out, "is not finished yet" in late.err) == (1, "", True)
    job_id = run("jobs", "list", "--user", USER).lines[0][0]
    assert f"`streamvibe jobs why {job_id}` says what it waits for." in " ".join(late.err.split())
    as_json = run("jobs", "request", "note", "--user", USER, "--wait", "--timeout", 0, "--json")
    assert (as_json.status, as_json.json["outcome"], as_json.json["status"]) == (1, "joined", "pending")
    problem = json.loads(as_json.err)
    assert (problem["type"], problem["field"], problem["received"]) == ("wait-timeout", "--timeout", "0 s")
    assert f"streamvibe jobs result {as_json.json['job_id']}" in problem["fix"]


def test_an_interrupted_wait_ends_quietly(run: Run, database18: Database) -> None:
    """Ctrl-C while waiting: exit 130, and a line that says that the job goes on, which it does."""
    with start_waiting(database18) as waiting:
        assert waiting.stderr is not None
        first = waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (130, "")
    job_id = first.split()[1]
    assert first.startswith("created ")
    assert err.removeprefix("pending\n") == (
        f"The job goes on; `streamvibe jobs result {job_id}` shows how it ended.\n"
    )
    assert run("jobs", "show", first.split()[1], "--json").json["status"] == "pending"
