"""A worker in a process of its own, for tests that kill it. Every start of a handler is appended and fsynced.

It does its imports, says its worker id, starts at a line on standard input and ends when that is closed.
Journal: one line per event: <event> <job id> <token> <pid> <attempt> <kind>
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any, cast

from streamvibe import Context, JobType, Worker, job_type
from streamvibe.worker.context import ClaimedJob

Params = dict[str, Any]
Result = dict[str, int]
NO_BACKOFF = timedelta(0)
#: More than the kills of one run: no innocent job fails because it was killed too often.
PATIENT = 50
CRASH_ATTEMPTS = 3


class Journal:
    """Appends lines that survive whatever happens to this process next."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, event: str, ctx: Context) -> int:
        """Write one line and return the token under which the job runs."""
        token = cast(ClaimedJob, ctx).token
        line = f"{event} {ctx.job_id} {token} {os.getpid()} {ctx.attempt} {ctx.job_type}\n"
        os.write(self._file, line.encode())
        os.fsync(self._file)
        return token


def job_types(journal: Journal) -> list[JobType[Any, Any]]:
    """One job type per kind of behaviour; each returns the token it ran under."""

    @job_type("noop", max_attempts=PATIENT)
    async def noop(ctx: Context, params: Params) -> Result:
        return {"token": journal.note("start", ctx)}

    @job_type("nap", max_attempts=PATIENT)
    async def nap(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        try:
            await asyncio.sleep(params["seconds"])
        except asyncio.CancelledError:
            journal.note("told", ctx)
            raise
        return {"token": token}

    @job_type("chatty", max_attempts=PATIENT)
    async def chatty(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        for number in range(10):
            ctx.log(f"line {number}", token=token)
            ctx.progress(number / 10)
            await asyncio.sleep(params["seconds"] / 10)
        return {"token": token}

    @job_type("flaky", max_attempts=PATIENT, backoff_base=NO_BACKOFF, backoff_max=NO_BACKOFF)
    async def flaky(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        if ctx.attempt == 1:
            raise OSError("the first attempt fails")
        return {"token": token}

    @job_type("thread", max_attempts=PATIENT)
    def thread(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        end = time.monotonic() + params["seconds"]
        while time.monotonic() < end:
            if ctx.cancelled:
                journal.note("told", ctx)
                break
            time.sleep(0.005)
        return {"token": token}

    @job_type("killer", max_attempts=CRASH_ATTEMPTS, backoff_base=NO_BACKOFF, backoff_max=NO_BACKOFF)
    async def killer(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        await asyncio.sleep(params["seconds"])
        os.kill(os.getpid(), signal.SIGKILL)
        return {"token": token}

    return [noop, nap, chatty, flaky, thread, killer]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--lease", type=float, default=1.0, help="seconds")
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--poll", type=float, default=0.1, help="seconds")
    options = parser.parse_args()
    types = job_types(Journal(options.journal))
    worker = Worker(
        options.dsn,
        types,
        worker_id=f"fault-{os.getpid()}",
        concurrency=options.concurrency,
        lease=timedelta(seconds=options.lease),
        poll_interval=timedelta(seconds=options.poll),
        grace=timedelta(0),
    )
    print(worker.worker_id, flush=True)
    if not sys.stdin.readline():
        return

    def end_with_parent() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
