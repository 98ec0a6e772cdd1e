"""The maintenance loop beside open transactions, outages and machines that slept."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from tests.integration.worker_kit import Queue, at_work, event, eventually, make_worker
from tests.support.cli import command, environment
from tests.support.databases import Database
from tests.support.waiting import wait_until

from streamvibe import Context, job_type
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable
from streamvibe.maintenance import DUTIES, Duty, Maintenance
from streamvibe.maintenance.loop import LIMITS

Params = dict[str, Any]

OFTEN = "every 0.01 seconds"
FAST = [replace(duty, schedule=OFTEN) for duty in DUTIES]
TURN = "WITH done AS (INSERT INTO turns DEFAULT VALUES RETURNING 1) SELECT count(*) FROM done"


@job_type("any")
async def anything(ctx: Context, params: Params) -> str:
    return "done"


@contextlib.asynccontextmanager
async def maintained(
    database: Database,
    duties: Sequence[Duty],
    settle: timedelta = timedelta(0),
    role: str = "postgres",
) -> AsyncIterator[Maintenance]:
    """The loop runs beside the block, and ends promptly after it."""
    dsn = f"{database.dsn}&options=-c%20role%3D{role}"
    maintenance = Maintenance(dsn, duties=duties, settle=settle)
    task = asyncio.create_task(maintenance.run())
    try:
        yield maintenance
    finally:
        maintenance.stop()
        done, _ = await asyncio.wait({task}, timeout=20)
        assert done, "the loop does not stop"
        await task


def claimed_by_the_dead(queue: Queue, name: str) -> Any:
    """A job of a worker that claimed it an hour ago and was never heard of again."""
    with queue.conn.transaction():
        job_id = queue.request("any")
        queue.conn.execute("SELECT heartbeat_worker(%s)", [name])
        queue.conn.execute("SELECT * FROM claim_jobs(%s)", [name])
        queue.conn.execute(
            "UPDATE streamvibe.worker SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE id = %s",
            [name],
        )
    return job_id


async def test_stopping_cancels_the_duty_that_runs(database18: Database) -> None:
    """stop() ends run() in the middle of a duty that would take an hour, and the server forgets it too."""
    queue = Queue(database18)
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND state = 'active'"
    running += " AND datname = current_database() AND pid <> pg_backend_pid()"
    async with maintained(database18, [Duty("long", "every 1 seconds", "SELECT 1 FROM pg_sleep(3600)")]):
        await eventually(lambda: queue.value(running) == 1, "the duty runs")
    await eventually(lambda: queue.value(running) == 0, "it is cancelled")


async def test_a_duty_waits_for_no_lock(database18: Database) -> None:
    """Somebody's lock costs one duty its turn, not the others theirs; statements have a limit as well."""
    queue = Queue(database18)
    queue.conn.execute("CREATE TABLE turns (n bigserial); CREATE TABLE locked (n int)")
    queue.conn.execute("CREATE TABLE limits (n int)")
    duties = [
        Duty("locked", OFTEN, "WITH w AS (INSERT INTO locked VALUES (1) RETURNING 1) SELECT count(*) FROM w"),
        Duty("turn", OFTEN, TURN),
        Duty(
            "limit",
            OFTEN,
            "WITH w AS (INSERT INTO limits SELECT setting::int FROM pg_settings"
            " WHERE name = 'statement_timeout' RETURNING 1) SELECT count(*) FROM w",
        ),
    ]
    with database18.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE locked")
        async with maintained(database18, duties):
            await eventually(
                lambda: queue.value("SELECT count(*) FROM turns") >= 2, "the other has its turns"
            )
            holder.rollback()
            await eventually(lambda: queue.value("SELECT count(*) FROM locked") >= 1, "and that one later")
            await eventually(lambda: queue.value("SELECT count(*) FROM limits") >= 1, "a look at the limit")
    assert queue.value("SELECT max(n) FROM limits") == 60_000


async def test_the_limits_are_for_the_duty_alone(database18: Database) -> None:
    """Behind a transaction pooler the connection is somebody else's next: nothing of the limits stays on it."""
    session = Session(database18.dsn, application_name="duty", limits=LIMITS)
    look = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    assert await session.fetch(look) == [("2s", "1min")]
    cursor = await (await session.connection()).execute(look)
    assert await cursor.fetchone() == ("0", "0")
    await session.close()


async def test_an_outage_names_the_database(database18: Database) -> None:
    """A statement whose connection broke says of which database, its password masked."""
    session = Session(f"{database18.dsn}&password=secret", application_name="cut off")
    await session.fetch("SELECT 1")
    cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'cut off'"
    Queue(database18).conn.execute(cut)
    with pytest.raises(DatabaseUnreachable) as caught:
        await session.fetch("SELECT 1")
    assert database18.name in str(caught.value) and "secret" not in str(caught.value)


async def test_a_call_that_is_late_judges_nobody(database18: Database) -> None:
    """The machine sleeps after the loop sent its call: the statement finds it later than it should be."""
    queue = Queue(database18)
    queue.register(anything)
    database18.advance_clock(timedelta(0))
    # It sleeps for an hour inside the call itself, each time that a worker could be judged.
    queue.conn.execute("CREATE SEQUENCE public.calls")
    queue.conn.execute(
        "CREATE FUNCTION public.slept(p_not_after timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$"
        " BEGIN IF isfinite(p_not_after) THEN PERFORM nextval('public.calls');"
        " UPDATE streamvibe.test_clock SET shift = shift + interval '1 hour'; END IF; RETURN p_not_after; END $$"
    )
    [judging] = [duty for duty in FAST if duty.judges_workers]
    asleep = replace(judging, sql=judging.sql.replace("%s::timestamptz", "slept(%s::timestamptz)"))
    job_id = claimed_by_the_dead(queue, "dead")
    async with maintained(database18, [asleep], timedelta(milliseconds=200)):
        await eventually(lambda: queue.value("SELECT last_value FROM calls") >= 3, "three calls in time")
        assert queue.seen(job_id) == "processing"
    async with maintained(database18, [judging], timedelta(milliseconds=200)):
        await eventually(lambda: queue.seen(job_id) == "pending", "without sleep it is taken back")


async def test_nobody_is_dead_before_the_loop_has_watched_for_a_while(database18: Database) -> None:
    """After its start the loop gives heartbeats the time to arrive, while its other duties run."""
    queue = Queue(database18)
    queue.register(anything)
    queue.conn.execute("CREATE TABLE turns (n bigserial)")
    job_id = claimed_by_the_dead(queue, "dead")
    duties = [*FAST, Duty("turn", OFTEN, TURN)]
    async with maintained(database18, duties, timedelta(hours=1)):
        await eventually(lambda: queue.value("SELECT count(*) FROM turns") >= 20, "twenty turns")
        assert queue.seen(job_id) == "processing"
    async with maintained(database18, duties, timedelta(milliseconds=200)):
        await eventually(lambda: queue.seen(job_id) == "pending", "later it is taken back")


async def _settled(queue: Queue) -> None:
    """Wait until the loop takes a dead worker for dead."""
    job_id = claimed_by_the_dead(queue, "dead")
    await eventually(lambda: not queue.value("SELECT streamvibe.is_held(%s)", job_id), "the loop is settled")
    queue.conn.execute("DELETE FROM job_queue WHERE id = %s", [job_id])


@pytest.mark.parametrize("role", ["postgres", "service_role"])
@pytest.mark.parametrize("what", ["outage", "suspended"])
async def test_workers_may_renew_their_leases_first(database18: Database, what: str, role: str) -> None:
    """After an outage longer than the lease, or a machine's sleep, a live worker keeps its job, uncounted."""
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("lasting", max_attempts=1)
    async def lasting(ctx: Context, params: Params) -> str:
        started.set()
        await go.wait()
        return "kept"

    queue = Queue(database18)
    queue.register(lasting, anything)
    database18.advance_clock(timedelta(0))
    async with (
        maintained(database18, FAST, timedelta(seconds=3), role),
        at_work(make_worker(database18, lasting, lease=timedelta(seconds=2))) as task,
    ):
        job_id = queue.request("lasting")
        await event(started, "the handler runs")
        await queue.until(job_id, "processing")
        await _settled(queue)
        beat_at = queue.value("SELECT max(heartbeat_at) FROM streamvibe.worker")
        if what == "suspended":
            database18.advance_clock(timedelta(hours=1))
        else:
            allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
            with database18.server.connect() as admin:
                admin.execute(allow.format(sql.Identifier(database18.name), sql.SQL("false")))
                admin.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = %s AND application_name LIKE 'streamvibe %%'",
                    [database18.name],
                )
                await eventually(
                    lambda: queue.value(
                        "SELECT bool_and(heartbeat_at + lease < streamvibe.now()) FROM streamvibe.worker"
                    ),
                    "the lease is over",
                )
                admin.execute(allow.format(sql.Identifier(database18.name), sql.SQL("true")))
        renewed = "SELECT max(heartbeat_at) > %s + interval '2 seconds' FROM streamvibe.worker"
        await eventually(lambda: queue.value(renewed, beat_at), "the lease is renewed")
        await _settled(queue)
        go.set()
        row = await queue.until(job_id)
        assert not task.done()
    assert (row["status"], row["result"], row["retry_count"]) == ("completed", "kept", 0)


async def test_what_nobody_foresaw_is_raised(database18: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A duty that breaks the loop ends run() with its error, and the log names it."""
    maintenance = Maintenance(database18.dsn, duties=[Duty("odd", "every 1 seconds", "SELECT 'many'")])
    with pytest.raises(ValueError, match="many"):
        await maintenance.run()
    assert "maintenance_broke" in caplog.text


def test_up_ends_when_maintenance_breaks(database18: Database, tmp_path: Path) -> None:
    """Without maintenance nothing is taken back or retried: up hands its jobs back and exits with 1."""
    (tmp_path / "shop.py").write_text(
        "from streamvibe import Context, job_type\n\n"
        "@job_type('greet')\ndef greet(ctx: Context, params: dict[str, str]) -> None: ...\n"
    )
    with database18.connect() as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION public.retry_failed_jobs(p_limit int DEFAULT 1000) RETURNS int"
            " LANGUAGE sql AS 'SELECT NULL::int'"
        )
    done = subprocess.run(
        command("up", "--app", "shop"),
        cwd=tmp_path,
        env=environment(database18.dsn),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "maintenance_broke" in done.stderr
    assert database18.fetch_value("SELECT count(*) FROM streamvibe.worker") == 0


# Has much to do until somebody says so; then the loop does not know what to make of it.
BREAK_WHEN_TOLD = """
CREATE TABLE public.told (at timestamptz);
CREATE OR REPLACE FUNCTION public.retry_failed_jobs(p_limit int DEFAULT 1000) RETURNS int LANGUAGE sql
AS 'SELECT CASE WHEN NOT EXISTS (SELECT FROM public.told) THEN 1000 END'
"""


@pytest.mark.parametrize("stopped_first", [False, True])
def test_up_and_a_handler_when_maintenance_breaks(
    database18: Database, tmp_path: Path, stopped_first: bool
) -> None:
    """A handler that ignores being cancelled cannot turn the exit status into 0.

    When the operator has stopped it before, running jobs have their grace all the same.
    """
    (tmp_path / "shop.py").write_text(
        "import asyncio, pathlib\n"
        "import streamvibe.cli.leaving\n"
        "from streamvibe import Context, job_type\n\n"
        "streamvibe.cli.leaving.EXIT_SECONDS = 1.0\n\n"
        "@job_type('stubborn')\n"
        "async def stubborn(ctx: Context, params: dict[str, str]) -> None:\n"
        "    pathlib.Path('started').touch()\n"
        "    while not pathlib.Path('go').exists():\n"
        "        try:\n"
        "            await asyncio.sleep(0.01)\n"
        "        except asyncio.CancelledError:\n"
        "            pathlib.Path('cancelled').touch()\n"
    )
    queue = Queue(database18)
    queue.conn.execute("SELECT register_job_type('stubborn')")
    queue.conn.execute(BREAK_WHEN_TOLD)
    job_id = queue.request("stubborn")
    with (
        (tmp_path / "output").open("w") as output,
        subprocess.Popen(
            command("up", "--app", "shop", "--grace", "3600" if stopped_first else "0"),
            cwd=tmp_path,
            env=environment(database18.dsn, PYTHONUNBUFFERED="1"),
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as up,
    ):
        try:
            wait_until((tmp_path / "started").exists, "the handler runs")
            if stopped_first:
                up.send_signal(signal.SIGINT)
                wait_until(lambda: "Stopping" in (tmp_path / "output").read_text(), "it stops")
            queue.conn.execute("INSERT INTO told VALUES (now())")
            wait_until(lambda: "maintenance_broke" in (tmp_path / "output").read_text(), "maintenance breaks")
            if stopped_first:
                (tmp_path / "go").touch()
            status = up.wait(60)
        finally:
            up.kill()
    assert status == 1, (tmp_path / "output").read_text()
    assert (tmp_path / "cancelled").exists() is not stopped_first
    assert queue.row(job_id)["status"] == ("completed" if stopped_first else "pending")


def test_a_worker_process_ends_although_a_handler_does_not(database18: Database, tmp_path: Path) -> None:
    """Full of handlers that ignore being cancelled it exits with 1, so that a supervisor starts it again."""
    (tmp_path / "shop.py").write_text(
        "import asyncio, datetime\n"
        "import streamvibe.cli.leaving\n"
        "from streamvibe import Context, job_type\n"
        "from streamvibe.worker import ticker\n\n"
        "ticker.STOP_PATIENCE_SECONDS = ticker.STUCK_SECONDS = 0.2\n"
        "streamvibe.cli.leaving.EXIT_SECONDS = 1.0\n\n"
        "@job_type('hung', timeout=datetime.timedelta(seconds=0.2), max_attempts=1)\n"
        "async def hung(ctx: Context, params: dict[str, str]) -> None:\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            continue\n"
    )
    queue = Queue(database18)
    queue.conn.execute("SELECT register_job_type('hung')")
    job_id = queue.request("hung")
    done = subprocess.run(
        command("worker", "--app", "shop", "--concurrency", "1"),
        cwd=tmp_path,
        env=environment(database18.dsn),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "handler_does_not_stop" in done.stderr and "worker_broke" in done.stderr
    assert queue.row(job_id)["status"] == "failed"
