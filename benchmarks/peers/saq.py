"""SAQ on PostgreSQL: one worker with many jobs at once; it has no bulk call, so bulk keeps ten calls in flight."""

import asyncio

from agent import Adapter, Item
from psycopg_pool import AsyncConnectionPool
from saq import Worker
from saq.queue.postgres import PostgresQueue

REQUIREMENTS = ["saq[postgres]==0.26.4", "psycopg[binary,pool]>=3.2"]
CONCURRENCY = 20
CONNECTIONS = 10

handlers = []


async def noop(context, *, user, number, sent):
    handlers[0](number, sent)
    return number


class System(Adapter):
    packages = ("saq", "psycopg", "psycopg-binary")
    bulk_size = 1000

    async def _queue(self):
        pool = AsyncConnectionPool(self.url, min_size=CONNECTIONS, max_size=CONNECTIONS * 2, open=False)
        queue = PostgresQueue(pool=pool, manage_pool_lifecycle=True)
        await queue.connect()
        return queue

    async def setup(self):
        await (await self._queue()).disconnect()

    async def open(self):
        self._producer = await self._queue()

    async def close(self):
        if hasattr(self, "_producer"):
            await self._producer.disconnect()

    async def enqueue_one(self, item: Item):
        await self._producer.enqueue("noop", **item._asdict())

    async def enqueue_bulk(self, items):
        rest = iter(items)

        async def lane():
            for item in rest:
                await self.enqueue_one(item)

        await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))

    async def unfinished(self):
        async with self._producer.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT EXISTS (SELECT FROM saq_jobs WHERE status IN ('new', 'queued', 'active'))"
            )
            return (await cursor.fetchone())[0]

    async def work(self, handled):
        handlers.append(handled)
        queue = await self._queue()
        worker = Worker(queue, [noop], concurrency=CONCURRENCY)
        worker.SIGNALS = []
        await worker.start()
        await queue.disconnect()
