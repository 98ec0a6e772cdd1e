"""A worker of the simulated month, in a process of its own: it is killed, or stopped, at any moment."""

import asyncio
import random
import sys
from datetime import timedelta
from typing import Any

from streamvibe import Context, JobType, PermanentError, RetryLater, Worker, job_type

Params = dict[str, Any]
#: In the queue's time, which passes an hour at a step.
SOON = timedelta(minutes=10)


def job_types() -> list[JobType[Any, Any]]:
    """What the platform of this month does."""

    @job_type("sync", max_live_jobs=1000, retention=timedelta(days=7), log_retention=timedelta(days=10))
    async def sync(ctx: Context, params: Params) -> Params:
        ctx.log("synced", n=params["n"])
        return {"videos": params["n"] % 50}

    @job_type("flaky", max_live_jobs=1000, max_attempts=4, log_retention=timedelta(days=10))
    async def flaky(ctx: Context, params: Params) -> None:
        if random.random() < 0.3:
            ctx.log("it did not answer", level="warning", attempt=ctx.attempt)
            raise RetryLater(SOON.total_seconds())

    @job_type("broken", max_live_jobs=1000, log_retention=timedelta(days=10))
    async def broken(ctx: Context, params: Params) -> None:
        raise PermanentError("the channel is gone")

    @job_type("brief", max_live_jobs=1000, retention=timedelta(days=2), log_retention=timedelta(days=10))
    async def brief(ctx: Context, params: Params) -> None:
        await asyncio.sleep(0.002)

    return [sync, flaky, broken, brief]


def worker(dsn: str, lease: timedelta) -> Worker:
    """A worker of all types; its lease passes in the queue's time, its heartbeats do not."""
    return Worker(dsn, job_types(), concurrency=20, lease=lease, poll_interval=timedelta(milliseconds=50))


if __name__ == "__main__":
    asyncio.run(worker(sys.argv[1], timedelta(hours=float(sys.argv[2]))).run())
