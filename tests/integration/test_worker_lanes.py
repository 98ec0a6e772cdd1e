"""Waiting for ends to be written."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from tests.support.databases import Database

from streamvibe.db.session import Session
from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.flush import End, Flusher
from streamvibe.worker.lanes import Lanes


class Gated(Session):
    """A session whose replies wait for a gate."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, application_name="gated")
        self.gate = asyncio.Event()

    async def fetch(
        self, sql: Any, params: Sequence[object] = (), *, limits: Any = "usual"
    ) -> list[tuple[Any, ...]]:
        rows = await super().fetch(sql, params, limits=limits)
        await self.gate.wait()
        return rows


@pytest.mark.parametrize("turns", range(6))
async def test_a_round_that_ends_while_somebody_begins_to_wait_counts(
    database18: Database, turns: int
) -> None:
    """Whoever waits for ends to be written returns, whenever in between the last of them is."""
    sessions = [Gated(database18.dsn) for _ in range(2)]
    lanes = Lanes([Flusher(session, "w", lambda _ends: None) for session in sessions])
    running = asyncio.create_task(lanes.run())
    row = (1, str(uuid4()), str(uuid4()), "any", "{}", 1, 3, 30.0, False, None)
    lanes.add_end(End(ClaimedJob(row, lambda _job: None), "released", None))
    await asyncio.sleep(0.2)
    assert lanes.waiting == 1
    waiting = asyncio.create_task(lanes.at_most(0))
    for _ in range(turns):
        await asyncio.sleep(0)
    for session in sessions:
        session.gate.set()
    await asyncio.wait_for(waiting, 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for session in sessions:
        await session.close()
