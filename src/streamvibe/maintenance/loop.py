"""The plain maintenance loop: each duty calls SQL functions every so often, safe to run in many processes."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import Outage, event_logger

log = event_logger("streamvibe.maintenance")

#: A duty that met somebody's lock, or has far too much to do, lets the others have their turn.
LIMITS = "SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '60s', true)"


@dataclass(frozen=True, slots=True)
class Duty:
    """A statement that returns how much it did, and the seconds between two runs of it.

    ``batch``: when a run did so much there is more to do, and the next follows at once.
    ``steps``: what follows for each row of the statement, each step in a transaction of its own; its values are the
    row's. Where one returns false, the rest is left for another run.
    ``judges_workers``: it takes a late heartbeat for a death, so it must not run before heartbeats could arrive. Its
    statement takes the time after which it must not judge, and also returns what time the database has.
    """

    name: str
    every_seconds: float
    sql: str
    batch: int | None = None
    judges_workers: bool = False
    steps: Sequence[str] = ()


DUTIES: Sequence[Duty] = (
    # A dead worker is known within its lease of 10 s; looking costs one read of a small table.
    Duty(
        "recover_stuck_jobs",
        2.0,
        "SELECT (SELECT count(*) FROM recover_stuck_jobs(%s::timestamptz)), streamvibe.now()",
        judges_workers=True,
    ),
    Duty("retry_failed_jobs", 10.0, "SELECT retry_failed_jobs(1000)", batch=1000),
    Duty("expire_stale_jobs", 60.0, "SELECT expire_stale_jobs(1000)", batch=1000),
    Duty("compact_stats", 5.0, "SELECT compact_stats(10000)", batch=10000),
    Duty("cleanup_old_jobs", 60.0, "SELECT cleanup_old_jobs(1000)", batch=1),
    Duty("forget_idempotency_keys", 600.0, "SELECT forget_idempotency_keys(10000)", batch=10000),
    Duty("ensure_partitions", 3600.0, "SELECT count(*) FROM ensure_partitions()"),
    # Counting takes 3 us a job, during which nobody waits; the others step back when somebody is in the way.
    Duty(
        "drop_old_partitions",
        3600.0,
        "SELECT partition_name FROM streamvibe.old_partitions()",
        steps=(
            "SELECT streamvibe.seal_partition(%s)",
            "SELECT streamvibe.count_partition(%s) FROM set_config('statement_timeout', '1h', true)",
            "SELECT streamvibe.drop_partition(%s)",
        ),
    ),
)


class Maintenance:
    """Runs the duties until stopped. A failing duty is logged and tried again at its next turn.

    ``settle``: for how long no worker is taken for dead after the start, after the database was away or slow, and
    after this machine slept: live workers could not renew their leases then, and need a moment to do so.
    """

    def __init__(
        self,
        dsn: str,
        *,
        duties: Sequence[Duty] = DUTIES,
        settle: timedelta = timedelta(seconds=10),
        prepare_threshold: int | None = None,
    ) -> None:
        self._session = Session(
            dsn, application_name="streamvibe maintenance", prepare_threshold=prepare_threshold, limits=LIMITS
        )
        self._duties = duties
        self._settle = settle
        self._settled_at = float("inf")
        self._outage = Outage(log, "maintenance")
        #: The database's clock and the loop's when it was last read; None: not since an outage.
        self._read: tuple[datetime, float] | None = None
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[int] | None = None

    def stop(self) -> None:
        """Stop now; the duty that is running is cancelled and rolled back. From the event loop's thread."""
        self._stopping.set()
        if self._running is not None:
            self._running.cancel()

    async def run(self) -> None:
        """Run every duty now, then each at its interval, until ``stop()``.

        Raises only what nobody foresaw, after logging it.
        """
        loop = asyncio.get_running_loop()
        due = dict.fromkeys(self._duties, loop.time())
        try:
            while not self._stopping.is_set():
                duty = min(due, key=due.__getitem__)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due[duty]):
                        await self._stopping.wait()
                if not self._stopping.is_set():
                    done = await self._cancellable(duty)
                    is_full = duty.batch is not None and done >= duty.batch
                    due[duty] = loop.time() + (0 if is_full else duty.every_seconds)
        except Exception as error:
            log.critical("maintenance_broke", exc_info=error)
            raise
        finally:
            await self._session.close()

    async def _cancellable(self, duty: Duty) -> int:
        self._running = task = asyncio.create_task(self._run_duty(duty))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # run() itself is cancelled
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            self._running = None
        return 0 if task.cancelled() else task.result()

    async def _run_duty(self, duty: Duty) -> int:
        try:
            if duty.judges_workers:
                done = int((await self._judge(duty))[0][0])
            elif duty.steps:
                done = await self._step_by_step(duty)
            else:
                done = int((await self._session.fetch(duty.sql))[0][0])
        except DatabaseUnreachable as error:
            self._read = None
            self._outage.goes_on("duty_waits_for_database", error, duty=duty.name)
        except (StreamVibeError, psycopg.Error) as error:
            log.error("duty_failed", duty=duty.name, error=str(error))
        else:
            self._outage.ends()
            if done:
                log.info("duty_done", duty=duty.name, count=done)
            return done
        return 0

    async def _step_by_step(self, duty: Duty) -> int:
        """For how many rows of the duty's statement every step was done. An error leaves the rest for the next run."""
        done = 0
        for row in await self._session.fetch(duty.sql):
            for step in duty.steps:
                if (await self._session.fetch(step, row))[0][0] is False:
                    break
            else:
                done += 1
        return done

    async def _judge(self, duty: Duty) -> list[tuple[Any, ...]]:
        """Run the duty, which judges nobody unless live workers had the time to renew their leases, as far as this
        process can tell.

        The loop's clock stands still while the machine sleeps, the database's goes on; a call that is late may come
        from, or to, a machine on which every heartbeat was late. So the statement itself compares the database's
        clock, in the reading that it judges by, with what it should be.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        in_time: datetime | None = None
        if self._read is not None:
            clock, read_at = self._read
            in_time = clock + timedelta(seconds=asked_at - read_at) + self._settle / 5
        may_judge = in_time is not None and asked_at >= self._settled_at
        # Without a time to settle nothing is too late.
        not_after = ("infinity" if not self._settle else in_time) if may_judge else "-infinity"
        rows = await self._session.fetch(duty.sql, (not_after,))
        clock = rows[0][1]
        if in_time is None or clock > in_time:
            self._settled_at = loop.time() + self._settle.total_seconds()
        self._read = clock, loop.time()
        return rows
