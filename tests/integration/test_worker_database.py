"""A worker whose database misbehaves: connections die, statements fail for a while, replies are lost."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.worker_kit import NEVER, Queue, at_work, event, eventually, make_worker
from tests.support.databases import Database

from streamvibe import Context, job_type
from streamvibe.db.session import connection_defaults

Params = dict[str, Any]

KILL_WORKERS = (
    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'streamvibe %'"
)

# Fails the first three executions on a table; the sequence remembers across rollbacks.
FAIL_THRICE = """
CREATE SEQUENCE public.failures;
CREATE FUNCTION public.fail_thrice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.failures') <= 3 THEN
        RAISE 'for now' USING ERRCODE = '{code}';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER fail_thrice BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION public.fail_thrice();
"""


async def test_a_handler_that_blocks_the_event_loop_keeps_its_lease(database18: Database) -> None:
    """The heartbeat has a thread of its own: blocked for longer than the lease, the job is not taken away."""
    queue = Queue(database18)
    recovered: list[object] = []

    @job_type("blocking")
    async def blocking(ctx: Context, params: Params) -> str:
        with psycopg.connect(database18.dsn, autocommit=True) as conn:
            # Not awaited, on purpose: nothing else runs on the loop until the lease has been outlived.
            while not conn.execute(
                "SELECT heartbeat_at > started_at + 1.5 * lease FROM streamvibe.worker"
            ).fetchall()[0][0]:
                recovered.extend(conn.execute("SELECT * FROM recover_stuck_jobs()").fetchall())
        return "kept"

    async with at_work(make_worker(database18, blocking, lease=timedelta(milliseconds=500))):
        queue.register(blocking)
        row = await queue.until(queue.request("blocking"))
    assert (row["result"], row["retry_count"], recovered) == ("kept", 0, [])


async def test_a_worker_whose_connections_all_die_goes_on(database: Database) -> None:
    """Killed five times in the middle of 200 jobs: every job completes, no handler runs twice."""
    starts: dict[UUID, int] = {}

    @job_type("steady")
    async def steady(ctx: Context, params: Params) -> int:
        starts[ctx.job_id] = starts.get(ctx.job_id, 0) + 1
        ctx.log("started")
        await asyncio.sleep(0.01 * (params["n"] % 5))
        return int(params["n"])

    queue = Queue(database)
    queue.register(steady)
    jobs = [queue.request("steady", {"n": n}) for n in range(200)]
    killed = 0
    async with at_work(make_worker(database, steady, concurrency=5, lease_after=NEVER)):
        for share in (10, 50, 90, 130, 170):
            await eventually(lambda: len(starts) >= share, f"{share} jobs have started")  # noqa: B023
            killed += queue.value(KILL_WORKERS)
        for n, job_id in enumerate(jobs):
            assert (await queue.until(job_id))["result"] == n
        await queue.until_released()
    assert killed >= 10
    assert set(starts.values()) == {1}
    assert queue.value("SELECT count(*) FROM job_queue WHERE retry_count > 0") == 0


@pytest.mark.parametrize(
    ("code", "when", "table"),
    [
        ("40P01", "UPDATE", "public.job_queue"),  # a deadlock while an end is written
        ("57014", "UPDATE", "public.job_queue"),  # a statement timeout
        ("25006", "UPDATE", "public.job_queue"),  # a standby that is not promoted yet
        ("53200", "UPDATE", "public.job_queue"),  # out of memory
        ("40P01", "INSERT", "public.job_log"),
        ("40P01", "INSERT", "streamvibe.claim"),
        ("55P03", "INSERT", "streamvibe.claim"),
    ],
)
async def test_an_error_that_passes_costs_no_job_and_no_worker(
    database18: Database, code: str, when: str, table: str
) -> None:
    """Whatever is about the server and not about the data is tried again until it works."""
    starts: list[UUID] = []

    @job_type("any")
    async def handler(ctx: Context, params: Params) -> str:
        starts.append(ctx.job_id)
        ctx.log("a line")
        return "kept"

    queue = Queue(database18)
    queue.register(handler)
    queue.conn.execute(FAIL_THRICE.format(code=code, event=when, table=table).encode())
    jobs = [queue.request("any") for _ in range(3)]
    async with at_work(make_worker(database18, handler, lease_after=NEVER)):
        for job_id in jobs:
            row = await queue.until(job_id)
            assert (row["status"], row["result"], row["retry_count"]) == ("completed", "kept", 0)
            assert len(queue.logs(job_id)) == 1
    assert sorted(starts) == sorted(jobs)
    assert queue.value("SELECT last_value FROM failures") > 3


async def test_leases_and_progress_are_written_when_the_database_is_back(database18: Database) -> None:
    """A first lease that fails is repeated: the row still becomes processing, progress still arrives."""
    go = asyncio.Event()

    @job_type("lasting")
    async def lasting(ctx: Context, params: Params) -> None:
        ctx.progress(0.5)
        await go.wait()

    queue = Queue(database18)
    queue.register(lasting)
    queue.conn.execute(FAIL_THRICE.format(code="40P01", event="UPDATE", table="public.job_queue").encode())
    job_id = queue.request("lasting")
    async with at_work(make_worker(database18, lasting)):
        await queue.until(job_id, "processing")
        await eventually(lambda: queue.row(job_id)["progress"] == 0.5, "progress arrives")
        go.set()
        await queue.until(job_id, "completed")


async def test_a_claim_whose_reply_was_lost_is_handed_back(database18: Database) -> None:
    """What the database granted and the worker never learnt of runs as soon as a broken connection is noticed."""
    ran = asyncio.Event()

    @job_type("any")
    async def handler(ctx: Context, params: Params) -> None:
        if params.get("forgotten"):
            ran.set()

    queue = Queue(database18)
    worker = make_worker(database18, handler, poll_interval=NEVER, lease=NEVER)
    async with at_work(worker):
        await eventually(lambda: queue.value("SELECT count(*) FROM streamvibe.worker WHERE asleep"), "asleep")
        with queue.conn.transaction():
            forgotten = queue.request("any", {"forgotten": True})
            # In the worker's name, as its own call would have: the reply goes nowhere.
            queue.conn.execute("SELECT * FROM claim_jobs(%s, 10)", [worker.worker_id])
        assert queue.seen(forgotten) == "processing"
        queue.conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'streamvibe claim %'"
        )
        queue.conn.execute("SELECT pg_notify('streamvibe_jobs', 'any')")
        await event(ran, "the forgotten job runs")
        assert (await queue.until(forgotten))["retry_count"] == 0


async def test_forgotten_claims_are_looked_for_now_and_then(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no error was noticed, a claim that the worker does not know is handed back in time."""
    monkeypatch.setattr("streamvibe.worker.fetch.FORGOTTEN_CLAIMS_SECONDS", 0.0)
    started, go = asyncio.Event(), asyncio.Event()

    @job_type("known")
    async def known(ctx: Context, params: Params) -> None:
        started.set()
        await go.wait()

    queue = Queue(database18)
    worker = make_worker(database18, known, concurrency=2, poll_interval=NEVER)
    async with at_work(worker):
        queue.register(known)
        held = queue.request("known")
        await event(started, "the first job runs")
        with queue.conn.transaction():
            forgotten = queue.request("known")
            queue.conn.execute("SELECT * FROM claim_jobs(%s, 10)", [worker.worker_id])
        queue.conn.execute("SELECT pg_notify('streamvibe_jobs', 'known')")
        go.set()
        assert (await queue.until(forgotten))["status"] == "completed"
        assert (await queue.until(held))["status"] == "completed"
        assert queue.value("SELECT max(retry_count) FROM job_queue") == 0


async def test_a_worker_that_comes_back_under_its_name_is_another_worker(database18: Database) -> None:
    """What the worker of the same name held when it died stays its own until its lease is over, and counts."""

    @job_type("any", backoff_base=timedelta(0), backoff_max=timedelta(0))
    async def handler(ctx: Context, params: Params) -> int:
        return ctx.attempt

    queue = Queue(database18)
    queue.register(handler)
    job_id = queue.request("any")
    dead = make_worker(database18, handler, worker_id="pod-1").worker_id
    queue.conn.execute("SELECT heartbeat_worker(%s, p_lease := '1 second')", [dead])
    queue.conn.execute("SELECT * FROM claim_jobs(%s)", [dead])
    async with at_work(make_worker(database18, handler, worker_id="pod-1")):
        await eventually(
            lambda: (
                queue.conn.execute("SELECT outcome FROM recover_stuck_jobs()").fetchall() == [("retried",)]
            ),
            "the dead worker's job is taken back as a crash",
        )
        row = await queue.until(job_id)
    assert row["worker_id"] != dead and row["worker_id"].startswith("pod-1-")
    assert (row["result"], row["retry_count"]) == (2, 1)


def test_the_connection_string_wins_over_the_time_limits_of_connections() -> None:
    """A vanished peer is noticed within half a minute, unless the connection string says otherwise."""
    assert connection_defaults("postgresql://host/db")["tcp_user_timeout"] == 25_000
    given = connection_defaults("postgresql://host/db?connect_timeout=60&keepalives_idle=300")
    assert "connect_timeout" not in given and "keepalives_idle" not in given and "tcp_user_timeout" in given
