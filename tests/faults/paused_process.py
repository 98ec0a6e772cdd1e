"""A worker in a process of its own, for tests that stop it (SIGSTOP): its handlers go on until their gate is open.

They give way to nothing: told to stop they note it, and still log, report progress and return a result. A handler's
gate is the file ``<gate>.<pid>`` or ``<gate>.all``. Started, signalled and read as worker_process.py is.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.worker_process import Journal

from streamvibe import Context, JobType, Worker, job_type

Params = dict[str, Any]
Result = dict[str, int]


class Gate:
    """Opened by the test."""

    def __init__(self, path: str) -> None:
        self._files = Path(f"{path}.all"), Path(f"{path}.{os.getpid()}")

    @property
    def is_open(self) -> bool:
        """Whether handlers may end."""
        return any(file.exists() for file in self._files)


def job_types(journal: Journal, gate: Gate) -> list[JobType[Any, Any]]:
    """A handler on the event loop, one in a thread, and one that blocks the loop; each returns its token."""

    def finish(ctx: Context, token: int) -> Result:
        ctx.log("the end", token=token)
        ctx.progress(0.75, f"token {token}")
        journal.note("end", ctx)
        return {"token": token}

    @job_type("waits")
    async def waits(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        while not gate.is_open:
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                journal.note("told", ctx)
        return finish(ctx, token)

    @job_type("thread")
    def thread(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        told = False
        while not gate.is_open:
            if ctx.cancelled and not told:
                told = True
                journal.note("told", ctx)
            time.sleep(0.005)
        return finish(ctx, token)

    @job_type("blocks")
    async def blocks(ctx: Context, params: Params) -> Result:
        token = journal.note("start", ctx)
        while not gate.is_open:
            time.sleep(0.005)  # noqa: ASYNC251 - what it is here for
        return finish(ctx, token)

    return [waits, thread, blocks]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--gate", required=True)
    parser.add_argument("--lease", type=float, default=0.5, help="seconds")
    parser.add_argument("--lease-after", type=float, default=0.0, help="seconds")
    options = parser.parse_args()
    worker = Worker(
        options.dsn,
        job_types(Journal(options.journal), Gate(options.gate)),
        worker_id=f"paused-{os.getpid()}",
        lease=timedelta(seconds=options.lease),
        lease_after=timedelta(seconds=options.lease_after),
        poll_interval=timedelta(seconds=0.05),
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
