"""streamvibe.testing, as applications use it."""

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.support.waiting import wait_until

from streamvibe import (
    Client,
    Context,
    JobStatus,
    Outcome,
    PermanentError,
    RetryLater,
    SyncClient,
    job_type,
)
from streamvibe.errors import DatabaseUnreachable, InvalidArgument, StreamVibeError
from streamvibe.testing import TestDatabase, TestServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-jobs.md"
USER = uuid4()


def example(number: int) -> str:
    """The document's n-th Python example."""
    found: list[str] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return found[number]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as a user's own process with none of our settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMVIBE_")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_the_documented_pytest_example_runs(tmp_path: Path) -> None:
    """The example in the documentation passes as it stands, in a folder of its own."""
    (tmp_path / "test_greetings.py").write_text(example(0))
    ran = python(tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_the_documented_example_without_pytest_runs(tmp_path: Path) -> None:
    """TestDatabase alone starts a server, and removes all of it."""
    ran = python(tmp_path, "-c", example(1))
    assert ran.returncode == 0, ran.stderr
    url, stats = ran.stdout.split(" ", 1) if ran.stdout.startswith("postgresql") else ("", ran.stdout)
    assert "QueueStats(total_jobs=0" in url + stats
    home = re.search(r"/\S*?streamvibe-test-\w+", ran.stdout.replace("%2F", "/"))
    assert home is not None and not Path(home[0]).exists()


def test_importing_the_plugin_costs_nothing(tmp_path: Path) -> None:
    """pytest loads streamvibe.testing in every run: nothing heavy comes with it."""
    code = (
        "import sys, streamvibe.testing\n"
        "heavy = {'psycopg', 'pydantic', 'typer', 'rich', 'structlog', 'httpx2', 'orjson', 'streamvibe.client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(tmp_path, "-c", code).stdout == "[]\n"


def test_pytest_is_not_needed(tmp_path: Path) -> None:
    """Where pytest is not installed the rest of the module is still there."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from streamvibe.testing import *\n"
        "print(TestDatabase.__name__, TestServer.__name__)"
    )
    assert python(tmp_path, "-c", code).stdout == "TestDatabase TestServer\n"


def test_a_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    """kill -9 of the process that uses a TestServer stops the server and removes its home."""
    code = (
        "import sys\n"
        "from streamvibe.testing import TestServer\n"
        "with TestServer() as server, server.new_database() as database:\n"
        "    print(database.dsn, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMVIBE_")}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        found = re.search(r"/\S*?streamvibe-test-\w+", run.stdout.readline().replace("%2F", "/"))
        assert found is not None
        home = Path(found[0])
        assert home.exists()
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not home.exists(), "the removal of the home")


@job_type("count_down", max_attempts=2)
async def count_down(ctx: Context, params: dict[str, int]) -> int:
    """Fails for good at 0, once at 1."""
    if params["n"] == 0:
        raise PermanentError("nothing to count")
    if params["n"] == 1 and ctx.attempt == 1:
        raise RetryLater(60, "not yet")  # an error of any other kind may be tried again at once
    return params["n"]


async def request(database: TestDatabase, *numbers: int, **options: Any) -> list[UUID]:
    """One job for each number."""
    async with database.client() as client:
        await client.register(count_down)
        asked = [await client.request(count_down, {"n": n}, user_id=USER, **options) for n in numbers]
        assert all(one.outcome == Outcome.CREATED for one in asked)
        return [one.job_id for one in asked]


async def test_what_ran_is_returned_as_it_stands(streamvibe_database: TestDatabase) -> None:
    """Completed, failed and waiting jobs are returned in the order they were made; other jobs are not."""
    made = await request(streamvibe_database, 5, 0, 1)
    jobs = await streamvibe_database.run_jobs_async([count_down])
    assert [job.id for job in jobs] == made
    assert [job.status for job in jobs] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.PENDING]
    assert (jobs[0].result, jobs[1].failure_kind, jobs[2].retry_count) == (5, "permanent", 1)
    assert await streamvibe_database.run_jobs_async([count_down]) == []

    streamvibe_database.move_clock(timedelta(minutes=2))
    [again] = await streamvibe_database.run_jobs_async([count_down])
    assert (again.id, again.status, again.result) == (made[2], JobStatus.COMPLETED, 1)


async def test_maintenance_is_done_before_a_run(streamvibe_database: TestDatabase) -> None:
    """After weeks have passed, jobs expire or come back, and there are partitions for new ones."""
    [late] = await request(streamvibe_database, 7)
    streamvibe_database.move_clock(timedelta(weeks=30))
    assert await streamvibe_database.run_jobs_async([count_down]) == []
    async with streamvibe_database.client() as client:
        assert (await client.get(late)).failure_kind == "expired"
    [fresh] = await request(streamvibe_database, 8)
    assert [job.id for job in await streamvibe_database.run_jobs_async([count_down])] == [fresh]


@job_type("ask_again")
def ask_again(ctx: Context, params: dict[str, int]) -> str:
    """Asks for another job from a thread, where nobody said which database."""
    with SyncClient() as client:
        return str(client.request(count_down, {"n": 5}, user_id=ctx.user_id).job_id)


async def test_a_client_of_no_database_is_one_of_the_test_database(
    streamvibe_database: TestDatabase,
) -> None:
    """Client() in the test and SyncClient() in a handler's thread reach the database of the fixture."""
    async with Client() as client:
        await client.register(count_down, ask_again)
        await client.request(ask_again, {}, user_id=USER)
        asking, asked = await streamvibe_database.run_jobs_async([count_down, ask_again])
    assert (asking.status, asking.result, asked.result) == (JobStatus.COMPLETED, str(asked.id), 5)


def test_a_handler_asks_its_own_database(
    streamvibe_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fixture too, and once its worker is done the thread that ran it is as it was."""
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/elsewhere")
    with streamvibe_server.new_database() as database, database.sync_client() as client:
        client.register(count_down, ask_again)
        client.request(ask_again, {}, user_id=USER)
        assert [job.status for job in database.run_jobs([count_down, ask_again])] == [JobStatus.COMPLETED] * 2
        with pytest.raises(DatabaseUnreachable), SyncClient() as other:
            other.stats()


async def test_misuse_of_run_jobs_is_explained(streamvibe_database: TestDatabase) -> None:
    """A job type that is not in a list, and a call inside a running event loop, are answered with what to write."""
    with pytest.raises(InvalidArgument, match=r"one job type.*Pass a list, as in \[count_down\]\."):
        await streamvibe_database.run_jobs_async(count_down)  # type: ignore[arg-type]
    with pytest.raises(StreamVibeError, match=r"await .*run_jobs_async"):
        streamvibe_database.run_jobs([count_down])


def test_databases_of_one_server_are_apart(streamvibe_server: TestServer) -> None:
    """Each has its own jobs and its own clock, and is gone afterwards."""
    with streamvibe_server.new_database() as one, streamvibe_server.new_database() as other:
        assert one.dsn != other.dsn
        with one.sync_client() as client, other.sync_client() as stranger:
            client.register(count_down)
            client.request(count_down, {"n": 1}, user_id=USER)
            assert (client.stats().total_jobs, stranger.stats().total_jobs) == (1, 0)
    with pytest.raises(Exception, match="does not exist"), one.sync_client() as client:
        client.stats()
