"""The plain maintenance loop: each duty is one SQL function, called every so often, safe to run in many processes."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import event_logger

log = event_logger("streamvibe.maintenance")


@dataclass(frozen=True, slots=True)
class Duty:
    """A statement that returns how much it did, and the seconds between two runs of it.

    ``batch``: how much it does at most in one run; a run that did so much is followed by the next at once.
    """

    name: str
    every_seconds: float
    sql: str
    batch: int | None = None


DUTIES: Sequence[Duty] = (
    # A dead worker is known within its lease of 10 s; looking costs one read of a small table.
    Duty("recover_stuck_jobs", 2.0, "SELECT count(*) FROM recover_stuck_jobs()"),
    Duty("retry_failed_jobs", 10.0, "SELECT retry_failed_jobs(1000)", batch=1000),
    Duty("expire_stale_jobs", 60.0, "SELECT expire_stale_jobs(1000)", batch=1000),
    Duty("ensure_partitions", 3600.0, "SELECT count(*) FROM ensure_partitions()"),
)


class Maintenance:
    """Runs the duties until stopped. A failing duty is logged and tried again at its next turn."""

    def __init__(
        self, dsn: str, *, duties: Sequence[Duty] = DUTIES, prepare_threshold: int | None = None
    ) -> None:
        self._session = Session(
            dsn, application_name="streamvibe maintenance", prepare_threshold=prepare_threshold
        )
        self._duties = duties
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop after the duty that is running. From the event loop's thread."""
        self._stopping.set()

    async def run(self) -> None:
        """Run every duty now, then each at its interval, until ``stop()``."""
        loop = asyncio.get_running_loop()
        due = dict.fromkeys(self._duties, loop.time())
        try:
            while not self._stopping.is_set():
                duty = min(due, key=due.__getitem__)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due[duty]):
                        await self._stopping.wait()
                if not self._stopping.is_set():
                    done = await self._run_duty(duty)
                    is_full = duty.batch is not None and done >= duty.batch
                    due[duty] = loop.time() + (0 if is_full else duty.every_seconds)
        finally:
            await self._session.close()

    async def _run_duty(self, duty: Duty) -> int:
        try:
            rows = await self._session.fetch(duty.sql)
        except DatabaseUnreachable as error:
            log.warning("duty_waits_for_database", duty=duty.name, error=str(error))
        except (StreamVibeError, psycopg.Error) as error:
            log.error("duty_failed", duty=duty.name, error=str(error))
        else:
            done = int(rows[0][0])
            if done:
                log.info("duty_done", duty=duty.name, count=done)
            return done
        return 0
