"""What happens to running jobs as time passes: limits are enforced, rows become leases, progress is written."""

import asyncio
from collections.abc import Callable, Sequence

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import Outage, event_logger
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, Progress, Stop
from streamvibe.worker.execute import stopped
from streamvibe.worker.holding import STOP_PATIENCE_SECONDS, Holding
from streamvibe.worker.progress import write_progress

log = event_logger("streamvibe.worker")

TICK_SECONDS = 0.05
PROGRESS_SECONDS = 0.5
#: How long a worker may be full of handlers that do not stop before it gives up.
STUCK_SECONDS = 30.0
#: How long a job's row stays as it is when somebody else had it locked.
BUSY_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 1.0


async def enforce_limits(holding: Holding, concurrency: int, transactions: int) -> None:
    """Stop what runs longer than its type allows; report what does not stop. Needs no database, so never waits.

    Raises StreamVibeError once every place has been taken for STUCK_SECONDS by a handler that does not stop:
    nothing but a new process gets rid of them.
    """
    loop = asyncio.get_running_loop()
    free_at = loop.time()
    while True:
        holding.ticked_at = loop.time()
        await asyncio.sleep(TICK_SECONDS)
        now = loop.time()
        for job in tuple(holding.running):
            if job.stop is None and now > job.deadline:
                holding.stop(job, Stop.TIMEOUT)
            elif job.stop is not None and now > job.stop_at + STOP_PATIENCE_SECONDS:
                if not job.is_stuck:
                    job.is_stuck = True
                    log.error("handler_does_not_stop", job_id=job.key, job_type=job.job_type)
                holding.report(job, stopped(job))
        stuck = [job for job in holding.running if job.is_stuck]
        in_transactions = sum(job.transactional for job in stuck)
        lanes_are_stuck = transactions and in_transactions >= transactions
        if not lanes_are_stuck and len(stuck) - in_transactions < concurrency:
            free_at = now
        elif now > free_at + STUCK_SECONDS:
            names = sorted({job.job_type for job in stuck})
            raise StreamVibeError(
                "handlers that do not stop take every place of this worker",
                field="transactions" if lanes_are_stuck else "concurrency",
                received=f"{len(stuck)} handlers of {', '.join(names)}",
                fix="Let handlers give up in time, for example by timeouts of their own; restart the worker.",
            )


class Leases:
    """Writes to the rows of jobs that last: that they are processing, and how far they are."""

    def __init__(
        self,
        session: Session,
        worker_id: str,
        holding: Holding,
        lease_after_seconds: float,
        on_refused: Callable[[], None],
    ) -> None:
        """``on_refused``: a job is not this worker's any more; the heartbeat is asked what became of it."""
        self._session = session
        self._worker_id = worker_id
        self._holding = holding
        self._lease_after = lease_after_seconds
        self._on_refused = on_refused
        self._outage = Outage(log, "lease")

    async def run(self) -> None:
        """Write until cancelled."""
        pause = TICK_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self._lease()
                await self._write_progress()
            except DatabaseUnreachable as error:
                self._outage.goes_on("lease_waits_for_database", error)
            except (StreamVibeError, psycopg.Error) as error:
                log.error("lease_failed", error=str(error))
            else:
                pause = TICK_SECONDS
                continue
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _active(self) -> list[ClaimedJob]:
        # Not those that run in transactions, which hold their claim: leasing would wait for it.
        return [
            job
            for job in self._holding.running
            if job.stop is None and not job.reported and not job.transactional
        ]

    async def _lease(self) -> None:
        now = asyncio.get_running_loop().time()
        lasting = [
            job
            for job in self._active()
            if not job.leased and now > max(job.started + self._lease_after, job.lease_at)
        ]
        if not lasting:
            return
        refused = await self._session.fetch(
            statements.LEASE,
            (self._worker_id, *_columns(lasting), statements.moments(job.started_epoch for job in lasting)),
        )
        self._outage.ends()
        busy = {job_id for job_id, status in refused if status == "busy"}
        for job in lasting:
            job.leased = job.key not in busy
            job.lease_at = now + BUSY_SECONDS
        # 'processing': the same was written before, and the reply was lost. The heartbeat knows better anyway.
        if any(status not in ("processing", "busy") for _, status in refused):
            self._on_refused()

    async def _write_progress(self) -> None:
        now = asyncio.get_running_loop().time()
        noted: list[tuple[ClaimedJob, Progress]] = []
        for job in self._active():
            if job.leased and now > job.progress_at + PROGRESS_SECONDS:
                progress = job.new_progress()
                if progress is not None:
                    job.progress_at = now
                    noted.append((job, progress))
        if noted:
            await write_progress(self._session, self._worker_id, noted)
            self._outage.ends()


def _columns(jobs: Sequence[ClaimedJob]) -> tuple[str, str]:
    return statements.array(job.token for job in jobs), statements.array(job.key for job in jobs)
