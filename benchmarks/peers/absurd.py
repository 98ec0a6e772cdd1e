"""Absurd: its Python client and schema; tasks are spawned one by one, because it has no bulk call.

Bulk: ten connections, each spawning its part in one transaction.
"""

import asyncio

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd
from agent import Adapter, Item

REQUIREMENTS = ["absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]>=3.2"]
QUEUE = "noop"
CONNECTIONS = 10
CONCURRENCY = 100
POLL_SECONDS = 0.02


class System(Adapter):
    packages = ("absurd-sdk", "psycopg", "psycopg-binary")
    bulk_size = 1000

    async def setup(self):
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            # What `absurdctl init` applies through psql.
            await connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
            await AsyncAbsurd(connection, queue_name=QUEUE).create_queue()

    async def open(self):
        self._connections = [
            await psycopg.AsyncConnection.connect(self.url, autocommit=True) for _ in range(CONNECTIONS)
        ]
        self._free = asyncio.Queue()
        for connection in self._connections:
            self._free.put_nowait((connection, AsyncAbsurd(connection, queue_name=QUEUE)))

    async def close(self):
        for connection in getattr(self, "_connections", []):
            await connection.close()

    async def enqueue_one(self, item: Item):
        lane = await self._free.get()
        try:
            await lane[1].spawn("noop", item._asdict(), queue=QUEUE)
        finally:
            self._free.put_nowait(lane)

    async def enqueue_bulk(self, items):
        async def spawn(part):
            lane = await self._free.get()
            try:
                async with lane[0].transaction():
                    for item in part:
                        await lane[1].spawn("noop", item._asdict(), queue=QUEUE)
            finally:
                self._free.put_nowait(lane)

        await asyncio.gather(*(spawn(items[n::CONNECTIONS]) for n in range(CONNECTIONS)))

    async def unfinished(self):
        lane = await self._free.get()
        try:
            cursor = await lane[0].execute(
                "SELECT EXISTS (SELECT FROM absurd.t_noop WHERE state IN ('pending', 'running', 'sleeping'))"
            )
            return (await cursor.fetchone())[0]
        finally:
            self._free.put_nowait(lane)

    async def work(self, handled):
        app = AsyncAbsurd(self.url, queue_name=QUEUE)

        @app.register_task(name="noop")
        async def noop(params, context):
            handled(params["number"], params["sent"])
            return {"number": params["number"]}

        try:
            await app.start_worker(concurrency=CONCURRENCY, poll_interval=POLL_SECONDS)
        finally:
            await app.close()
