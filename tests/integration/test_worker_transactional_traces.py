"""What a transactional handler does to its connection stays its own: settings, roles, and the transaction itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.integration.transactional_kit import Effects, Params, one_lane, write_effect
from tests.integration.worker_kit import run_all
from tests.support.databases import Database, temporary_roles

from streamvibe import Context, job_type
from streamvibe.errors import InvalidArgument

pytestmark = pytest.mark.usefixtures("unhurried")

STATE = """
SELECT current_user, session_user, current_setting('role'), current_setting('request.jwt.claims', true),
       current_setting('search_path'), current_setting('statement_timeout'), current_setting('work_mem'),
       current_setting('app.secret', true), current_setting('idle_in_transaction_session_timeout'),
       to_regclass('pg_temp.scratch') IS NULL,
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""
TRACES = (
    "SET ROLE authenticated",
    "SET LOCAL ROLE authenticated",
    "SET SESSION AUTHORIZATION authenticated",
    "SELECT set_config('role', 'anon', false)",
    'SET request.jwt.claims = \'{"sub": "another user"}\'',
    'SET LOCAL request.jwt.claims = \'{"sub": "another user"}\'',
    "SET search_path = elsewhere",
    "SET LOCAL statement_timeout = '1ms'",
    "SET idle_in_transaction_session_timeout = 0",
    "SET work_mem = '64kB'",
    "SELECT set_config('app.secret', 'another user''s', true)",
    "SELECT set_config('app.secret', 'another user''s', false)",
    "CREATE TEMP TABLE scratch AS SELECT 1",
    "SELECT pg_advisory_lock(7), pg_advisory_lock(7)",
    "SAVEPOINT streamvibe_2",
)


@pytest.mark.parametrize("ends", ["returns", "raises"])
async def test_what_a_handler_set_is_gone_when_the_next_begins(database: Database, ends: str) -> None:
    """Every kind of setting, in one transaction and from one to the next: each handler finds the session as it was."""
    states: list[Any] = []

    @job_type("sets", transactional=True, max_attempts=1)
    async def sets(ctx: Context, params: Params) -> None:
        states.append(await (await ctx.connection.execute(STATE)).fetchone())
        await write_effect(ctx)
        ctx.connection.row_factory = dict_row
        if params["n"] < len(TRACES):
            await ctx.connection.execute(TRACES[params["n"]].encode())
        if ends == "raises" and params["n"] % 2:
            raise ValueError("after that")

    queue = Effects(database, sets)
    jobs = [queue.request("sets", {"n": n}) for n in range(len(TRACES) + 1)]
    await one_lane(database, sets, most=8).run_until_idle()
    states = [tuple(state.values()) if isinstance(state, dict) else tuple(state) for state in states]
    # A setting that nobody had made is NULL, and then empty: for PostgreSQL the same.
    assert {tuple(value or "" for value in state) for state in states} == {
        tuple(value or "" for value in states[0])
    }
    assert states[0][2] == "none" and states[0][-2:] == (True, 0)
    failed = [n for n, job_id in enumerate(jobs) if queue.row(job_id)["status"] == "failed"]
    assert failed == ([n for n in range(len(jobs)) if n % 2] if ends == "raises" else [])
    assert [len(queue.effects(job_id)) for job_id in jobs] == [int(n not in failed) for n in range(len(jobs))]


async def test_the_role_the_connection_began_with_comes_back(database18: Database) -> None:
    """A login that is the service by ALTER ROLE … SET role is so again after each handler."""
    roles: list[Any] = []

    @job_type("roles", transactional=True, max_attempts=1)
    async def roles_type(ctx: Context, params: Params) -> None:
        roles.append(await (await ctx.connection.execute("SELECT current_user::text")).fetchone())
        await ctx.connection.execute("SET ROLE authenticated")

    queue = Effects(database18, roles_type)
    jobs = [queue.request("roles") for _ in range(3)]
    with temporary_roles(database18.server, "app"):
        queue.conn.execute("GRANT service_role, authenticated TO app")
        queue.conn.execute("ALTER ROLE app SET role = service_role")
        dsn = psycopg.conninfo.make_conninfo(database18.dsn, user="app")
        worker = one_lane(Database(database18.server, database18.name), roles_type)
        worker._transactions._dsn = dsn
        await worker.run_until_idle()
    assert roles == [("service_role",)] * 3
    assert {queue.row(job_id)["status"] for job_id in jobs} == {"completed"}


async def _sql(ctx: Context, *statements: str) -> None:
    for statement in statements:
        await ctx.connection.execute(statement.encode())


async def _swallow(ctx: Context, *statements: str) -> None:
    for statement in statements:
        try:
            await ctx.connection.execute(statement.encode())
        except psycopg.Error:
            continue


async def _use_as_context(ctx: Context) -> None:
    async with ctx.connection:
        await ctx.connection.execute("SELECT 1")


async def _leave_a_task(ctx: Context) -> None:
    strays.add(asyncio.ensure_future(_swallow(ctx, "SELECT pg_sleep(20)")))
    await asyncio.sleep(0.05)


strays: "set[asyncio.Future[Any]]" = set()
MISUSES: dict[str, tuple[str, Callable[[Context], Awaitable[Any]]]] = {
    "COMMIT": ("the handler ended the transaction", lambda ctx: _sql(ctx, "COMMIT")),
    "END": ("the handler ended the transaction", lambda ctx: _swallow(ctx, "SELECT 1; END")),
    "ROLLBACK": ("the handler ended the transaction", lambda ctx: _sql(ctx, "ROLLBACK")),
    "COMMIT; BEGIN": ("savepoint", lambda ctx: _swallow(ctx, "COMMIT", "BEGIN", "SELECT 1")),
    "ROLLBACK AND CHAIN": ("savepoint", lambda ctx: _sql(ctx, "ROLLBACK AND CHAIN")),
    "ROLLBACK TO ours": ("savepoint", lambda ctx: _sql(ctx, "RELEASE SAVEPOINT streamvibe_0")),
    "PREPARE": ("the handler ended the transaction", lambda ctx: _swallow(ctx, "PREPARE TRANSACTION 'x'")),
    "ALL IMMEDIATE": ("ends with its jobs", lambda ctx: _sql(ctx, "SET CONSTRAINTS ALL IMMEDIATE")),
    "commit()": ("the worker's to end", lambda ctx: ctx.connection.commit()),
    "rollback()": ("the worker's to end", lambda ctx: ctx.connection.rollback()),
    "close()": ("the worker's to end", lambda ctx: ctx.connection.close()),
    "set_autocommit()": ("the worker's to end", lambda ctx: ctx.connection.set_autocommit(False)),
    "async with": ("the worker's to end", _use_as_context),
    "swallowed error": (
        "after an error of the database",
        lambda ctx: _swallow(ctx, "SELECT 1/0", "SELECT 1"),
    ),
    "stray task": ("still using its connection", _leave_a_task),
}


@pytest.mark.parametrize("misuse", MISUSES)
async def test_a_handler_that_ends_the_transaction_fails_alone(database: Database, misuse: str) -> None:
    """In the middle of a batch: it fails and says why, none of its writes are left, its neighbours take effect once."""
    message, misused = MISUSES[misuse]

    @job_type("misuses", transactional=True, max_attempts=1)
    async def misuses(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if params["n"] == 2:
            await misused(ctx)

    queue = Effects(database, misuses)
    jobs = [queue.request("misuses", {"n": n}) for n in range(5)]
    await one_lane(database, misuses).run_until_idle()
    await asyncio.gather(*strays, return_exceptions=True)
    strays.clear()
    outcomes = [queue.outcome(job_id) for job_id in jobs]
    assert [outcome for n, outcome in enumerate(outcomes) if n != 2] == [("completed", None, 0, [""])] * 4
    assert (outcomes[2][0], outcomes[2][2:]) == ("failed", (1, []))
    assert message in queue.row(jobs[2])["error_message"]


async def test_what_a_handler_left_running_ends_before_its_connection(database18: Database) -> None:
    """Time and again: no statement outlives its connection, to read the next one's answers or freed memory."""

    async def stray(ctx: Context) -> None:
        with pytest.raises(psycopg.Error):
            await ctx.connection.execute("SELECT pg_sleep(20)")

    @job_type("leaves", transactional=True, max_attempts=1)
    async def leaves(ctx: Context, params: Params) -> None:
        await write_effect(ctx)
        if params["n"] % 2:
            strays.add(asyncio.ensure_future(stray(ctx)))
            await asyncio.sleep(0.02)

    queue = Effects(database18, leaves)
    jobs = [queue.request("leaves", {"n": n}) for n in range(30)]
    await one_lane(database18, leaves).run_until_idle()
    assert [task.done() for task in strays] == [True] * 15
    assert await asyncio.gather(*strays) == [None] * 15
    strays.clear()
    outcomes = [queue.outcome(job_id) for job_id in jobs]
    assert outcomes[::2] == [("completed", None, 0, [""])] * 15
    assert [(outcome[0], *outcome[2:]) for outcome in outcomes[1::2]] == [("failed", 1, [])] * 15


async def test_savepoints_and_constraints_of_its_own(database18: Database) -> None:
    """A handler may use connection.transaction(), also to survive an error, and check named constraints early."""

    @job_type("nested", transactional=True, max_attempts=1)
    async def nested(ctx: Context, params: Params) -> str:
        async with ctx.connection.transaction():
            await write_effect(ctx, "kept")
        try:
            async with ctx.connection.transaction():
                await write_effect(ctx, "dropped")
                await ctx.connection.execute("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            pass
        await ctx.connection.execute("SET CONSTRAINTS only_once IMMEDIATE")
        async with ctx.connection.pipeline():
            await write_effect(ctx, "piped")
        return "fine"

    queue = Effects(database18, nested)
    jobs = [queue.request("nested") for _ in range(3)]
    await one_lane(database18, nested).run_until_idle()
    assert [sorted(queue.effects(job_id)) for job_id in jobs] == [["kept", "piped"]] * 3
    assert {queue.row(job_id)["result"] for job_id in jobs} == {"fine"}


async def test_only_a_transactional_job_that_runs_has_a_connection(database18: Database) -> None:
    """Otherwise ctx.connection raises InvalidArgument, which says what to do."""
    errors: list[InvalidArgument] = []
    kept: list[Context] = []

    @job_type("plain")
    async def plain(ctx: Context, params: Params) -> None:
        with pytest.raises(InvalidArgument) as caught:
            ctx.connection  # noqa: B018
        errors.append(caught.value)

    @job_type("keeps", transactional=True)
    async def keeps(ctx: Context, params: Params) -> None:
        kept.append(ctx)

    queue = Effects(database18, plain, keeps)
    queue.request("plain")
    queue.request("keeps")
    await run_all(database18, plain, keeps)
    assert errors[0].field == "connection" and "transactional=True" in str(errors[0])
    with pytest.raises(InvalidArgument) as caught:
        kept[0].connection  # noqa: B018
    assert "before the handler returns" in str(caught.value)
