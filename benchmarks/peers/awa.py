"""Awa (awa-pg): queue storage as its migration sets it up, COPY for bulk, a queue with claimers of its own."""

from dataclasses import dataclass

from agent import Adapter, Item
from awa import AsyncClient

REQUIREMENTS = ["awa-pg==0.6.9", "psycopg[binary]>=3.2"]
WORKERS = 256


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

    async def close(self):
        if hasattr(self, "_client"):
            await self._client.close()

    async def enqueue_one(self, item: Item):
        await self._client.insert(Noop(*item), queue="noop")

    async def enqueue_bulk(self, items):
        await self._client.enqueue_many_copy([Noop(*item) for item in items], queue="noop")

    async def unfinished(self):
        stats = await self._client.queue_stats()
        return any(stat.total_queued or stat.running for stat in stats)

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
