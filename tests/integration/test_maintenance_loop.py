"""The maintenance loop: every duty runs by itself, and one that fails keeps no other from running."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.integration.worker_kit import Queue, at_work, eventually, make_worker, run_all
from tests.sql import kit
from tests.support.databases import Database

from streamvibe import Context, RetryLater, job_type
from streamvibe.db.session import Session
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


async def test_a_job_that_ended_just_now_keeps_its_leaf(database18: Database) -> None:
    """The list of old leaves was read before a leaf's last job ended: once sealed it is looked at again, and stays."""
    queue = Queue(database18)
    queue.register(anything)
    leaf, other = kit.old_leaf(queue.conn, weeks=4), kit.old_leaf(queue.conn, weeks=3)
    one = f"(SELECT id FROM streamvibe.{leaf} LIMIT 1)"
    queue.conn.execute(f"UPDATE streamvibe.{leaf} SET completed_at = now() WHERE id = {one}".encode())
    [usual] = [duty for duty in DUTIES if duty.name == "drop_old_partitions"]
    stale = replace(usual, sql=f"SELECT n FROM unnest('{{{leaf},{other}}}'::text[]) n")
    there = "SELECT count(*) FROM streamvibe.partition WHERE partition_name = %s"
    async with maintained(database18, [stale]):
        await eventually(lambda: queue.value(there, other) == 0, "the other one is gone")
    assert queue.value(there, leaf) == 1


async def test_recovery_does_not_wait_for_what_takes_long(database18: Database) -> None:
    """While a step takes an hour, jobs of a dead worker are taken back; one row's error is not another's."""
    queue = Queue(database18)
    queue.register(anything)
    job_id = queue.request("any")
    queue.conn.execute("SELECT heartbeat_worker('dead', p_lease := '0.5 seconds')")
    queue.conn.execute("SELECT * FROM claim_jobs('dead', 10)")
    queue.conn.execute("CREATE TABLE turns (n bigint)")
    slow = Duty(
        "slow",
        "every 1 hours",
        "SELECT n FROM generate_series(1, 3) n",
        steps=(
            "SELECT 1 / (%s - 1) >= 0",  # the first row's error
            "WITH w AS (INSERT INTO turns VALUES (%s) RETURNING 1) SELECT true FROM w",
            "SELECT true FROM pg_sleep(3600 * (%s - 2))",
        ),
    )
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600%' AND state = 'active'"
    running += " AND datname = current_database() AND pid <> pg_backend_pid()"
    async with maintained(database18, [slow, *DUTIES]):
        await eventually(lambda: queue.value(running) == 1, "the third row's step sleeps")
        assert queue.value("SELECT array_agg(n ORDER BY n) FROM turns") == [2, 3]
        await eventually(lambda: queue.seen(job_id) == "pending", "taken back", 10)
        states = {row[0]: row[1] for row in queue.conn.execute("SELECT duty, state FROM get_maintenance()")}
        assert states["slow"] == "running"
    await eventually(lambda: queue.value(running) == 0, "it is cancelled")


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


@contextlib.contextmanager
def bloated(queue: Queue) -> Iterator[str]:
    """The name of the present leaf, whose indexes are nine tenths empty, with pgstattuple there to see it."""
    queue.conn.execute("CREATE EXTENSION pgstattuple")
    leaf = queue.value(
        "SELECT partition_name FROM streamvibe.partition WHERE parent_name = 'job_queue' ORDER BY lower_at LIMIT 1"
    )
    queue.conn.execute(
        f"INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type) SELECT streamvibe.make_id("
        "streamvibe.microseconds(p.lower_at) + n, n), p.lower_at, md5(n::text)::uuid, 'any'"
        f" FROM streamvibe.partition p, generate_series(1, 160000) n WHERE p.partition_name = '{leaf}'".encode()
    )
    queue.conn.execute(f"DELETE FROM streamvibe.{leaf} WHERE uuid_hash(id) % 10 <> 0".encode())
    queue.conn.execute(f"VACUUM streamvibe.{leaf}".encode())
    yield leaf


def only(*names: str) -> list[Duty]:
    """These duties, often."""
    return [replace(duty, schedule="every 0.2 seconds") for duty in DUTIES if duty.name in names]


async def test_bloated_indexes_are_built_anew(database18: Database) -> None:
    """One after the other until none is; what an interrupted rebuild left behind goes; the parents are analyzed."""
    queue = Queue(database18)
    with bloated(queue) as leaf:
        queue.conn.execute(
            f"CREATE INDEX left_ccnew ON streamvibe.{leaf} (worker_id);"
            " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'streamvibe.left_ccnew'::regclass".encode()
        )
        big = "SELECT count(*) FROM get_index_bloat() WHERE bloat_bytes > 10485760"
        assert queue.value(big) >= 1
        async with maintained(database18, only("reindex_bloated", "analyze_parents")):
            await eventually(lambda: queue.value(big) == 0, "none is bloated", 60)
            await eventually(
                lambda: queue.value("SELECT to_regclass('streamvibe.left_ccnew') IS NULL"), "no remains"
            )
            analyzed = "SELECT count(DISTINCT inherited) FROM pg_stats WHERE tablename = 'job_queue'"
            await eventually(lambda: queue.value(analyzed) == 1, "the parent is analyzed")
            runs = (
                "SELECT sum(done) FROM streamvibe.duty_run WHERE duty = 'reindex_bloated' AND error IS NULL"
            )
            await eventually(lambda: (queue.value(runs) or 0) >= 2, "the removal and a rebuild are recorded")
    assert queue.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


async def test_a_rebuild_waits_for_nobody(database18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that wrote to the table goes on: the rebuild gives up, its remains go, and later it works.

    Of the many that are due then none but the first is begun.
    """
    run_alone = Session.run_alone

    async def hurried(self: Session, command: str, *, lock_timeout: str) -> None:
        await run_alone(self, command, lock_timeout="200ms")

    monkeypatch.setattr(Session, "run_alone", hurried)
    queue = Queue(database18)
    big = "SELECT count(*) FROM get_index_bloat() WHERE bloat_bytes > 10485760"
    remains = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    failed = "SELECT count(*) FROM streamvibe.duty_run WHERE error LIKE '%lock timeout%'"
    with bloated(queue) as leaf, database18.connect(autocommit=False) as writer:
        writer.execute(
            f"UPDATE streamvibe.{leaf} SET progress = 0.5 WHERE id IN (SELECT id FROM job_queue LIMIT 1)".encode()
        )
        async with maintained(database18, only("reindex_bloated")):
            await eventually(lambda: queue.value(failed) >= 1, "it gives up")
            assert queue.value("SELECT count(*) FROM streamvibe.indexes_to_rebuild()") > 3
            assert queue.value(remains) == 1
            writer.rollback()
            await eventually(lambda: queue.value(big) == 0, "none is bloated", 60)
            await eventually(lambda: queue.value(remains) == 0, "no remains")


async def test_a_vacuum_waits_for_nobody(database18: Database) -> None:
    """Not for who has what is stored beside the table, for which no one else waits then, nor for a partition that is
    gone: neither is a failure, and the others have their turn.
    """
    queue = Queue(database18)
    queue.conn.execute("CREATE TABLE streamvibe.stored (about text)")
    beside = queue.value("SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'stored'")
    commands = (
        "SELECT unnest(ARRAY['VACUUM (FULL, SKIP_LOCKED) streamvibe.stored', 'VACUUM (SKIP_LOCKED) streamvibe.gone',"
        " 'ANALYZE public.job_log'])"
    )
    [usual] = only("vacuum_small_tables")
    with database18.connect(autocommit=False) as reader:
        reader.execute(f"SELECT count(*) FROM {beside}".encode())
        queue.conn.execute("SET statement_timeout = '1s'")
        both = (
            "SELECT (SELECT count(*) FROM streamvibe.stored),"
            " (SELECT count(*) FROM streamvibe.duty_run WHERE done = 1)"
        )
        async with maintained(database18, [replace(usual, sql=commands)]):
            # All the time: it would wait behind the vacuum that waits.
            await eventually(
                lambda: queue.conn.execute(both).fetchone() == (0, 1), "the last of them is done"
            )
    assert queue.value("SELECT count(*) FROM streamvibe.duty_run WHERE error IS NOT NULL") == 0


async def test_what_only_the_owner_may_do_is_left_out(database18: Database) -> None:
    """As the service nothing is rebuilt, vacuumed or analyzed, and that is no failure."""
    queue = Queue(database18)
    with bloated(queue):
        names = ("vacuum_small_tables", "reindex_bloated", "analyze_parents")
        async with maintained(database18, only(*names), "service_role"):
            ended = "SELECT count(DISTINCT duty) FROM streamvibe.duty_run WHERE done = 0 AND error IS NULL"
            await eventually(lambda: queue.value(ended) == 3, "all have run")
        assert queue.value("SELECT count(*) FROM streamvibe.duty_run WHERE error IS NOT NULL") == 0


async def test_reports_are_made_by_maintenance(database18: Database) -> None:
    """As the service, once a period however often it looks; the figures of the days come with it."""
    queue = Queue(database18)
    database18.advance_clock(timedelta(days=40))
    async with maintained(
        database18, only("daily_report", "weekly_report", "monthly_report"), "service_role"
    ):
        looked = (
            "SELECT count(*) FROM (SELECT FROM streamvibe.duty_run GROUP BY duty HAVING sum(runs) >= 3) d"
        )
        await eventually(lambda: queue.value(looked) == 3, "each has looked three times")
    made = "SELECT count(*) FROM get_reports(%s, 1000)"
    assert [queue.value(made.replace("%s", f"'{kind}'")) for kind in ("daily", "weekly", "monthly")] == [
        7,
        1,
        1,
    ]
    assert queue.value("SELECT count(*) FROM streamvibe.duty_run WHERE error IS NOT NULL") == 0
    assert queue.value("SELECT sum(done) FROM streamvibe.duty_run WHERE duty = 'weekly_report'") == 1
