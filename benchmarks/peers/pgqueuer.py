"""PgQueuer: asyncpg, uvloop, batches as large as its own benchmark takes them, jobs deleted when done."""

import asyncio
import json

import asyncpg
import uvloop
from agent import Adapter, Item
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

REQUIREMENTS = ["pgqueuer[asyncpg]==1.6.0", "uvloop>=0.22"]
BATCH = 1000


class System(Adapter):
    packages = ("pgqueuer", "asyncpg", "uvloop")
    loop_factory = uvloop.new_event_loop
    bulk_size = 1000

    async def setup(self):
        connection = await asyncpg.connect(self.url)
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        await queries.optimize_autovacuum()
        await connection.close()

    async def open(self):
        self._pool = await asyncpg.create_pool(self.url, min_size=10, max_size=10)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))

    async def close(self):
        if hasattr(self, "_pool"):
            await self._pool.close()

    async def enqueue_one(self, item: Item):
        await self._queries.enqueue("noop", json.dumps(item).encode())

    async def enqueue_bulk(self, items):
        payloads = [json.dumps(item).encode() for item in items]
        await self._queries.enqueue(["noop"] * len(items), payloads, [0] * len(items))

    async def unfinished(self):
        return await self._pool.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)")

    async def work(self, handled):
        connection = await asyncpg.connect(self.url)
        queue = PgQueuer(AsyncpgDriver(connection))

        @queue.entrypoint("noop")
        async def noop(job: Job) -> None:
            _, number, sent = json.loads(job.payload)
            handled(number, sent)

        try:
            await queue.run(batch_size=BATCH)
        except asyncio.CancelledError:
            queue.shutdown.set()
            raise
        finally:
            await connection.close()
