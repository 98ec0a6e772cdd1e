"""Procrastinate: psycopg, many jobs at once in one worker, bulk by batch_defer."""

import procrastinate
from agent import Adapter, Item

REQUIREMENTS = ["procrastinate==3.10.0", "psycopg[binary,pool]>=3.2"]
CONCURRENCY = 30


class System(Adapter):
    packages = ("procrastinate", "psycopg", "psycopg-binary")
    bulk_size = 1000

    def _app(self, handled=None):
        app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=self.url, min_size=10, max_size=20)
        )

        @app.task(name="noop")
        async def noop(user, number, sent):
            handled(number, sent)

        return app

    async def setup(self):
        async with self._app().open_async() as opened:
            await opened.schema_manager.apply_schema_async()

    async def open(self):
        self._producer = self._app()
        await self._producer.open_async()
        self._task = self._producer.tasks["noop"]

    async def close(self):
        if hasattr(self, "_producer"):
            await self._producer.close_async()

    async def enqueue_one(self, item: Item):
        await self._task.defer_async(**item._asdict())

    async def enqueue_bulk(self, items):
        await self._task.batch_defer_async(*(item._asdict() for item in items))

    async def unfinished(self):
        row = await self._producer.connector.execute_query_one_async(
            "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS found"
        )
        return row["found"]

    async def work(self, handled):
        async with self._app(handled).open_async() as opened:
            await opened.run_worker_async(
                concurrency=CONCURRENCY,
                install_signal_handlers=False,
                listen_notify=True,
                delete_jobs="never",
            )
