"""Chancy: the asynchronous executor, a queue that polls eagerly, notifications on, bulk by push_many."""

import logging

from agent import Adapter, Item
from chancy import Chancy, Queue, Worker, job

REQUIREMENTS = ["chancy==0.26.0", "psycopg[binary,pool]>=3.2"]
CONCURRENCY = 500

handlers = []
# Its own logger writes a line for every job.
QUIET = logging.getLogger("noop")


@job(queue="noop")
async def noop(*, user: str, number: int, sent: int):
    handlers[0](number, sent)


class System(Adapter):
    packages = ("chancy", "psycopg", "psycopg-binary")
    bulk_size = 1000

    async def setup(self):
        async with Chancy(self.url) as chancy:
            await chancy.migrate()
            await chancy.declare(
                Queue(
                    "noop",
                    concurrency=CONCURRENCY,
                    executor="chancy.executors.asyncex.AsyncExecutor",
                    polling_interval=1,
                    eager_polling=True,
                ),
                upsert=True,
            )

    async def open(self):
        self._chancy = Chancy(self.url, min_connection_pool_size=10)
        await self._chancy.__aenter__()

    async def close(self):
        if hasattr(self, "_chancy"):
            await self._chancy.__aexit__(None, None, None)

    async def enqueue_one(self, item: Item):
        await self._chancy.push(noop.job.with_kwargs(**item._asdict()))

    async def enqueue_bulk(self, items):
        async for _ in self._chancy.push_many([noop.job.with_kwargs(**item._asdict()) for item in items]):
            pass

    async def unfinished(self):
        async with self._chancy.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying'))"
            )
            return (await cursor.fetchone())[0]

    async def work(self, handled):
        handlers.append(handled)
        async with Chancy(self.url, log=QUIET) as chancy, Worker(chancy, register_signal_handlers=False):
            await self.until_cancelled()
