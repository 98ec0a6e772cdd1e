"""Awa (awa-pg): queue storage, COPY for bulk, a thousand places (two claimers were no faster)."""

from dataclasses import dataclass

import psycopg
from agent import Adapter, Item
from awa import AsyncClient

REQUIREMENTS = ["awa-pg==0.6.9", "psycopg[binary]>=3.2"]
WORKERS = 1000


@dataclass
class Noop:
    user: str
    number: int
    sent: int


class System(Adapter):
    packages = ("awa-pg",)
    bulk_size = 1000

    def __init__(self, url, options):
        # Its driver wants a host before it reads that of the socket from the options.
        super().__init__(url.replace("@/", "@localhost/"), options)

    async def setup(self):
        client = AsyncClient(self.url)
        await client.migrate()
        # On a fresh database, what the first worker would activate.
        await client.install_queue_storage()
        await client.close()

    async def open(self):
        self._client = AsyncClient(self.url)
        self._looks = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        self._enqueued = 0

    async def close(self):
        if hasattr(self, "_client"):
            await self._client.close()
            await self._looks.close()

    async def enqueue_one(self, item: Item):
        self._enqueued += 1
        await self._client.insert(Noop(*item), queue="noop")

    async def enqueue_bulk(self, items):
        self._enqueued += len(items)
        await self._client.enqueue_many_copy([Noop(*item) for item in items], queue="noop")

    async def unfinished(self):
        # Not queue_stats(), nor the view awa.jobs: on tables that were never analyzed either takes 20 seconds after
        # 8,000 jobs. What was completed stands here until it is pruned, and is counted there then.
        cursor = await self._looks.execute(
            "SELECT (SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches)"
            " + (SELECT coalesce(sum(pruned_completed_count), 0) FROM awa.queue_terminal_rollups)"
        )
        return (await cursor.fetchone())[0] < self._enqueued

    async def work(self, handled):
        client = AsyncClient(self.url)

        @client.task(Noop, queue="noop")
        async def noop(job):
            handled(job.args.number, job.args.sent)

        await client.start([{"name": "noop", "max_workers": WORKERS}], poll_interval_ms=50)
        try:
            await self.until_cancelled()
        finally:
            await client.shutdown(2000)
