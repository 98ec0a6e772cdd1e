"""Celery on Redis: two prefork children on two cores, a long prefetch, late acknowledgement off, no results.

The worker is `celery worker` in a process of its own; its children note each start in a file.
"""

import asyncio
import os
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from celery import Celery

REQUIREMENTS = ["celery[redis]==5.7.0"]
NEEDS_REDIS = True
CHILDREN = 2
PREFETCH = 64
CALLERS = 10


def application(url, spool):
    app = Celery("noop", broker=url)
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=PREFETCH,
        broker_pool_limit=CALLERS,
        broker_connection_retry_on_startup=True,
    )
    record, files = struct.Struct("qqq"), []

    @app.task(name="noop")
    def noop(user, number, sent):
        if not files:
            files.append(os.open(spool, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        os.write(files[0], record.pack(number, sent, time.monotonic_ns()))

    return app, noop


if __name__ == "__main__":
    application(sys.argv[1], sys.argv[2])[0].worker_main(
        [
            "worker",
            f"--concurrency={CHILDREN}",
            "--loglevel=WARNING",
            "-Ofair",
            "--without-gossip",
            "--without-mingle",
        ]
    )
    sys.exit()

import redis  # noqa: E402 - not in the worker
from agent import Adapter, Item  # noqa: E402


class System(Adapter):
    packages = ("celery", "kombu", "redis")
    bulk_size = 1000
    spooled = True

    async def open(self):
        _, self._noop = application(self.options["redis_url"], self.spool)
        self._callers = ThreadPoolExecutor(CALLERS)
        self._redis = redis.Redis.from_url(self.options["redis_url"])

    async def close(self):
        if hasattr(self, "_callers"):
            self._callers.shutdown()

    async def enqueue_one(self, item: Item):
        await asyncio.get_running_loop().run_in_executor(self._callers, self._noop.delay, *item)

    async def enqueue_bulk(self, items):
        # It has no bulk call; one open producer saves a look at the pool for each.
        def send():
            with self._noop.app.producer_or_acquire() as producer:
                for item in items:
                    self._noop.apply_async(item, producer=producer)

        await asyncio.get_running_loop().run_in_executor(self._callers, send)

    async def unfinished(self):
        return self._redis.llen("celery") > 0 or self._redis.hlen("unacked") > 0

    async def work(self, handled):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", __file__, self.options["redis_url"], self.spool
        )
        try:
            await process.wait()
            raise RuntimeError(f"celery ended with status {process.returncode}")
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
