"""streamvibe archive, and jobs erase: what they print, refuse, and answer."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.integration.archive_kit import objects, old_jobs, switch_on
from tests.integration.worker_kit import Queue, at_work, make_worker
from tests.sql import kit
from tests.support.cli import Run, command, environment
from tests.support.databases import Database

from streamvibe import Context, job_type
from streamvibe.archive import erase_user
from streamvibe.errors import WaitTimeout

SITE = """
import pathlib, sys
for folder in [path for path in sys.path if path.endswith("-packages")]:
    for entry in pathlib.Path(folder).iterdir():
        if not entry.name.lower().startswith(("pyarrow", "obstore", "duckdb", "_duckdb", "fsspec", "__editable__")):
            link = pathlib.Path(sys.argv[1]) / entry.name
            if not link.exists():
                link.symlink_to(entry)
"""


def test_from_set_to_query(run: Run, database18: Database, tmp_path: Path) -> None:
    """Set, run, status, query and off say what they did, and in JSON the same."""
    conn = database18.connect()
    old_jobs(conn)
    url = f"file://{tmp_path}"
    ran = run("archive", "status")
    assert ran.status == 0 and ["url", "-"] in ran.lines and "No archive is set" in ran.err
    ran = run("archive", "set", url)
    assert (ran.status, ran.out) == (0, f"What leaves the queue is kept in {url} from now on.\n")
    assert run("archive", "status", "--json").json["partitions_waiting"] == 1
    ran = run("archive", "run", "--json")
    assert ran.status == 0 and ran.json["rows"] == 10 and ran.json["files"] == 1
    assert all(json.loads(line)["hint"] for line in ran.err.splitlines())
    ran = run("archive", "run")
    assert ran.out == "Archived 0 rows in 0 files.\n" and ran.err.startswith("Nothing was due")
    status = run("archive", "status", "--json").json
    assert {
        name: status[name] for name in ("url", "archiver", "files", "jobs", "lines", "partitions_waiting")
    } == {
        "url": url,
        "archiver": None,
        "files": 1,
        "jobs": 10,
        "lines": 0,
        "partitions_waiting": 0,
    }
    asked = "SELECT status, count(*) AS n, min(expires_at) AS first FROM jobs GROUP BY status ORDER BY n"
    [names, *rows] = run("archive", "query", asked).lines
    assert (names, rows) == (["status", "n", "first"], [["cancelled", "1", "-"], ["completed", "9", "-"]])
    found = run("archive", "query", asked, "--json").json
    assert found["columns"] == ["status", "n", "first"]
    assert found["items"][1] == {"status": "completed", "n": 9, "first": None}
    assert (
        run("archive", "set", "off").out == "The archive is off: from now on what leaves the queue is gone.\n"
    )
    assert run("archive", "query", "SELECT count(*) FROM jobs").lines[1] == ["10"]


def test_what_a_query_may_not(run: Run, database18: Database, tmp_path: Path) -> None:
    """Only one SELECT, of the archive's own tables: nothing is written, no file is read, and the reason is said."""
    switch_on(database18.connect(), tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n")
    for sql in (
        "SELEC 1",
        "SELECT nothing FROM jobs",
        "SELECT * FROM nothing",
        "SELECT 1; SELECT 2",
        "",
        f"COPY jobs TO '{tmp_path}/out.csv'",
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"ATTACH '{tmp_path}/new.db'",
        "CREATE TABLE x AS SELECT 1",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1 / 'x'",
    ):
        ran = run("archive", "query", sql, "--json")
        assert (ran.status, ran.problem["field"]) == (2, "SQL"), sql
        assert ran.problem["title"] and ran.problem["fix"], sql
    assert objects(tmp_path) == {"secret.csv"}


def test_an_empty_archive_can_be_asked(run: Run) -> None:
    """Before anything is archived both tables are there, with all columns."""
    ran = run("archive", "query", "SELECT count(*) FROM jobs")
    assert ran.lines == [["count_star()"], ["0"]] and ran.err.startswith("Nothing is in the archive yet")
    ran = run("archive", "run")
    assert (ran.status, ran.out) == (0, "Archived 0 rows in 0 files.\n")
    assert ran.err.startswith("No archive is set: what leaves the queue is gone.")
    asked = "SELECT max(message) AS m, max(day) AS d FROM logs"
    assert run("archive", "query", asked).lines == [["m", "d"], ["-", "-"]]


def test_times_that_python_does_not_have(run: Run, database18: Database, tmp_path: Path) -> None:
    """Infinity is said as such."""
    conn = database18.connect()
    leaf = old_jobs(conn, rows=1)
    times = "expires_at = 'infinity', scheduled_for = '12000-01-01 00:00+00'"
    conn.execute(f"UPDATE streamvibe.{leaf} SET {times}".encode())
    switch_on(conn, tmp_path)
    assert run("archive", "run").status == 0
    [_, [forever, is_forever, late]] = run(
        "archive", "query", "SELECT expires_at, expires_at = 'infinity'::timestamptz, scheduled_for FROM jobs"
    ).lines
    assert (forever, is_forever) == ("infinity", "True")
    assert late == "316516204800000000 microseconds since 1970"


@pytest.mark.parametrize(
    "url",
    [
        "/srv/archive",
        "FILE:///srv/archive",
        "file:/srv",
        "ftp://x/y",
        "file://host/folder",
        "s3://",
        "s3://bucket?key=secret",
        "x",
        "",
    ],
)
def test_a_place_that_cannot_be_one(run: Run, database18: Database, url: str) -> None:
    """Refused with the field and what to write; nothing changes."""
    ran = run("archive", "set", url)
    assert ran.status == 2 and ran.out == ""
    assert "Received for URL" in ran.err and "file:///folder" in ran.err and "secret" not in ran.err
    assert kit.call_one(database18.connect(), "get_archive")["url"] is None


def test_a_path_is_answered_with_its_url(run: Run, tmp_path: Path) -> None:
    """A folder as a shell has it is most likely what is meant; nothing is guessed, it is said."""
    ran = run("archive", "set", f"{tmp_path}/a b")
    assert ran.status == 2 and f"For this folder: file://{tmp_path}/a%20b" in " ".join(ran.err.split())
    assert f"{Path.home().as_uri()}/archive" in " ".join(run("archive", "set", "~/archive").err.split())


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """It is never made: on another machine it would be another one."""
    ran = run("archive", "set", f"file://{tmp_path}/nothing")
    assert ran.status == 1 and "is not there" in ran.err and not list(tmp_path.iterdir())


def test_off_with_jobs_that_wait(run: Run, database18: Database, tmp_path: Path) -> None:
    """Refused with their number; --discard loses them, and says so; it is not for a place."""
    conn = database18.connect()
    switch_on(conn, tmp_path)
    job = kit.job_id(conn, job_type="note")
    conn.execute(
        "UPDATE public.job_queue SET status = 'completed', completed_at = now() WHERE id = %s", [job]
    )
    assert kit.value(conn, "SELECT streamvibe.delete_jobs(ARRAY[%s])", job) == 1
    ran = run("archive", "set", "off")
    assert ran.status == 2 and "1 jobs wait to be archived" in ran.err and "--discard" in ran.err
    assert run("archive", "set", f"file://{tmp_path}", "--discard").status == 2
    ran = run("archive", "set", "off", "--discard")
    assert ran.status == 0 and "1 jobs that waited to be archived are lost." in ran.out


def test_erase_asks_first(run: Run, database18: Database) -> None:
    """Without a yes nothing happens; an id that is none is refused."""
    user_id = uuid4()
    job = kit.job_id(database18.connect(), user_id, "note")
    refused = run("jobs", "erase", "--user", user_id, stdin="n\n")
    assert refused.status == 1 and refused.err.endswith("Nothing was erased.\n")
    nobody = run("jobs", "erase", "--user", user_id, stdin="")
    assert (
        nobody.status == 2 and "\nError: There is nobody to ask" in nobody.err and "Add --yes" in nobody.err
    )
    assert run("jobs", "show", job).status == 0
    ran = run("jobs", "erase", "--user", "me", "--yes", "--json")
    assert (ran.status, ran.problem["field"], ran.problem["received"]) == (2, "--user", "'me'")
    assert ran.problem["title"] == run("jobs", "list", "--user", "me", "--json").problem["title"]
    ran = run("jobs", "erase", "--user", user_id, stdin="y\n")
    assert (
        ran.status == 0
        and "Erased 1 jobs and 0 log lines" in ran.out
        and "Nothing was ever archived" in ran.out
    )
    assert "Not reached: backups" in ran.err
    assert run("jobs", "show", job).status == 1
    again = run("jobs", "erase", "--user", user_id, "--yes", "--json")
    assert again.json == {"user_id": str(user_id), "jobs": 0, "lines": 0, "archive": False}


async def test_a_running_handler_is_cancelled_and_waited_for(database18: Database) -> None:
    """It is told to stop, what it still logs goes as well; one that does not stop is named."""
    started, stays = asyncio.Event(), asyncio.Event()

    @job_type("stubborn")
    async def stubborn(ctx: Context, params: dict[str, object]) -> None:
        started.set()
        while True:
            try:
                await stays.wait()
                return
            except asyncio.CancelledError:
                ctx.log("still here")

    def erase(patience: float) -> int:
        done = erase_user(database18.dsn, USER, patience=patience, report=lambda step, what: None)
        return done.jobs

    queue = Queue(database18)
    queue.register(stubborn)
    running, waiting = queue.request("stubborn"), queue.request("stubborn")
    async with at_work(make_worker(database18, stubborn, concurrency=1)):
        await started.wait()
        with pytest.raises(WaitTimeout) as caught:
            await asyncio.to_thread(erase, 0)
        assert (
            str(running) in caught.value.message and caught.value.received == str(USER) and caught.value.fix
        )
        assert queue.value("SELECT array_agg(id) FROM job_queue") == [running] != [waiting]
        stays.set()
        assert await asyncio.to_thread(erase, 30) == 1
    for table in ("job_queue", "job_log"):
        assert queue.value(f"SELECT count(*) FROM {table} WHERE user_id = %s", USER) == 0
    assert queue.value("SELECT count(*) FROM recount_stats()") == 0


def test_told_to_end(database18: Database, tmp_path: Path) -> None:
    """SIGTERM ends `archive run`, here while it waits for another process, with a word and without a traceback."""
    conn = database18.connect()
    switch_on(conn, tmp_path)
    assert kit.value(conn, "SELECT streamvibe.lead_archive('operator')")
    with subprocess.Popen(
        command("archive", "run"), env=environment(database18.dsn), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting: another process writes to the archive: operator\n"
        process.terminate()
        assert process.stderr.read() == "Stopped: what was begun is done again by the next run.\n"
    assert process.returncode == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ("archive", "run"),
        ("archive", "set", "s3://other/jobs"),
        ("jobs", "erase", "--yes", "--user", "00000000-0000-4000-8000-000000000009"),
        ("maintain", "run"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_told_to_end_while_a_store_does_not_answer(
    database18: Database, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    """A request that hangs keeps nobody: the process is gone soon, and says what becomes of it."""
    conn = database18.connect()
    kit.call(conn, "set_archive", p_url="s3://bucket/jobs", p_archive_id=uuid4())
    # Something was archived once: it is looked for whom to erase there, and what replaced it was not deleted.
    conn.execute(
        "INSERT INTO streamvibe.archive_file (kind, source, day, url, key, state)"
        " VALUES ('jobs', 'leaf', '2026-01-01', 's3://bucket/jobs', 'old', 'obsolete')"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code = (
            "import streamvibe.cli.leaving; streamvibe.cli.leaving.EXIT_SECONDS = 0.5;"
            f" from streamvibe.cli.main import main; import sys; sys.argv[1:] = {list(arguments)}; main()"
        )
        given = environment(
            database18.dsn,
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_REGION="us-east-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], env=given, stderr=subprocess.PIPE, text=True
        ) as process:
            silent.settimeout(60)
            asked, _ = silent.accept()
            with asked:
                assert asked.recv(1)
                process.send_signal(number)
                try:
                    _, said = process.communicate(timeout=60)
                finally:
                    process.kill()
    assert "Stopped" in said and "Traceback" not in said, said
    assert process.returncode == (0 if arguments[0] == "maintain" else 130)


def test_an_open_transaction_is_waited_for_and_named(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who asks for a job of the user and does not commit: the erasure says so, and later goes on."""
    conn = database18.connect()
    kit.register(conn)
    monkeypatch.setattr(
        "streamvibe.archive.control._LIMITS", "SELECT set_config('lock_timeout', '50ms', true)"
    )
    told: list[str] = []

    def erase() -> int:
        return erase_user(database18.dsn, USER, patience=0, report=lambda step, what: told.append(step)).jobs

    with conn.transaction():
        kit.job_id(conn, USER)
        with pytest.raises(WaitTimeout) as caught:
            erase()
        assert caught.value.received == str(USER) and "pg_locks" in str(caught.value.fix)
    assert erase() == 1


USER = UUID("00000000-0000-4000-8000-000000000001")


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which the packages of the extra are really not installed."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-c", SITE, str(folder)], check=True)
    return folder


def without_extra(site: Path, dsn: str, code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in it."""
    source = Path(__file__).parents[2] / "src"
    start = f"import sys; sys.path[:0] = [{str(site)!r}, {str(source)!r}]\n"
    return subprocess.run(
        [sys.executable, "-S", "-c", start + code],
        env=environment(dsn),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [["set", "file:///tmp"], ["run"], ["query", "SELECT 1"]],
    ids=lambda arguments: str(arguments[0]),
)
def test_without_the_extra(database18: Database, bare_site: Path, arguments: list[str]) -> None:
    """Each command says what to install; the rest of the command line works."""
    code = f"from streamvibe.cli.main import run; sys.exit(run({['archive', *arguments]!r}))"
    ran = without_extra(bare_site, database18.dsn, code)
    assert ran.returncode == 2, ran.stderr
    assert "Received for archive: pyarrow" in ran.stderr and "pip install 'streamvibe[archive]'" in ran.stderr


def test_the_queue_without_the_extra(database18: Database, bare_site: Path, tmp_path: Path) -> None:
    """Status and erasing work; with an archive the duty fails visibly, and nothing is dropped."""
    conn = database18.connect()
    ran = without_extra(
        bare_site,
        database18.dsn,
        "from streamvibe.cli.main import run; assert run(['archive', 'status']) == 0;"
        f" sys.exit(run(['jobs', 'erase', '--yes', '--user', '{uuid4()}']))",
    )
    assert ran.returncode == 0, ran.stderr
    leaf = old_jobs(conn)
    switch_on(conn, tmp_path)
    ran = without_extra(
        bare_site,
        database18.dsn,
        """
import asyncio, psycopg
from datetime import timedelta
from streamvibe.cli.duties import duties
from streamvibe.maintenance import Maintenance

async def main():
    dsn = sys.argv[1] if len(sys.argv) > 1 else __import__("os").environ["STREAMVIBE_DATABASE_URL"]
    maintenance = Maintenance(dsn, duties=duties(dsn), settle=timedelta(0))
    task = asyncio.create_task(maintenance.run())
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        ended = (
            "SELECT count(*) = 2 FROM streamvibe.duty"
            " WHERE name IN ('archive', 'drop_old_partitions') AND last_ended_at IS NOT NULL"
        )
        while not (await (await conn.execute(ended)).fetchone())[0]:
            await asyncio.sleep(0.05)
    maintenance.stop()
    await task

asyncio.run(main())
""",
    )
    assert ran.returncode == 0, ran.stderr
    duties = {row["duty"]: row for row in kit.call(conn, "get_maintenance")}
    assert duties["archive"]["state"] == "failed"
    assert "pip install 'streamvibe[archive]'" in duties["archive"]["last_error"]
    assert (duties["drop_old_partitions"]["last_error"], duties["drop_old_partitions"]["last_done"]) == (
        None,
        0,
    )
    assert kit.query(conn, "SELECT sealed_at FROM streamvibe.partition WHERE partition_name = %s", leaf)
