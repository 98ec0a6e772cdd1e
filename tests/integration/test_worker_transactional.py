"""Transactional jobs: what a handler writes and the job's end commit together, or not at all."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
from tests.integration.transactional_kit import Effects, Params, one_lane, write_effect
from tests.integration.worker_kit import NEVER, USER, at_work, event, eventually, make_worker, run_all
from tests.support.databases import Database

from streamvibe import Context, PermanentError, RetryLater, Worker, job_type
from streamvibe.errors import InvalidArgument
from streamvibe.testing import TestDatabase

AT_ONCE = timedelta(0)
pytestmark = pytest.mark.usefixtures("unhurried")


@job_type("writes", transactional=True)
async def writes(ctx: Context, params: Params) -> Params:
    await write_effect(ctx, params.get("note", ""))
    return {"attempt": ctx.attempt}


async def test_effects_and_end_become_visible_together(database: Database) -> None:
    """While the handler runs, readers see the job processing and none of its writes; then both, with one update."""
    written, go = asyncio.Event(), asyncio.Event()

    @job_type("gated", transactional=True)
    async def gated(ctx: Context, params: Params) -> str:
        await write_effect(ctx)
        written.set()
        await go.wait()
        return "done"

    queue = Effects(database, gated)
    async with at_work(make_worker(database, gated)):
        job_id = queue.request("gated")
        await event(written, "the handler has written")
        assert (queue.seen(job_id), queue.row(job_id)["status"], queue.effects()) == (
            "processing",
            "pending",
            [],
        )
        go.set()
        row = await queue.until(job_id)
    assert (row["status"], row["result"], queue.effects()) == ("completed", "done", [""])
    assert row["started_at"] < row["completed_at"]
    assert queue.versions(job_id) == ["completed"]
    assert queue.value("SELECT count(*) FROM streamvibe.claim") == 0


async def test_many_jobs_have_one_effect_and_one_row_version_each(database: Database) -> None:
    """150 jobs over four lanes, beside ordinary ones: all completed, one effect and one update each."""

    @job_type("ordinary")
    async def ordinary(ctx: Context, params: Params) -> None:
        pass

    queue = Effects(database, writes, ordinary)
    jobs = [queue.request("writes") for _ in range(150)]
    others = [queue.request("ordinary") for _ in range(20)]
    assert await run_all(database, writes, ordinary) == 170
    assert queue.conn.execute(
        "SELECT status, count(*), min(retry_count), max(retry_count) FROM job_queue GROUP BY 1"
    ).fetchall() == [("completed", 170, 0, 0)]
    assert queue.value("SELECT count(*) FROM effect") == queue.value(
        "SELECT count(DISTINCT job_id) FROM effect"
    )
    assert queue.value("SELECT count(*) FROM effect") == len(jobs)
    assert queue.value("SELECT count(*) FROM change") == len(jobs) + len(others)


async def test_a_failed_attempt_leaves_its_lines_and_its_failure_only(database: Database) -> None:
    """Its writes are rolled back, its lines and its failure stay; the next attempt's effect is the only one."""

    @job_type("flaky", transactional=True, backoff_base=AT_ONCE, backoff_max=AT_ONCE)
    async def flaky(ctx: Context, params: Params) -> None:
        ctx.log(f"attempt {ctx.attempt}", n=ctx.attempt)
        ctx.progress(0.5)
        await write_effect(ctx, f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            raise OSError("not yet")

    queue = Effects(database, flaky)
    job_id = queue.request("flaky")
    await run_all(database, flaky)
    assert queue.outcome(job_id) == ("completed", None, 1, ["attempt 2"])
    assert [(line["message"], (line["metadata"] or {}).get("n")) for line in queue.logs(job_id)] == [
        ("attempt 1", 1),
        ("OSError: not yet", None),
        ("attempt 2", 2),
    ]


async def test_every_way_to_fail_leaves_nothing_and_hurts_no_neighbour(database18: Database) -> None:
    """Errors of every kind in one transaction with successes: each job ends by its own rule."""

    @job_type("fails", transactional=True, max_attempts=1)
    async def fails(ctx: Context, params: Params) -> int:
        await write_effect(ctx)
        match params["how"]:
            case "raise":
                raise ValueError("bad")
            case "permanent":
                raise PermanentError("never")
            case "later":
                raise RetryLater(after=7200)
            case "sql":
                await ctx.connection.execute("SELECT 1/0")
            case "deadlock":
                raise psycopg.errors.DeadlockDetected("deadlock detected")
            case "result":
                return "text"  # type: ignore[return-value]
            case "exit":
                raise SystemExit(3)
        return 1

    hows = ["raise", "ok", "permanent", "later", "ok", "sql", "deadlock", "result", "exit", "ok"]
    queue = Effects(database18, fails)
    jobs = [(how, queue.request("fails", {"how": how})) for how in hows]
    await one_lane(database18, fails).run_until_idle()
    expected = {
        "ok": ("completed", None, 0, [""]),
        "raise": ("failed", "error", 1, []),
        "permanent": ("failed", "permanent", 1, []),
        "later": ("failed", "retry_later", 1, []),
        "sql": ("failed", "error", 1, []),
        "deadlock": ("failed", "error", 1, []),
        "result": ("failed", "invalid_result", 1, []),
        "exit": ("failed", "error", 1, []),
    }
    assert [(how, queue.outcome(job_id)) for how, job_id in jobs] == [(how, expected[how]) for how in hows]


async def test_a_result_the_database_refuses_fails_its_job_alone(database18: Database) -> None:
    """Of three jobs in one transaction one returns too much: it fails, with its lines and why; the others complete."""

    @job_type("large", transactional=True)
    async def large(ctx: Context, params: Params) -> str:
        await write_effect(ctx)
        ctx.log("line")
        return "x" * int(params["size"])

    queue = Effects(database18, large)
    jobs = [queue.request("large", {"size": size}) for size in (0, 2**21, 0)]
    await one_lane(database18, large).run_until_idle()
    assert [queue.outcome(job_id) for job_id in jobs] == [
        ("completed", None, 0, [""]),
        ("failed", "invalid_result", 1, []),
        ("completed", None, 0, [""]),
    ]
    assert [len(queue.logs(job_id)) for job_id in jobs] == [1, 2, 1]
    assert any("the database refused the result" in line["message"] for line in queue.logs(jobs[1]))


async def test_a_constraint_that_fails_at_commit_fails_the_guilty_job_only(database: Database) -> None:
    """Of four jobs in one transaction one breaks a DEFERRABLE constraint: it fails, the others are completed."""

    @job_type("unique", transactional=True, max_attempts=1)
    async def unique(ctx: Context, params: Params) -> None:
        await ctx.connection.execute(
            "INSERT INTO effect (job_id, only_once) VALUES (%s, %s)", [ctx.job_id, params["n"]]
        )

    queue = Effects(database, unique)
    queue.conn.execute("INSERT INTO effect (job_id, only_once) VALUES (gen_random_uuid(), 2)")
    jobs = [queue.request("unique", {"n": n}) for n in (1, 2, 3, 4)]
    await one_lane(database, unique).run_until_idle()
    assert [queue.outcome(job_id) for job_id in jobs] == [
        ("completed", None, 0, [""]),
        ("failed", "error", 1, []),
        ("completed", None, 0, [""]),
        ("completed", None, 0, [""]),
    ]
    assert "only_once" in queue.row(jobs[1])["error_message"]
    [line] = queue.logs(jobs[1])
    assert line["log_level"] == "error" and "only_once" in line["message"]


async def test_jobs_whose_neighbour_spoils_their_constraints_are_run_apart(database18: Database) -> None:
    """A deadlock, or any error of the database, counts only if the job meets it in a transaction of its own."""
    tries: list[int] = []

    @job_type("touchy", transactional=True, max_attempts=1)
    async def touchy(ctx: Context, params: Params) -> None:
        tries.append(params["n"])
        await write_effect(ctx)
        if params["n"] == 2 and tries.count(2) == 1:
            raise psycopg.errors.DeadlockDetected("deadlock detected")

    queue = Effects(database18, touchy)
    jobs = [queue.request("touchy", {"n": n}) for n in (1, 2, 3)]
    await one_lane(database18, touchy).run_until_idle()
    assert tries == [1, 2, 3, 2]
    assert [queue.outcome(job_id) for job_id in jobs] == [("completed", None, 0, [""])] * 3


async def test_sleeping_lanes_are_woken(database18: Database) -> None:
    """Without polling, a request of either kind is started; the lanes' sleep and the others' are told apart."""

    @job_type("plain")
    async def plain(ctx: Context, params: Params) -> None:
        pass

    queue = Effects(database18, writes, plain)
    async with at_work(make_worker(database18, writes, plain, poll_interval=NEVER)):
        for name in ("writes", "plain", "plain", "writes"):
            await eventually(
                lambda: queue.value("SELECT bool_and(asleep AND transactions_asleep) FROM streamvibe.worker"),
                "both sleep",
            )
            assert (await queue.until(queue.request(name)))["status"] == "completed"


async def test_a_full_transaction_commits_and_hands_the_rest_back(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a transaction has taken 15 ms it starts no more: what is done is committed, the others run later."""

    @job_type("slow", transactional=True)
    async def slow(ctx: Context, params: Params) -> None:
        await write_effect(ctx, str(await (await ctx.connection.execute("SELECT txid_current()")).fetchone()))
        await asyncio.sleep(0.02)

    monkeypatch.setattr("streamvibe.worker.transaction.FULL_SECONDS", 0.015)
    monkeypatch.setattr("streamvibe.worker.transaction.LONGEST_FULL_SECONDS", 0.015)
    queue = Effects(database18, slow)
    jobs = [queue.request("slow") for _ in range(4)]
    worker = one_lane(database18, slow)
    assert await worker.run_until_idle() == 4
    assert worker._transactions._portions["slow"] == 1
    assert len(set(queue.effects())) == 4
    assert {queue.outcome(job_id)[0] for job_id in jobs} == {"completed"}
    assert all(queue.versions(job_id) == ["completed"] for job_id in jobs)


async def test_quick_jobs_do_not_wait_in_small_portions_for_slow_ones(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a type that takes long, one that is quick is still claimed many at once."""
    transactions: list[object] = []

    @job_type("quick", transactional=True)
    async def quick(ctx: Context, params: Params) -> None:
        transactions.append(await (await ctx.connection.execute("SELECT txid_current()")).fetchone())

    @job_type("slow", transactional=True)
    async def slow(ctx: Context, params: Params) -> None:
        await asyncio.sleep(0.3)

    monkeypatch.setattr("streamvibe.worker.transaction.FULL_SECONDS", 0.3)
    queue = Effects(database18, quick, slow)
    for n in range(100):
        queue.request("quick")
        if n < 3:
            queue.request("slow")
    await one_lane(database18, quick, slow, most=1).run_until_idle()
    assert len(transactions) == 100
    assert len(set(transactions)) < 50


def test_jobs_of_a_test_run_inline(streamvibe_database: TestDatabase) -> None:
    """streamvibe.testing runs transactional jobs as it runs others."""
    with psycopg.connect(streamvibe_database.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE effect (job_id uuid, note text)")
        with streamvibe_database.sync_client() as client:
            client.register(writes)
            asked = client.request(writes, {"note": "inline"}, user_id=USER)
        [job] = streamvibe_database.run_jobs([writes])
        [effect] = conn.execute("SELECT * FROM effect").fetchall()
    assert (job.status, job.result, effect) == ("completed", {"attempt": 1}, (asked.job_id, "inline"))


@pytest.mark.parametrize("transactions", [0, 101])
def test_the_number_of_lanes_is_checked(transactions: int) -> None:
    """It is named when it is out of range."""
    with pytest.raises(InvalidArgument) as caught:
        Worker("postgresql://localhost/none", [writes], transactions=transactions)
    assert caught.value.field == "transactions"
