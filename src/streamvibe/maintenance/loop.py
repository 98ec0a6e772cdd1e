"""The plain maintenance loop: each duty is one SQL function, called every so often, safe to run in many processes."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import event_logger

log = event_logger("streamvibe.maintenance")

#: A duty that met somebody's lock, or has far too much to do, lets the others have their turn.
LIMITS = ("SET lock_timeout = '2s'", "SET statement_timeout = '60s'")
CLOCK = "SELECT extract(epoch FROM streamvibe.now())::double precision"


@dataclass(frozen=True, slots=True)
class Duty:
    """A statement that returns how much it did, and the seconds between two runs of it.

    ``batch``: how much it does at most in one run; a run that did so much is followed by the next at once.
    ``judges_workers``: it takes a late heartbeat for a death, so it must not run before heartbeats could arrive.
    """

    name: str
    every_seconds: float
    sql: str
    batch: int | None = None
    judges_workers: bool = False


DUTIES: Sequence[Duty] = (
    # A dead worker is known within its lease of 10 s; looking costs one read of a small table.
    Duty("recover_stuck_jobs", 2.0, "SELECT count(*) FROM recover_stuck_jobs()", judges_workers=True),
    Duty("retry_failed_jobs", 10.0, "SELECT retry_failed_jobs(1000)", batch=1000),
    Duty("expire_stale_jobs", 60.0, "SELECT expire_stale_jobs(1000)", batch=1000),
    Duty("ensure_partitions", 3600.0, "SELECT count(*) FROM ensure_partitions()"),
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
            dsn, application_name="streamvibe maintenance", prepare_threshold=prepare_threshold, setup=LIMITS
        )
        self._duties = duties
        self._settle_seconds = settle.total_seconds()
        self._settled_at = float("inf")
        self._ahead: float | None = (
            None  # the database's clock minus the loop's; None: not known since an outage
        )
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
            if duty.judges_workers and not await self._is_settled():
                return 0
            rows = await self._session.fetch(duty.sql)
        except DatabaseUnreachable as error:
            self._ahead = None
            log.warning("duty_waits_for_database", duty=duty.name, error=str(error))
        except (StreamVibeError, psycopg.Error) as error:
            log.error("duty_failed", duty=duty.name, error=str(error))
        else:
            done = int(rows[0][0])
            if done:
                log.info("duty_done", duty=duty.name, count=done)
            return done
        return 0

    async def _is_settled(self) -> bool:
        """Whether live workers had the time to renew their leases, as far as this process can tell.

        The loop's clock stands still while the machine sleeps, the database's goes on; a reply that is late may
        come from a database in which every heartbeat was late.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        clock = float((await self._session.fetch(CLOCK))[0][0])
        now = loop.time()
        ahead, self._ahead = self._ahead, clock - now
        some_time = self._settle_seconds / 5
        if ahead is None or self._ahead - ahead > some_time or now - asked_at > some_time:
            self._settled_at = now + self._settle_seconds
        return now >= self._settled_at
