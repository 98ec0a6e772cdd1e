"""Many connections that all stand behind one gate, then go at once."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import dict_row
from tests.sql.kit import Row, adapted, call_text
from tests.support.databases import Database

GATE = 4711
DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.01
CONNECTING_AT_ONCE = 20

# The gate is passed inside the statement that makes the request: nothing more is sent when it opens.
GATED = b"""
SELECT r.* FROM (SELECT pg_catalog.pg_advisory_lock_shared(%(gate)s) IS NOT NULL AS open OFFSET 0) g
CROSS JOIN LATERAL public.request_job(
    CASE WHEN g.open THEN %(user_id)s::uuid END, 'email', %(params)s::jsonb,
    p_force := %(force)s, p_dedupe_window := %(window)s::interval, p_enforce_limit := %(enforce_limit)s) r
"""
WAITING = """
SELECT count(*) FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objid = %s AND NOT l.granted
"""

Answer = Row | psycopg.Error
Member = AsyncConnection[Row]


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until the condition holds; fails the test at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS:.0f} s in vain until {what}"
        await asyncio.sleep(POLL_SECONDS)


class Crowd:
    """Open connections, one per user given, each signed in as that user (None: as the service)."""

    def __init__(self, database: Database, members: Sequence[Member], users: Sequence[UUID]) -> None:
        self._database = database
        self._members = members
        self._users = users

    async def request(
        self,
        params: Sequence[Row],
        *,
        isolation: IsolationLevel | None = None,
        promises: bool = True,
    ) -> list[Answer]:
        """What each member's request was answered, all sent before the first may start.

        With an isolation level each request stands in a transaction of the member's own, which ends after it.
        """
        keeper = await self._database.aconnect()
        await keeper.execute("SELECT pg_catalog.pg_advisory_lock(%s)", [GATE])
        sent = [
            asyncio.create_task(self._request(member, user_id, wanted, isolation, promises))
            for member, user_id, wanted in zip(self._members, self._users, params, strict=True)
        ]

        async def all_wait() -> bool:
            row = await (await keeper.execute(WAITING.encode(), [GATE])).fetchone()
            return row is not None and row[0] == len(sent)

        await until(all_wait, f"{len(sent)} requests stand at the gate")
        await keeper.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", [GATE])
        return list(await asyncio.wait_for(asyncio.gather(*sent), DEADLINE_SECONDS))

    async def _request(
        self,
        member: Member,
        user_id: UUID,
        params: Row,
        isolation: IsolationLevel | None,
        promises: bool,
    ) -> Answer:
        values = {
            "gate": GATE,
            "user_id": user_id,
            "params": adapted(params),
            "force": not promises,
            "window": None if promises else "0",
            "enforce_limit": promises,
        }
        await member.set_isolation_level(isolation)
        await member.set_autocommit(isolation is None)
        try:
            row = await (await member.execute(GATED, values)).fetchone()
            assert row is not None
            if isolation is not None:
                await member.commit()
        except psycopg.Error as error:
            await member.rollback()
            return error
        finally:
            await member.set_autocommit(True)
            await member.execute("SELECT pg_catalog.pg_advisory_unlock_all()")
        return row


@asynccontextmanager
async def crowd(database: Database, users: Sequence[UUID], *, service: bool = False) -> AsyncIterator[Crowd]:
    """A connection for each entry of `users`, as role authenticated, or as service_role."""
    free = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def join(user_id: UUID) -> Member:
        async with free:
            member: Any = await database.aconnect("service_role" if service else "authenticated")
            member.row_factory = dict_row
            claims = orjson.dumps({"sub": str(user_id), "role": "authenticated"}).decode()
            await member.execute("SELECT pg_catalog.set_config('request.jwt.claims', %s, false)", [claims])
            found: Member = member
            return found

    members = await asyncio.gather(*(join(user_id) for user_id in users))
    try:
        yield Crowd(database, members, users)
    finally:
        for member in members:
            await member.close()


def tally(answers: Sequence[Answer]) -> dict[str, int]:
    """How many answers of each kind: an outcome, or the code of a refusal."""
    return dict(
        Counter(str(a.diag.sqlstate) if isinstance(a, psycopg.Error) else a["outcome"] for a in answers)
    )


async def acall(conn: AsyncConnection[Any], function: str, **arguments: Any) -> list[Row]:
    """The rows of one function call."""
    values = {key: adapted(value) for key, value in arguments.items()}
    async with conn.cursor(row_factory=dict_row) as cursor:
        text = b"SELECT * FROM " + call_text(conn, function, values)
        return await (await cursor.execute(text, values)).fetchall()
