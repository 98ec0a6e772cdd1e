"""Workers of transactional jobs in processes of their own, which kill themselves where they are told to."""

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from datetime import timedelta
from typing import Any, cast

from streamvibe import Context, JobType, Worker, job_type
from streamvibe.worker import transactions
from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.job_connection import JobConnection

#: In the order in which a transaction passes them.
POINTS = (
    "claimed",  # before the claim is held
    "held",
    "written",  # in a handler that has written
    "saved",  # a handler has returned, and the next one's savepoint is there
    "ending",  # all ends are written, before COMMIT
    "committing",  # COMMIT is sent, and nobody waits for it
    "committed",
)
NO_BACKOFF, SECOND = timedelta(0), timedelta(seconds=1)
PATIENT, CRASH_ATTEMPTS = 50, 2
PRCTL, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
#: What this process is sent, and what it sends to its worker then.
PASSED_ON = {
    signal.SIGUSR1: signal.SIGKILL,
    signal.SIGUSR2: signal.SIGSTOP,
    signal.SIGCONT: signal.SIGCONT,
    signal.SIGTERM: signal.SIGTERM,
}
KILL, STOP = signal.SIGUSR1, signal.SIGUSR2
INSERT = "INSERT INTO effect (job_id, token, pid) VALUES (%s, %s, %s)"


class Fuse:
    """Kills the process when it passes one point for the n-th time."""

    def __init__(self, point: str, count: int) -> None:
        self._point = point
        self._left = count

    def passes(self, point: str) -> None:
        """Note that this point is reached, and die there if this is the one."""
        if point == self._point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)

    def is_next(self, point: str) -> bool:
        """Whether passing this point would be the end."""
        return point == self._point and self._left == 1


def job_types(fuse: Fuse) -> list[JobType[Any, Any]]:
    """Each writes one row, with the token that it ran under."""

    async def write(ctx: Context) -> int:
        token = cast(ClaimedJob, ctx).token
        await ctx.connection.execute(INSERT, [ctx.job_id, token, os.getpid()])
        return token

    @job_type(
        "pay",
        transactional=True,
        timeout=SECOND,
        max_attempts=PATIENT,
        backoff_base=NO_BACKOFF,
        backoff_max=NO_BACKOFF,
    )
    async def pay(ctx: Context, params: dict[str, Any]) -> dict[str, int]:
        token = await write(ctx)
        ctx.log("paid")
        fuse.passes("written")
        return {"token": token}

    @job_type("dwell", transactional=True, timeout=SECOND)
    async def dwell(ctx: Context, params: dict[str, Any]) -> dict[str, int]:
        token = await write(ctx)
        await asyncio.sleep(params["seconds"])
        return {"token": token}

    @job_type(
        "kill",
        transactional=True,
        timeout=SECOND,
        max_attempts=CRASH_ATTEMPTS,
        backoff_base=NO_BACKOFF,
        backoff_max=NO_BACKOFF,
    )
    async def kill(ctx: Context, params: dict[str, Any]) -> None:
        await write(ctx)
        os.kill(os.getpid(), signal.SIGKILL)

    return [pay, dwell, kill]


def arm(fuse: Fuse) -> None:
    """Let every transaction pass the fuse."""
    send = JobConnection.send

    async def fused(self: JobConnection, text: str) -> Any:
        is_begin, is_commit = text.startswith("BEGIN"), text.endswith("COMMIT")
        if is_begin:
            fuse.passes("claimed")
        elif is_commit:
            fuse.passes("ending")
            if fuse.is_next("committing"):
                self.pgconn.send_query(text.encode())
                self.pgconn.flush()
                fuse.passes("committing")
            fuse.passes("committing")
        row = await send(self, text)
        fuse.passes("held" if is_begin else "committed" if is_commit else "saved")
        return row

    JobConnection.send = fused  # type: ignore[method-assign]


def main() -> None:
    """Run workers one after the other, each until it is killed: forked, so that only the first one imports anything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--journal", required=True, help="gets the process id of each")
    parser.add_argument(
        "--fuses", default="", help="point:count of each, separated by commas; else nothing kills it"
    )
    parser.add_argument("--silence", type=float, default=5.0, help="seconds")
    options = parser.parse_args()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    fuses = [
        Fuse(point, int(count))
        for point, _, count in (f.partition(":") for f in options.fuses.split(",") if f)
    ]
    # Who wants to signal a worker tells this process: nobody else can know that a process id is still that worker's.
    child = 0

    def pass_on(number: int, _: object) -> None:
        if child:
            os.kill(child, PASSED_ON[signal.Signals(number)])

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    while True:
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        child = os.fork()
        if not child:
            for number in PASSED_ON:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            PRCTL.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            with open(options.journal, "a") as journal:  # noqa: PTH123 - a line at once
                journal.write(f"{os.getpid()}\n")
            work(options.dsn, fuses[0] if fuses else Fuse("", 0), options.silence)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        _, status = os.waitpid(child, 0)
        child = 0
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))
        del fuses[:1]


def work(dsn: str, fuse: Fuse, silence: float) -> None:
    """Be a worker until stopped."""
    arm(fuse)
    transactions.SILENCE_SECONDS = silence
    worker = Worker(
        dsn,
        job_types(fuse),
        worker_id=f"fault-{os.getpid()}",
        lease=timedelta(seconds=1),
        poll_interval=timedelta(seconds=0.1),
        grace=timedelta(0),
    )

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
