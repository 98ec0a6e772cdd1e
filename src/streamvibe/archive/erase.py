"""Erasing a user: from the queue first, then from the archive."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import psycopg

from streamvibe.archive.control import Control
from streamvibe.archive.extra import require_packages
from streamvibe.errors import WaitTimeout

#: Told what happens: the step's name, and what it is about.
Report = Callable[[str, str], None]
#: How many jobs and lines are deleted in one transaction.
BATCH = 1000


@dataclass(slots=True)
class Erased:
    """What is gone."""

    jobs: int = 0
    """From the queue, and from what waited to be archived."""
    lines: int = 0
    archive: bool = False
    """Whether the archive was searched; False: nothing was ever archived."""


def erase_user(
    dsn: str, user_id: UUID, *, patience: float, report: Report, stopping: threading.Event | None = None
) -> Erased:
    """Erase a user's jobs, log lines, keys and limit, in the queue and in the archive.

    Live jobs are cancelled. ``patience``: for how many seconds workers that run some of them, and transactions that
    hold some, are waited for; then WaitTimeout names them. Whatever ended early, the next call goes on from there.
    What the user asks for while this runs stays. ``stopping``: when set, it ends soon, with `control.Stopped`.
    Raises the error tree.
    """
    done = Erased()
    with contextlib.closing(Control(dsn, stopping=stopping)) as control:
        until = time.monotonic() + patience
        anew = True
        while True:
            control.check_stop()
            try:
                state, jobs, lines, running = control.call(
                    "SELECT state, jobs, lines, running FROM public.erase_user(%s, %s, %s)",
                    user_id,
                    BATCH,
                    anew,
                )[0]
                anew = False
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() >= until:
                    raise WaitTimeout(
                        "A transaction that has not ended holds jobs of this user, or their lock",
                        field="--user",
                        received=str(user_id),
                        fix="See which: SELECT * FROM pg_locks JOIN pg_stat_activity USING (pid), then run it again",
                    ) from None
                report("waiting", "a transaction that has not ended holds jobs of the user, or their lock")
                continue
            done.jobs += jobs
            done.lines += lines
            if state == "waiting":
                if time.monotonic() >= until:
                    raise WaitTimeout(
                        f"Workers still run cancelled jobs of this user ({', '.join(map(str, running[:10]))});"
                        " the rest is erased"
                        if running
                        else "A transaction is open that may have made jobs of this user; the rest is erased",
                        field="--user",
                        received=str(user_id),
                        fix="Run it again when their handlers have ended, or stop those workers"
                        if running
                        else "Run it again when it has ended; `streamvibe doctor` names what is open for long",
                    )
                report(
                    "waiting",
                    f"{len(running)} cancelled jobs are still run by workers"
                    if running
                    else "a transaction that was open before has not ended: it may have made jobs of the user",
                )
                control.wait(min(1.0, max(until - time.monotonic(), 0.0)))
            elif state != "working":
                break
            else:
                report("erased", f"{done.jobs} jobs, {done.lines} lines so far")
    if state == "archive":
        require_packages()
        from streamvibe.archive.run import Archiver

        with Archiver(dsn, report=report, stopping=stopping) as archiver:
            archiver.erase(wait=True)
        done.archive = True
    return done
