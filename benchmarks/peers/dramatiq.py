"""Dramatiq on Redis: one worker process with its default eight threads, no result backend."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import dramatiq
import redis
from agent import Adapter, Item
from dramatiq.brokers.redis import RedisBroker

REQUIREMENTS = ["dramatiq[redis]==2.2.1"]
NEEDS_REDIS = True
THREADS = 8
CALLERS = 10


class System(Adapter):
    packages = ("dramatiq", "redis")
    bulk_size = 1000

    def _declare(self, run):
        self._broker = RedisBroker(url=self.options["redis_url"])
        dramatiq.set_broker(self._broker)
        self._noop = dramatiq.actor(run, actor_name="noop", max_retries=0)

    async def open(self):
        self._declare(lambda user, number, sent: None)
        self._callers = ThreadPoolExecutor(CALLERS)
        self._redis = redis.Redis.from_url(self.options["redis_url"])

    async def close(self):
        if hasattr(self, "_callers"):
            self._callers.shutdown()

    async def enqueue_one(self, item: Item):
        await asyncio.get_running_loop().run_in_executor(self._callers, self._noop.send, *item)

    async def enqueue_bulk(self, items):
        # It has no bulk call: one thread sends one after the other, which is faster than ten that share the GIL.
        def send():
            for item in items:
                self._noop.send(*item)

        await asyncio.get_running_loop().run_in_executor(self._callers, send)

    async def unfinished(self):
        # Messages stay here until they are acknowledged.
        return self._redis.hlen("dramatiq:default.msgs") > 0

    async def work(self, handled):
        lock = threading.Lock()

        def run(user, number, sent):
            with lock:
                handled(number, sent)

        self._declare(run)
        worker = dramatiq.Worker(self._broker, worker_threads=THREADS)
        worker.start()
        try:
            await self.until_cancelled()
        finally:
            await asyncio.to_thread(worker.stop)
