"""The how-to pages' examples run."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.docs.pages import ROOT, example
from tests.support.databases import Database, temporary_roles

from streamvibe import Client, Worker

HOW_TO = ROOT / "docs" / "how-to"


async def test_the_example_of_a_handler_works(database18: Database) -> None:
    """The handler of write-a-handler.md can be requested and run as it stands there."""
    names: dict[str, Any] = {}
    exec(compile(example(HOW_TO / "write-a-handler.md", "handler", "python"), "handler", "exec"), names)
    handler, params = names["send_invoice"], names["Invoice"](number=7)
    async with Client(database18.dsn) as client:
        await client.register(handler)
        asked = await client.request(handler, params, user_id=uuid4())
        await asyncio.wait_for(Worker(database18.dsn, [handler]).run_until_idle(), 30)
        done = await client.result(asked.job_id, job_type=handler)
    assert done.result == names["Sent"](message_id="invoice-7")


async def test_a_handler_requests_jobs_as_documented(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client without a connection string that a handler makes uses its worker's database, not the environment's."""
    monkeypatch.setenv("STREAMVIBE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/elsewhere")
    names: dict[str, Any] = {}
    exec(compile(example(HOW_TO / "write-a-handler.md", "requesting", "python"), "handler", "exec"), names)
    both = names["split_up"], names["add_up"]
    async with Client(database18.dsn) as client:
        await client.register(*both)
        asked = await client.request(names["split_up"], {"numbers": list(range(150))}, user_id=uuid4())
        assert await asyncio.wait_for(Worker(database18.dsn, both).run_until_idle(), 30) == 3
        done = await client.result(asked.job_id, job_type=names["split_up"])
        job_ids = done.result or []
        assert [(await client.result(job_id)).result for job_id in job_ids] == [4950, 6225]


async def test_the_example_of_a_transactional_handler_works(database18: Database) -> None:
    """The transfer of write-a-handler.md moves the money once, and none when there is not enough."""
    names: dict[str, Any] = {}
    exec(
        compile(example(HOW_TO / "write-a-handler.md", "transactional handler", "python"), "h", "exec"), names
    )
    source, target = uuid4(), uuid4()
    conn = database18.connect()
    conn.execute("CREATE TABLE balance (id uuid PRIMARY KEY, cents integer)")
    conn.execute("INSERT INTO balance VALUES (%s, 100), (%s, 0)", [source, target])
    handler = names["transfer"]
    async with Client(database18.dsn) as client:
        await client.register(handler)
        asked = [
            await client.request(
                handler, names["Transfer"](source=source, target=target, cents=c), user_id=uuid4()
            )
            for c in (70, 60)
        ]
        await asyncio.wait_for(Worker(database18.dsn, [handler]).run_until_idle(), 30)
        statuses = [(await client.get(one.job_id)).status for one in asked]
    assert sorted(statuses) == ["completed", "failed"]
    left = 30 if statuses[0] == "completed" else 40
    assert conn.execute("SELECT cents FROM balance ORDER BY cents").fetchall() == sorted(
        [(left,), (100 - left,)]
    )


def test_an_application_becomes_the_service_as_documented(database18: Database) -> None:
    """After the documented GRANT and ALTER ROLE, a login of the role app is the service; before, it is nobody."""
    setup = example(HOW_TO / "run-on-your-own-postgresql.md", "application role", "sql")
    with temporary_roles(database18.server, "app"):
        login = psycopg.conninfo.make_conninfo(database18.dsn, user="app")
        with psycopg.connect(login) as before:
            assert_refused(before, "SELECT * FROM get_job_queue_stats()")
        with database18.connect() as admin:
            admin.execute(setup.encode())
        with psycopg.connect(login) as after:
            assert after.execute("SELECT total_jobs FROM get_job_queue_stats()").fetchone() == (0,)


def test_a_user_asks_as_documented(database18: Database) -> None:
    """The documented statements make a request of the user in the claims, and of nobody else."""
    with database18.connect() as conn, conn.transaction():
        cursor = conn.execute(example(HOW_TO / "run-on-your-own-postgresql.md", "user", "sql").encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None and row[0] == "created"
        job = conn.execute("SELECT user_id FROM get_job(%s)", [row[1]]).fetchone()
    assert job == (UUID("00000000-0000-4000-8000-000000000001"),)


def assert_refused(conn: psycopg.Connection, statement: str) -> None:
    """The statement is refused for want of a right."""
    try:
        conn.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return
    raise AssertionError(f"allowed: {statement}")
