"""The maintenance loop: every duty runs by itself, and one that fails keeps no other from running."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.integration.worker_kit import Queue, at_work, eventually, make_worker, run_all
from tests.sql import kit
from tests.support.databases import Database

from streamvibe import Context, RetryLater, job_type
from streamvibe.maintenance import DUTIES, Duty, Maintenance

Params = dict[str, object]
OFTEN = "every 0.01 seconds"


@job_type("any")
async def anything(ctx: Context, params: Params) -> str:
    return "done"


#: As whom the loop connects: the owner of the tables, and what an operator sets up for services.
ROLES = pytest.mark.parametrize("role", ["postgres", "service_role"])


@contextlib.asynccontextmanager
async def maintained(
    database: Database, duties: Sequence[Duty] = DUTIES, role: str = "postgres"
) -> AsyncIterator[Maintenance]:
    """The loop runs beside the block."""
    dsn = f"{database.dsn}&options=-c%20role%3D{role}"
    maintenance = Maintenance(dsn, duties=duties, settle=timedelta(0))
    task = asyncio.create_task(maintenance.run())
    try:
        yield maintenance
    finally:
        maintenance.stop()
        async with asyncio.timeout(30):
            await task


@ROLES
async def test_jobs_of_a_dead_worker_are_taken_back(database: Database, role: str) -> None:
    """A worker that claimed and never came back: once its lease is over its jobs are due again."""
    queue = Queue(database)
    queue.register(anything)
    jobs = [queue.request("any") for _ in range(3)]
    queue.conn.execute("SELECT heartbeat_worker('dead', p_lease := '0.5 seconds')")
    queue.conn.execute("SELECT * FROM claim_jobs('dead', 10)")
    assert {queue.seen(job_id) for job_id in jobs} == {"processing"}
    async with maintained(database, role=role):
        await eventually(lambda: {queue.seen(job_id) for job_id in jobs} == {"pending"}, "taken back", 10)
    assert await run_all(database, anything) == 3
    assert queue.value("SELECT max(retry_count) FROM job_queue") == 0


@ROLES
async def test_failed_jobs_come_back_when_their_time_has_come(database18: Database, role: str) -> None:
    """A job that asked for a later retry is brought back by the loop alone, and a running worker takes it."""

    @job_type("later")
    async def later(ctx: Context, params: Params) -> int:
        if ctx.attempt == 1:
            raise RetryLater(3600)
        return ctx.attempt

    queue = Queue(database18)
    queue.register(later)
    job_id = queue.request("later")
    await run_all(database18, later)
    assert queue.row(job_id)["status"] == "failed"
    database18.advance_clock(timedelta(hours=2))
    async with maintained(database18, role=role), at_work(make_worker(database18, later)):
        await queue.until(job_id, "completed")


@ROLES
async def test_jobs_that_nobody_started_in_time_expire(database18: Database, role: str) -> None:
    """More than one batch of stale jobs fails as expired without waiting for the next turn."""
    queue = Queue(database18)
    queue.register(anything)
    queue.conn.execute(
        "SELECT count(*) FROM create_jobs((SELECT jsonb_agg(jsonb_build_object('user_id', gen_random_uuid(),"
        " 'job_type', 'any')) FROM generate_series(1, 2500)))"
    )
    database18.advance_clock(timedelta(hours=25))
    async with maintained(database18, role=role):
        await eventually(
            lambda: queue.value("SELECT count(*) FROM job_queue WHERE failure_kind = 'expired'") == 2500,
            "all expire, in three batches",
            20,
        )


@ROLES
async def test_partitions_are_made_ahead(database18: Database, role: str) -> None:
    """Six weeks later, without a leaf for the present, the loop makes those of the four weeks to come."""
    queue = Queue(database18)
    ahead = (
        "SELECT min(m) > streamvibe.now() + interval '4 weeks'"
        " FROM (SELECT max(upper_at) AS m FROM streamvibe.partition GROUP BY parent_name) p"
    )
    assert queue.value(ahead) is True
    database18.advance_clock(timedelta(weeks=6))
    assert queue.value(ahead) is False
    async with maintained(database18, role=role):
        await eventually(lambda: queue.value(ahead), "leaves four weeks ahead")


@ROLES
async def test_old_leaves_are_dropped(database18: Database, role: str) -> None:
    """Leaves of jobs and of lines whose time is over go, also behind one that a job to be retried holds up."""
    queue = Queue(database18)
    queue.register(anything)
    held_up, old = kit.old_leaf(queue.conn, weeks=4), kit.old_leaf(queue.conn, weeks=3)
    lines = kit.old_leaf(queue.conn, "job_log", weeks=7)
    young = kit.old_leaf(queue.conn, "job_log", weeks=2)
    queue.conn.execute(
        f"UPDATE streamvibe.{held_up} SET job_type = 'any', status = 'failed', retry_at = 'infinity'".encode()
    )
    queue.conn.execute("SELECT recount_stats()")
    there = "SELECT count(*) FROM streamvibe.partition WHERE partition_name = ANY (%s)"
    async with maintained(database18, role=role):
        await eventually(lambda: queue.value(there, [old, lines]) == 0, "the old ones are gone")
        assert queue.value(there, [held_up, young]) == 2
    assert queue.value("SELECT count(*) FROM recount_stats()") == 0


async def test_a_duty_that_fails_is_tried_again_and_disturbs_no_other(database18: Database) -> None:
    """An error in one duty is logged; the others run on, and it runs again at its next turn."""
    queue = Queue(database18)
    queue.conn.execute("CREATE TABLE turns (n bigserial); CREATE SEQUENCE bad")
    duties = [
        Duty("bad", OFTEN, "SELECT 1 / (nextval('bad') * 0)::int"),
        Duty(
            "good",
            OFTEN,
            "WITH done AS (INSERT INTO turns DEFAULT VALUES RETURNING 1) SELECT count(*) FROM done",
        ),
    ]
    async with maintained(database18, duties):
        await eventually(lambda: queue.value("SELECT count(*) FROM turns") >= 3, "the good one runs thrice")
        await eventually(
            lambda: queue.value("SELECT last_value FROM bad") >= 3, "the bad one is tried thrice"
        )


async def test_the_loop_outlives_its_connection(database18: Database) -> None:
    """Its connection is killed: at the next turn it has a new one."""
    queue = Queue(database18)
    queue.conn.execute("CREATE TABLE turns (n bigserial, pid int DEFAULT pg_backend_pid())")
    duty = Duty(
        "turn", OFTEN, "WITH done AS (INSERT INTO turns DEFAULT VALUES RETURNING 1) SELECT count(*) FROM done"
    )
    async with maintained(database18, [duty]):
        for sessions in (1, 2, 3):
            await eventually(
                lambda: queue.value("SELECT count(DISTINCT pid) FROM turns") == sessions,  # noqa: B023
                f"session {sessions}",
            )
            queue.conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'streamvibe maintenance'"
            )


async def test_of_three_loops_one_does_the_work(database18: Database) -> None:
    """Many processes may run it: of three one leads, nothing fails, and each job is taken back once."""
    queue = Queue(database18)
    queue.register(anything)
    jobs = [queue.request("any") for _ in range(20)]
    queue.conn.execute("SELECT heartbeat_worker('dead', p_lease := '0.5 seconds')")
    queue.conn.execute("SELECT * FROM claim_jobs('dead', 10)")
    fast = [replace(duty, schedule=OFTEN) for duty in DUTIES]
    async with (
        maintained(database18, fast),
        maintained(database18, fast),
        maintained(database18, fast),
        at_work(make_worker(database18, anything)),
    ):
        for job_id in jobs:
            assert (await queue.until(job_id))["retry_count"] == 0
        assert queue.value("SELECT count(DISTINCT leader_id) FROM streamvibe.duty_run") == 1


async def test_schedules_change_while_it_runs(
    database18: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator makes a yearly duty frequent, disables it, and gives it a schedule that nobody can read."""
    monkeypatch.setattr("streamvibe.maintenance.loop.RELOAD_SECONDS", 0.05)
    queue = Queue(database18)
    queue.conn.execute("CREATE TABLE turns (n bigserial)")
    turn = "WITH done AS (INSERT INTO turns DEFAULT VALUES RETURNING 1) SELECT count(*) FROM done"
    turns = "SELECT count(*) FROM turns"
    async with maintained(database18, [Duty("turn", "0 0 1 1 *", turn)]):
        await eventually(lambda: queue.value(turns) == 1, "the first, because it never ran")
        queue.conn.execute("SELECT set_maintenance_duty('turn', 'every 0.02 seconds')")
        await eventually(lambda: queue.value(turns) >= 4, "it runs often")
        queue.conn.execute("SELECT set_maintenance_duty('turn', p_enabled => false)")

        async def rests() -> bool:
            seen = queue.value(turns)
            await asyncio.sleep(0.2)  # ten turns, if it went on
            return bool(queue.value(turns) == seen)

        async with asyncio.timeout(30):
            while not await rests():
                pass
        queue.conn.execute("UPDATE streamvibe.duty SET schedule = '61 * * * *', enabled = true")
        await eventually(lambda: "schedule_unreadable" in caplog.text, "the log says so")
    # Late when somebody leads again: not once more, the yearly schedule applies.
    before = queue.value(turns)
    async with maintained(database18, [Duty("turn", "0 0 1 1 *", turn), Duty("other", OFTEN, turn)]):
        await eventually(lambda: queue.value(turns) >= before + 3, "the other one runs")
    assert (
        queue.value("SELECT count(*) FROM streamvibe.duty_run WHERE duty = 'turn' AND error IS NOT NULL") == 0
    )
