"""Oban for Python: one queue with a high limit, a pool for it, bulk by enqueue_many."""

import uvloop
from agent import Adapter, Item
from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

REQUIREMENTS = ["oban==0.7.0", "uvloop>=0.22"]
PYTHON = (3, 12)
LIMIT = 500

handlers = []


@worker(queue="default")
class Noop:
    async def process(self, job):
        handlers[0](job.args["number"], job.args["sent"])


def job_of(item: Item):
    return Noop.new(item._asdict())


class System(Adapter):
    packages = ("oban", "psycopg", "psycopg-binary", "uvloop")
    loop_factory = uvloop.new_event_loop
    bulk_size = 1000

    async def _pool(self):
        pool = AsyncConnectionPool(self.url, min_size=10, max_size=10, open=False)
        await pool.open(wait=True)
        return pool

    async def setup(self):
        pool = await self._pool()
        await install(pool)
        await pool.close()

    async def open(self):
        self._producers = await self._pool()
        self._oban = Oban(pool=self._producers)

    async def close(self):
        if hasattr(self, "_producers"):
            await self._producers.close()

    async def enqueue_one(self, item: Item):
        await self._oban.enqueue(job_of(item))

    async def enqueue_bulk(self, items):
        await self._oban.enqueue_many(job_of(item) for item in items)

    async def unfinished(self):
        async with self._producers.connection() as connection:
            cursor = await connection.execute(
                "SELECT EXISTS (SELECT FROM oban_jobs WHERE state IN ('available', 'executing', 'scheduled'))"
            )
            return (await cursor.fetchone())[0]

    async def work(self, handled):
        handlers.append(handled)
        pool = await self._pool()
        oban = Oban(pool=pool, queues={"default": LIMIT})
        await oban.start()
        try:
            await self.until_cancelled()
        finally:
            await oban.stop()
            await pool.close()
