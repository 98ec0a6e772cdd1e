"""StreamVibe, measured: default guarantees, params validated, results stored."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

if __package__:
    from streamvibe.bench.agent import Adapter, Item
else:  # loaded by agent.py, by its path
    from agent import Adapter, Item  # type: ignore[import-not-found, no-redef]

import uvloop

import streamvibe
from streamvibe.model import NewJob

WORKER_CONCURRENCY = 500


@dataclass
class Params:
    """What a job is told."""

    number: int
    sent: int


@dataclass
class Done:
    """What it says."""

    number: int


def declare(handled: Callable[[int, int], None]) -> streamvibe.JobType[Params, Done]:
    """The job type: all settings are the defaults."""

    async def noop(context: streamvibe.Context, params: Params) -> Done:
        handled(params.number, params.sent)
        return Done(params.number)

    return streamvibe.job_type("bench.noop")(noop)


class System(Adapter):
    """StreamVibe through ``Client`` and ``Worker``."""

    packages = ("streamvibe", "psycopg", "psycopg-binary", "pydantic", "orjson", "uvloop")
    bulk_size = 1_000_000
    loop_factory = staticmethod(uvloop.new_event_loop)  # as `streamvibe worker` has it

    async def setup(self) -> None:
        """The harness has migrated the database; the type is registered as a worker would."""
        async with streamvibe.Client(self.url) as client:
            await client.register(declare(lambda _number, _sent: None))

    async def open(self) -> None:
        self._client = streamvibe.Client(self.url, max_size=int(self.options.get("connections", 10)))
        self._job_type = declare(lambda _number, _sent: None)
        await self._client.stats()

    async def close(self) -> None:
        if hasattr(self, "_client"):
            await self._client.close()
        if hasattr(self, "_looks"):
            await self._looks.close()

    async def enqueue_one(self, item: Item) -> None:
        await self._client.request(self._job_type, Params(item.number, item.sent), user_id=item.user)

    async def enqueue_urgent(self, item: Item) -> None:
        await self._client.request(
            self._job_type, Params(item.number, item.sent), user_id=item.user, priority=9
        )

    async def enqueue_bulk(self, items: list[Item]) -> None:
        guarded = bool(self.options.get("guarded", False))
        await self._client.create_many(
            [NewJob(item.user, self._job_type, Params(item.number, item.sent)) for item in items],
            dedupe=guarded,
            enforce_limit=guarded,
        )

    async def unfinished(self) -> bool:
        # Not stats(): a count of everything would cost the worker more than one look at an index.
        if not hasattr(self, "_looks"):
            import psycopg

            self._looks = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        cursor = await self._looks.execute(
            "SELECT EXISTS (SELECT FROM public.job_queue WHERE status = 'pending')"
            " OR EXISTS (SELECT FROM public.job_queue WHERE status = 'processing')"
        )
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def work(self, handled: Callable[[int, int], None]) -> None:
        worker = streamvibe.Worker(
            self.url,
            [declare(handled)],
            concurrency=int(self.options.get("concurrency") or WORKER_CONCURRENCY),
        )
        try:
            await worker.run()
        except asyncio.CancelledError:
            print("The worker was stopped.", file=sys.stderr)
            raise
