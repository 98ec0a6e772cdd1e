"""`streamvibe jobs ...`, `streamvibe stats` and `streamvibe workers`."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo
from tests.support import hands
from tests.support.cli import USER, Run, streamvibe
from tests.support.databases import Database


def request(run: Run, params: str = "{}", *options: object) -> str:
    """Request a note; its id."""
    ran = run("jobs", "request", "note", "--user", USER, "--params", params, "--json", *options)
    assert ran.status == 0, ran.err
    job_id = ran.json["job_id"]
    assert isinstance(job_id, str)
    return job_id


def test_request_prints_the_outcome(run: Run, database18: Database) -> None:
    """created, joined, cached, and created again with --force; as lines and as JSON."""
    asked = run("jobs", "request", "note", "--user", USER, "--params", '{"a": 1}')
    assert (asked.status, asked.err) == (0, "")
    assert [line[0] for line in asked.lines] == ["outcome", "job_id", "status"]
    assert (asked.lines[0][1], asked.lines[2][1]) == ("created", "pending")
    joined = run("jobs", "request", "note", "--user", USER, "--params", '{"a": 1}', "--json")
    assert joined.json == {
        "outcome": "joined",
        "job_id": asked.lines[1][1],
        "status": "pending",
        "result": None,
        "result_age": None,
        "scheduled_for": run("jobs", "show", asked.lines[1][1], "--json").json["scheduled_for"],
    }
    hands.complete(database18.dsn, {"b": 2})
    cached = run("--json", "jobs", "request", "note", "--user", USER, "--params", '{"a": 1}').json
    assert (cached["outcome"], cached["status"], cached["result"]) == ("cached", "completed", {"b": 2})
    assert isinstance(cached["result_age"], float) and cached["scheduled_for"] is None
    cached_lines = run("jobs", "request", "note", "--user", USER, "--params", '{"a": 1}').lines
    assert cached_lines[-1] == ["result", '{"b": 2}']
    forced = run("jobs", "request", "note", "--user", USER, "--params", '{"a": 1}', "--force", "--json").json
    assert forced["outcome"] == "created"


def test_a_job_that_is_due_later_is_shown_so(run: Run) -> None:
    """The time a job is due is printed while it is ahead: when it is requested or joined, and in lists."""
    options = ("jobs", "request", "note", "--user", USER)
    for outcome in ("created", "joined"):
        lines = run(*options, "--at", "2030-01-01T00:00Z").lines
        assert (lines[0][1], lines[-1]) == (outcome, ["scheduled_for", "2030-01-01 00:00:00Z"])
    [listed] = run("jobs", "list", "--user", USER).lines
    assert listed[-1] == "due at 2030-01-01 00:00:00Z"
    assert run(*options).lines[0][1] == "created"
    [now, _] = run("jobs", "list", "--user", USER).lines
    assert now[-1] == "-"


def test_the_dedupe_window_can_be_given(run: Run) -> None:
    """--dedupe-window 0 never joins; --force alone still does."""
    first = request(run)
    assert request(run, "{}", "--force") == first
    assert request(run, "{}", "--dedupe-window", 0) != first
    assert request(run, "{}", "--dedupe-window", 3600) == first


def test_request_takes_every_option(run: Run, tmp_path: Path) -> None:
    """Params from a file and from standard input, a priority, a time and a key arrive at the job."""
    (tmp_path / "params.json").write_text('{"from": "file"}')
    later = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    job_id = request(
        run,
        f"@{tmp_path / 'params.json'}",
        *("--priority", 9, "--at", later.isoformat(), "--idempotency-key", "once"),
    )
    job = run("jobs", "show", job_id, "--json").json
    assert job["params"] == {"from": "file"}
    assert (job["job_priority"], job["idempotency_key"]) == (9, "once")
    assert job["scheduled_for"] == later.isoformat().replace("+00:00", "Z")
    assert request(run, '{"from": "file"}', "--idempotency-key", "once") == job_id

    asked = run(
        "jobs", "request", "note", "--user", USER, "--params", "-", "--json", stdin='{"from": "pipe"}'
    )
    assert run("jobs", "show", asked.json["job_id"], "--json").json["params"] == {"from": "pipe"}


@pytest.mark.parametrize(
    ("params", "says", "received"),
    [
        ('{"a": }', "--params is not JSON: Expecting value, at line 1, column 7", '{"a": }'),
        ("", "--params is not JSON: Expecting value, at line 1, column 1", ""),
        (
            '{"a": {"b": 1, "c": 2, "b": 3}}',
            '--params has "b" twice in one object',
            "1 and 3",
        ),
        ("[1]", "--params is not a JSON object", "[1]"),
        ('{"a": NaN}', "--params cannot be read: JSON has no number NaN", '{"a": NaN}'),
        ("[" * 100_000, "--params cannot be read: ", "[" * 60),
        ('{"a": ["\\u0000"]}', "PostgreSQL text cannot hold the character U+0000", r"'\x00'"),
        ('{"a": "\\ud800"}', "The text holds a lone surrogate", r"'\ud800'"),
        ("@/no/such/file", "--params names a file that cannot be read (No such file or directory)", None),
    ],
)
def test_malformed_params_are_located(run: Run, params: str, says: str, received: str | None) -> None:
    """The error names the option, the position, the text received and the fix; nothing is written; exit 2."""
    options = ("jobs", "request", "note", "--user", USER, "--params")
    ran = run(*options, params, "--json")
    assert ran.status == 2
    assert ran.problem["title"].startswith(says)
    assert ran.problem["received"] == (params if received is None else received)
    assert ran.problem["field"] in ("--params", "params.a", "params.a[0]")
    assert ran.problem["fix"]
    lines = run(*options, params).err.splitlines()
    assert lines[0].startswith(f"Error: {says[:1].upper()}{says[1:]}")
    assert (lines[1].startswith("Received for "), len(lines)) == (True, 3)
    assert run("stats", "--json").json["total_jobs"] == 0
    assert run("stats", "--recount", "--type", "note").status == 2


def test_params_from_a_file_that_is_not_text(run: Run, tmp_path: Path) -> None:
    """A binary file is refused with the place of its first bad byte."""
    (tmp_path / "binary").write_bytes(b'{"a": \xff}')
    ran = run("jobs", "request", "note", "--user", USER, "--params", f"@{tmp_path / 'binary'}")
    assert (ran.status, ran.err.splitlines()[0]) == (2, "Error: --params is not UTF-8 text, at byte 7.")


def test_too_large_params_are_refused(run: Run) -> None:
    """Params over 1 MiB: exit 2, with their size and the way out."""
    text = json.dumps({"a": "x" * 1048576})
    ran = run("jobs", "request", "note", "--user", USER, "--params", "-", "--json", stdin=text)
    assert (ran.status, ran.problem["code"], ran.problem["received"]) == (2, "SV003", "1048585 bytes")
    assert "1048576" in ran.problem["fix"]


BAD_CURSOR = "v1" + "A" * 28


@pytest.mark.parametrize(
    ("arguments", "status", "code", "received"),
    [
        (("request", "nope", "--user", USER), 2, "SV002", "nope"),
        (("request", "note", "--user", "me"), 2, "SV001", "'me'"),
        (("request", "note", "--user", USER, "--priority", 10), 2, "SV001", "10"),
        (("request", "note", "--user", USER, "--priority", 2**40), 2, "SV001", str(2**40)),
        (("request", "note", "--user", USER, "--at", "tomorrow"), 2, "SV001", "tomorrow"),
        (("request", "note", "--user", USER, "--at", "2030-01-01T00:00"), 2, "SV001", "2030-01-01T00:00"),
        (("request", "note", "--user", USER, "--idempotency-key", ""), 2, "SV001", ""),
        (("list", "--user", USER, "--status", "done"), 2, "SV001", "done"),
        (("list", "--user", USER, "--type", "nope"), 2, "SV002", "nope"),
        (("list", "--user", USER, "--type", "nope", "--page", 1), 2, "SV002", "nope"),
        (("list", "--user", USER, "--type", "nope", "--bucket", "day"), 2, "SV002", "nope"),
        (("search", "--params", '{"a": 1}', "--type", "nope"), 2, "SV002", "nope"),
        (("list", "--user", USER, "--order-by", "params"), 2, "SV001", "params"),
        (("list", "--user", USER, "--order-dir", "up"), 2, "SV001", "up"),
        (("list", "--user", USER, "--limit", 0), 2, "SV001", "0"),
        (("list", "--user", USER, "--limit", 10_000_000), 2, "SV001", "10000000"),
        (("list", "--user", USER, "--page", 0), 2, "SV001", "0"),
        (("list", "--user", USER, "--page", 22), 2, "SV015", "page 22 of 50 jobs each"),
        (("list", "--user", USER, "--page", 2**62), 2, "SV015", f"page {2**62} of 50 jobs each"),
        (("list", "--user", USER, "--cursor", "next"), 2, "SV014", "next"),
        (("list", "--user", USER, "--cursor", BAD_CURSOR), 2, "SV014", BAD_CURSOR),
        (("list", "--user", USER, "--cursor", "x", "--page", 1), 2, "SV001", "x"),
        (("logs", USER, "--level", "loud"), 2, "SV001", "loud"),
        (("logs", USER, "--limit", 0), 2, "SV001", "0"),
        (("logs", USER, "--cursor", BAD_CURSOR), 2, "SV014", BAD_CURSOR),
        (("logs", USER), 1, "SV007", str(USER)),
        (("show", USER), 1, "SV007", str(USER)),
        (("show", "7"), 2, "SV001", "'7'"),
        (("result", USER), 1, "SV007", str(USER)),
        (("cancel", "x", "--user", USER), 2, "SV001", "'x'"),
    ],
)
def test_bad_values_name_the_field_the_value_and_the_fix(
    run: Run, arguments: tuple[object, ...], status: int, code: str, received: str
) -> None:
    """Every bad value ends with its own code and exit status, with --json as one problem object."""
    ran = run("jobs", *arguments, "--json")
    assert (ran.status, ran.problem["code"], ran.problem["received"]) == (status, code, received)
    assert ran.problem["field"] and ran.problem["fix"] and ran.problem["title"]
    words = " ".join(str(ran.problem[name]) for name in ("title", "field", "fix"))
    assert not re.search(r"\bp_|NULL|SELECT|_by_cursor", words), words


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        (("request", "nope", "--user", USER), "job_type", "streamvibe worker --app yourapp.jobs"),
        (("request", "note", "--user", "me"), "--user", "--user is not a UUID"),
        (("list", "--user", USER, "--limit", 0), "--limit", "--limit is out of range"),
        (("list", "--user", USER, "--status", "done"), "--status", "leave --status out for all"),
        (("list", "--user", USER, "--page", 22), "--page", "pass the --cursor it prints"),
        (("list", "--user", USER, "--page", 22), "--page", "numbers end at 21"),
        (("request", "note", "--user", USER, "--at", "2030-01-31T25:00Z"), "--at", "--at is not a time. "),
        (("request", "note", "--user", USER, "--at", "2030-01-31T05:00"), "--at", "--at has no time zone"),
        (("search", "--params", "{}"), "--params", "`streamvibe jobs list` lists all"),
        (("cancel", "x", "--user", USER), "JOB_IDS", "is not a UUID"),
        (("show", "x"), "JOB_ID", "is not a UUID"),
        (("list", "--user", USER, "--cursor", "x"), "--cursor", "leave --cursor out for the first page"),
        (("list", "--user", USER, "--order-by", "params"), "--order-by", "--order-by is unknown"),
        (("logs", USER, "--level", "loud"), "--level", "leave --level out for all"),
    ],
)
def test_errors_name_options(run: Run, arguments: tuple[object, ...], field: str, words: str) -> None:
    """What SQL or Python calls a parameter is called by its option, and the fix is something one can type."""
    problem = run("jobs", *arguments, "--json").problem
    assert problem["field"] == field
    assert words in f"{problem['title']}. {problem['fix']}"


def test_list_pages_by_cursor_and_by_number(run: Run, database18: Database) -> None:
    """Each job is listed once, newest first; the hints lead on; other users' jobs are not there."""
    made = [request(run, json.dumps({"n": n}), "--priority", n) for n in range(5)]
    request(run, '{"n": 9}')
    other = run("jobs", "request", "note", "--user", uuid4(), "--json").json["job_id"]
    first = run("jobs", "list", "--user", USER, "--limit", 4)
    assert [len(line) for line in first.lines] == [7] * 4
    assert first.lines[0][1:4] == ["note", "pending", "5"]
    cursor = first.err.removeprefix("More: --cursor ").strip()
    rest = run("jobs", "list", "--user", USER, "--limit", 4, "--cursor", cursor)
    listed = [line[0] for line in first.lines + rest.lines]
    assert (listed[1:], rest.err) == (made[::-1], "")
    assert other not in listed

    page = run("jobs", "list", "--user", USER, "--limit", 4, "--page", 2)
    assert [line[0] for line in page.lines] == listed[4:]
    assert page.err == "Page 2 of 2, 6 jobs in all.\n"
    beyond = run("jobs", "list", "--user", USER, "--limit", 4, "--page", 9)
    assert (beyond.status, beyond.lines, "There is no page 9" in beyond.err) == (0, [], True)
    ordered = run(
        *("jobs", "list", "--user", USER, "--order-by", "job_priority", "--order-dir", "asc", "--json")
    ).json
    assert [job["job_priority"] for job in ordered["items"]] == [0, 1, 2, 3, 4, 5]
    assert (ordered["total_count"], ordered["has_more"], ordered["next_cursor"]) == (6, False, None)
    database18.connect().execute("SELECT register_job_type('other')")
    filtered = run("jobs", "list", "--user", USER, "--status", "pending", "--type", "other", "--json").json
    assert filtered == {
        "items": [],
        "next_cursor": None,
        "has_more": False,
        "total_count": None,
        "total_age": None,
        "start": None,
        "end": None,
    }


@pytest.mark.parametrize("pages", [(), ("--page", 1), ("--bucket", "day")], ids=["cursor", "page", "bucket"])
def test_an_unknown_type_is_an_empty_page_to_a_user(
    run: Run, database18: Database, pages: tuple[object, ...]
) -> None:
    """Which types there are is only the service's to ask: whoever is signed in sees their jobs, or none; no error."""
    request(run)
    claims = f'{{"sub":"{USER}"}}'
    dsn = make_conninfo(database18.dsn, options=f"-c role=authenticated -c request.jwt.claims={claims}")
    listed = ("jobs", "list", "--user", USER, *pages, "--json", "--type")
    assert len(streamvibe(dsn, *listed, "note").json["items"]) == 1
    ran = streamvibe(dsn, *listed, "nope")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["items"] == []
    assert run(*listed, "nope").problem["code"] == "SV002"


def test_list_by_bucket(run: Run) -> None:
    """The present day's jobs, with its bounds and total; the day before is empty, and says which it was."""
    made = [request(run, json.dumps({"n": n})) for n in range(3)]
    first = run("jobs", "list", "--user", USER, "--bucket", "day", "--limit", 2)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    assert [line[0] for line in first.lines] == made[:0:-1]
    below, more = first.err.splitlines()
    assert below == f"The day from {day} 00:00 UTC: 3 jobs."
    cursor = more.removeprefix("More: --cursor ")
    rest = run("jobs", "list", "--user", USER, "--bucket", "day", "--limit", 2, "--cursor", cursor)
    assert [line[0] for line in rest.lines] == made[:1]
    before = run(
        *(
            "jobs",
            "list",
            "--user",
            USER,
            "--bucket",
            "day",
            "--page",
            2,
            "--time-zone",
            "Asia/Tokyo",
            "--json",
        )
    ).json
    assert (before["items"], before["total_count"], before["total_age"]) == ([], 0, 0)
    assert before["end"].endswith("T15:00:00Z")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--bucket", "year"), "--bucket"),
        (("--bucket", "day", "--page", 0), "--page"),
        (("--bucket", "day", "--page", 1001), "--page"),
        (("--bucket", "day", "--time-zone", "Mars"), "--time-zone"),
        (("--time-zone", "UTC"), "--time-zone"),
        (("--bucket", "day", "--order-by", "created_at"), "--bucket"),
        (("--page", 2, "--cursor", "x"), "--cursor"),
    ],
)
def test_list_options_that_contradict(run: Run, options: tuple[object, ...], field: str) -> None:
    """Each is named, before anything is listed."""
    ran = run("jobs", "list", "--user", USER, *options, "--json")
    assert (ran.status, ran.problem["field"]) == (2, field)
    assert ran.problem["fix"]


def test_search_finds_jobs_and_lines(run: Run, database18: Database) -> None:
    """Jobs by params and result, lines of all jobs by words and metadata; pages lead on; nothing found is said so."""
    made = [request(run, json.dumps({"n": n, "kind": "x"})) for n in range(3)]
    first = run("jobs", "search", "--params", '{"kind": "x"}', "--limit", 2)
    assert [line[0] for line in first.lines] == made[:0:-1]
    cursor = first.err.removeprefix("More: --cursor ").strip()
    rest = run("jobs", "search", "--params", '{"kind": "x"}', "--limit", 2, "--cursor", cursor, "--json").json
    assert ([job["id"] for job in rest["items"]], rest["has_more"]) == (made[:1], False)
    claimed = hands.claim(database18.dsn)
    hands.log(database18.dsn, claimed, ("info", "fetching, within the quota"), ("error", "quota exceeded"))
    last = request(run, '{"kind": "y"}')
    hands.complete(database18.dsn, {"followers": 7, "ok": True})
    assert [line[0] for line in run("jobs", "search", "--result", '{"followers": 7}').lines] == [last]
    found = run("logs", "search", "quotas", "--user", USER, "--level", "error")
    assert [line[2:4] for line in found.lines] == [["error", "**quota** exceeded"]]
    assert run("logs", "search", "--since", "2999-01-01T00:00Z", "--json").json["items"] == []
    assert len(run("logs", "search", "--job", str(claimed[0][1])).lines) == 2
    assert run("logs", "search", "--metadata", '{"a": 1}').lines == []
    for words in (("quota", "exceeded"), ("--", "quota", "-fetching")):
        assert [line[3] for line in run("logs", "search", *words).lines] == [
            "**quota** **exceeded**" if len(words) == 2 else "**quota** exceeded"
        ]


def test_a_search_for_nothing_says_what_it_needs(run: Run) -> None:
    """In the words of the command line, with where to look for what it is not for; the help says so before."""
    ran = run("jobs", "search", "--type", "note")
    assert (ran.status, ran.err.splitlines()[0]) == (2, "Error: There is nothing to look for.")
    assert "--params" in ran.err and "streamvibe jobs list --user" in ran.err
    assert "NULL" not in ran.err and "list_by_cursor" not in ran.err
    assert "Needs --params, --result or both" in " ".join(run("jobs", "search", "--help").out.split())


def test_what_a_completed_job_said_of_its_progress_is_not_listed(run: Run, database18: Database) -> None:
    """The last message of a job that runs is what happens; that of one that is done is old."""
    request(run)
    [(token, job)] = hands.claim(database18.dsn)
    with database18.connect() as conn:
        conn.execute("UPDATE job_queue SET progress = 0.5, progress_message = 'half way'")
        assert run("jobs", "list", "--user", USER).lines[0][-1] == "half way"
        conn.execute(
            "SELECT complete_jobs(%s, %s::bigint[], %s::uuid[], '{1}'::jsonb[])",
            [hands.WORKER, [token], [job]],
        )
    assert run("jobs", "list", "--user", USER).lines[0][-1] == "-"


def test_error_rates_come_shortest_first(run: Run) -> None:
    """The last hour, day, and seven days."""
    names = [name for name, _ in run("stats").lines if name.startswith("error_rate, last")]
    assert names == ["error_rate, last 1 hour", "error_rate, last 1 day", "error_rate, last 7 days"]


def test_whose_job_it_may_be_is_said_only_when_a_user_was_named(run: Run) -> None:
    """Without --user everybody's jobs are looked at."""
    for command in (("show",), ("why",), ("result",)):
        assert run("jobs", *command, uuid4()).err.splitlines()[-1] == "Check the id."
        assert "only their own" in run("jobs", *command, uuid4(), "--user", USER).err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("jobs", "search"), "--params"),
        (("jobs", "search", "--params", "{}"), "--params"),
        (("jobs", "search", "--result", "nonsense"), "--result"),
        (("logs", "search", "the"), "WORDS"),
        (("logs", "search", "--metadata", "[]"), "--metadata"),
        (("logs", "search", "--since", "yesterday"), "--since"),
        (("logs", "search", "--since", "2020-01-02T00:00Z", "--until", "2020-01-01T00:00Z"), "--until"),
        (("logs", "search", "--job", "nonsense"), "--job"),
        (("logs", "search", "--cursor", "x"), "--cursor"),
    ],
)
def test_searches_that_are_refused(run: Run, arguments: tuple[object, ...], field: str) -> None:
    """The option is named, and what to do."""
    ran = run(*arguments, "--json")
    assert (ran.status, ran.problem["field"], bool(ran.problem["fix"])) == (2, field, True)


def test_show_result_and_logs_follow_the_job(run: Run, database18: Database) -> None:
    """A job is shown at each state; result is 1 until there is one; another user's job is not there."""
    job_id = request(run, '{"n": 1}')
    early = run("jobs", "result", job_id)
    assert (early.status, early.out, early.err) == (1, "", "No result yet: the job is pending\n")
    hands.log(database18.dsn, hands.claim(database18.dsn), ("info", "first\tline"), ("error", "second"))
    assert dict(run("jobs", "show", job_id).lines)["status"] == "processing"

    page = run("jobs", "logs", job_id, "--limit", 1)
    assert page.lines[0][1:3] == ["error", "second"]
    cursor = page.err.removeprefix("More: --cursor ").strip()
    [line] = run("jobs", "logs", job_id, "--limit", 1, "--cursor", cursor).lines
    assert line[1:3] == ["info", "first line"]
    logged = run("jobs", "logs", job_id, "--level", "info", "--json").json
    assert [item["message"] for item in logged["items"]] == ["first\tline"]
    assert run("jobs", "logs", job_id, "--user", uuid4()).status == 1

    done = request(run, '{"n": 2}')
    hands.complete(database18.dsn, {"total": 3})
    found = run("jobs", "result", done)
    assert (found.status, found.json) == (0, {"total": 3})
    full = run("jobs", "result", done, "--json").json
    assert (full["job_id"], full["status"], full["result"]) == (done, "completed", {"total": 3})
    assert run("jobs", "result", done, "--user", uuid4()).status == 1
    assert run("jobs", "show", done, "--user", uuid4()).status == 1
    assert run("jobs", "show", done, "--user", USER).status == 0


def test_cancel_and_retry_report_each_job(run: Run, database18: Database) -> None:
    """A line per job; exit 1 when one was not found, or not retried."""
    first, second = request(run, '{"n": 1}'), request(run, '{"n": 2}')
    cancelled = run("jobs", "cancel", first, "--user", USER)
    assert (cancelled.status, cancelled.lines) == (0, [[first, "cancelled", "cancelled"]])
    foreign = run("jobs", "cancel", second, "--user", uuid4(), "--json")
    assert foreign.status == 1
    assert foreign.json == {"items": [{"job_id": second, "outcome": "not_found", "status": None}]}
    assert run("jobs", "cancel", first, second, "--user", USER).status == 0

    third = request(run, '{"n": 3}')
    hands.fail(database18.dsn, retryable=True, retry_after_seconds=3000, message="try later")
    listed = run("jobs", "list", "--user", USER, "--status", "failed").lines
    assert listed[0][6].startswith("retried after 2") and listed[0][6].endswith("try later")
    assert run("jobs", "retry", third, "--user", USER).lines == [[third, "retried", "pending"]]
    again = run("jobs", "retry", third, "--user", USER)
    assert (again.status, again.lines) == (1, [[third, "not_failed", "pending"]])
    assert again.err == "not_failed: only a failed job can be retried\n"
    assert run("jobs", "cancel", third, "--user", USER).err == ""
    assert "check the id" in run("jobs", "cancel", third, "--user", uuid4()).err


def test_a_failure_for_good_says_to_request_it_again(run: Run, database18: Database) -> None:
    """Jobs that cannot be retried: a line per outcome on standard error says what to do."""
    jobs = [request(run, json.dumps({"n": n})) for n in range(2)]
    hands.fail(database18.dsn, kind="permanent", message="no such channel")
    ran = run("jobs", "retry", *jobs, "--user", USER)
    assert (ran.status, [line[1] for line in ran.lines]) == (1, ["not_retryable"] * 2)
    assert ran.err == (
        "not_retryable: trying again would fail again: mend the cause, then request it again\n"
    )


def test_the_limit_is_exit_1(run: Run) -> None:
    """The eleventh live job is refused with the user, the limit and the way out."""
    for number in range(10):
        request(run, json.dumps({"n": number}))
    ran = run("jobs", "request", "note", "--user", USER, "--json")
    assert (ran.status, ran.problem["type"], ran.problem["status"]) == (1, "limit-reached", 429)
    assert "10 in all" in ran.problem["fix"] and f"SELECT set_user_limit('{USER}', 20)." in ran.problem["fix"]


def test_stats_count_the_queue(run: Run, database18: Database) -> None:
    """Totals, then a line per job type; the same as JSON."""
    request(run, '{"n": 1}')
    hands.complete(database18.dsn, {})
    request(run, '{"n": 2}')
    lines = run("stats").lines
    assert lines[:4] == [
        ["total_jobs", "2"],
        ["pending_jobs", "1"],
        ["processing_jobs", "0"],
        ["completed_jobs", "1"],
    ]
    assert lines[-2:] == [
        ["job type", "pending", "processing", "completed", "failed", "cancelled"],
        ["note", "1", "0", "1", "0", "0"],
    ]
    assert ["error_rate, last 1 hour", "0.0%"] in lines
    stats = run("stats", "--json").json
    assert (stats["total_jobs"], stats["jobs_by_type"]) == (2, {"note": {"pending": 1, "completed": 1}})
    assert run("stats", "--since", "2100-01-01T00:00Z", "--json").json["total_jobs"] == 0
    assert run("stats", "--type", "note", "--json").json["completed_jobs"] == 1
    assert run("stats", "--type", "typo").status == 2


def test_stats_are_recounted(run: Run, database18: Database) -> None:
    """What was deleted past the functions is named, and counted no more."""
    request(run, '{"n": 1}')
    assert run("stats", "--recount").out == ""
    database18.connect().execute("DELETE FROM job_queue")
    assert run("stats", "--recount").lines == [
        ["job type", "status", "was", "is"],
        ["note", "pending", "1", "0"],
    ]
    assert run("stats", "--recount", "--json").json == {"items": []}
    assert run("stats", "--json").json["total_jobs"] == 0
    assert run("stats", "--recount", "--type", "note").status == 2


def test_workers_are_listed(run: Run, database18: Database) -> None:
    """A line per worker: alive or dead, what it holds, what it takes; the same as JSON."""
    assert (run("workers").out, run("workers", "--json").json) == ("", {"items": []})
    database18.connect().execute("SELECT heartbeat_worker('all')")
    database18.connect().execute("SELECT heartbeat_worker('some', p_job_types => '{note,other}')")
    database18.fetch_value(
        "WITH died AS (UPDATE streamvibe.worker SET heartbeat_at = heartbeat_at - interval '1 day'"
        " WHERE id = 'all' RETURNING 1) SELECT count(*) FROM died"
    )
    assert [line[:4] for line in run("workers").lines] == [
        ["all", "dead", "0", "every type"],
        ["some", "alive", "0", "note, other"],
    ]
    items = run("workers", "--json").json["items"]
    assert [(item["worker_id"], item["job_types"]) for item in items] == [
        ("all", None),
        ("some", ["note", "other"]),
    ]
