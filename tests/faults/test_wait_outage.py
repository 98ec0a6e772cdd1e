"""The database goes away while somebody waits for a job: the wait goes on and says so."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.support import hands
from tests.support.cli import command, environment
from tests.support.databases import TEMPLATE, Database, make_template, new_database
from tests.support.servers import Server, pg18_bin, running
from tests.support.waiting import wait_until

from streamvibe import Client, SyncClient
from streamvibe.client import shared
from streamvibe.client.shared import Waiting
from streamvibe.errors import DatabaseUnreachable

USER = UUID("018f0000-0000-7000-8000-000000000001")


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server of the module's own, which is killed and started again."""
    with running("mortal", pg18_bin()) as server:
        make_template(server)
        yield server


@pytest.fixture
def database(mortal: Server) -> Iterator[Database]:
    """A database on it that knows the job type note."""
    with new_database(mortal, TEMPLATE) as clone:
        with psycopg.connect(clone.dsn, autocommit=True) as conn:
            conn.execute("SELECT register_job_type('note')")
        yield clone


@contextlib.contextmanager
def waiting_command(database: Database, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """`jobs request --wait`, which would wait for ever if the test fails."""
    with subprocess.Popen(
        command("jobs", "request", "note", "--user", USER, "--wait", *options),
        env=environment(database.dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        try:
            yield waiting
        finally:
            waiting.kill()


def test_a_wait_outlasts_an_outage(
    mortal: Server, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """SyncClient.wait goes on as soon as the database is back, however often it was looked for; the pool is quiet."""
    looks: list[DatabaseUnreachable] = []
    looked = threading.Event()
    ended: list[object] = []
    with SyncClient(database.dsn, max_size=1) as client:
        asked = client.request("note", user_id=USER)

        def wait() -> None:
            done = client.wait(asked, on_look=lambda job: looked.set(), on_away=looks.append)
            ended.append(done.result)

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert looked.wait(30)
        mortal.crash()
        # The pool's own pauses would have become so long by then that nobody waits for them.
        wait_until(lambda: len(looks) >= 4, "the database is missed")
        mortal.restart()
        hands.complete(database.dsn, {"total": 3})
        waiting.join(30)
    assert ended == [{"total": 3}]
    assert {error.field for error in looks} == {"database_url"}
    assert not [line for line in caplog.messages if "error connecting" in line]


async def test_the_asynchronous_one_does_too(mortal: Server, database: Database) -> None:
    """Client.wait, beside other calls of the same client, which fail meanwhile with the true reason."""
    looks: list[DatabaseUnreachable] = []
    async with Client(database.dsn, max_size=2, pool_timeout=1.5) as client:
        asked = await client.request("note", user_id=USER)
        looked = asyncio.Event()
        waiting = asyncio.create_task(
            client.wait(asked, on_look=lambda job: looked.set(), on_away=looks.append)
        )
        await asyncio.wait_for(looked.wait(), 30)
        await asyncio.to_thread(mortal.crash)
        await asyncio.to_thread(wait_until, lambda: bool(looks), "the database is missed")
        with pytest.raises(DatabaseUnreachable) as caught:
            await client.stats()
        assert caught.value.field == "database_url"
        await asyncio.to_thread(mortal.restart)
        await asyncio.to_thread(hands.complete, database.dsn, {"total": 3})
        assert (await waiting).result == {"total": 3}
        assert (await client.stats()).total_jobs == 1


def test_a_wait_ends_at_its_timeout_all_the_same(mortal: Server, database: Database) -> None:
    """While the database is away nobody knows how the job stands: its absence is the error, not the job's."""
    with SyncClient(database.dsn, max_size=1) as client:
        asked = client.request("note", user_id=USER)
        mortal.crash()
        try:
            with pytest.raises(DatabaseUnreachable) as caught:
                client.wait(asked, timeout=0.3)
        finally:
            mortal.restart()
    assert caught.value.field == "database_url"
    assert caught.value.__notes__ == [f"Waited 0.3 s for job {asked.job_id}, which may go on."]


def test_a_database_that_was_never_there_is_not_waited_for() -> None:
    """A wrong URL is an error at once, also without a timeout."""
    with pytest.raises(DatabaseUnreachable):
        SyncClient("postgresql:///app?host=/nowhere").wait(uuid4())


def test_a_pool_that_is_full_is_no_outage() -> None:
    """It is waited for as long as any call waits for a connection, and is not said to be away."""
    now = 0.0
    waiting = Waiting(uuid4(), None, None, 10, clock=lambda: now)
    full = shared.all_in_use(1, 1)
    now = 9.9
    assert waiting.miss(full) is False
    assert waiting.miss(DatabaseUnreachable("refused")) is True
    now = 10.0
    with pytest.raises(DatabaseUnreachable, match="Raise max_size"):
        waiting.miss(full)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_says_it_in_one_line(mortal: Server, database: Database, as_json: bool) -> None:
    """`jobs request --wait`: once that the database is away, once that it is back, and not a word of connections."""
    with (
        SyncClient(database.dsn, pool_timeout=2) as client,
        waiting_command(database, *(["--json"] if as_json else [])) as waiting,
    ):
        client.stats()
        assert waiting.stderr is not None and waiting.stdout is not None
        wait_until(lambda: database.fetch_value("SELECT count(*) FROM job_queue") == 1, "the request")
        # Its connection is open and idle: it has looked.
        idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'cli' AND query ~ 'get_job\\('"
        wait_until(lambda: database.fetch_value(idle) == 1, "it looks")
        mortal.crash()
        lines: list[str] = []
        while not lines or "away" not in lines[-1]:
            lines.append(waiting.stderr.readline())
        # As long as it takes to miss the database twice more.
        for _ in range(2):
            with pytest.raises(DatabaseUnreachable):
                client.stats()
        mortal.restart()
        hands.complete(database.dsn, {"total": 3})
        out, err = waiting.communicate(timeout=60)
    said = "".join(lines) + err
    assert waiting.returncode == 0
    assert (json.loads(out)["result"] if as_json else json.loads(out)) == {"total": 3}
    expected = ["The database is away; waiting.", "The database is back."]
    found = [json.loads(line)["hint"] for line in said.splitlines()] if as_json else said.splitlines()
    assert [line for line in found if line in expected] == expected
    assert set(found) - set(expected) <= {"pending", "processing", "completed", found[0]}


def test_ctrl_c_ends_a_wait_for_the_database(mortal: Server, database: Database) -> None:
    """Interrupted while the database is away: exit 130, as otherwise."""
    with waiting_command(database) as waiting:
        assert waiting.stderr is not None
        while "pending" not in waiting.stderr.readline():
            pass
        mortal.crash()
        try:
            while "away" not in waiting.stderr.readline():
                pass
            os.kill(waiting.pid, signal.SIGINT)
            err = waiting.communicate(timeout=60)[1]
        finally:
            mortal.restart()
    assert (waiting.returncode, err.startswith("The job goes on;")) == (130, True)
