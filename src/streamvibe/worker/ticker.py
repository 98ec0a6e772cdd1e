"""What happens to running jobs as time passes: limits are enforced, rows become leases, progress is written."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import event_logger
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, Stop
from streamvibe.worker.execute import stopped
from streamvibe.worker.holding import Holding

log = event_logger("streamvibe.worker")

TICK_SECONDS = 0.05
PROGRESS_SECONDS = 0.5
#: How long a handler that was told to stop may take before its job is reported without it.
STOP_PATIENCE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 1.0


async def enforce_limits(holding: Holding) -> None:
    """Stop what runs longer than its type allows; report what does not stop. Needs no database, so never waits."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(TICK_SECONDS)
        now = loop.time()
        for job in tuple(holding.running):
            if job.stop is None and now > job.deadline:
                holding.stop(job, Stop.TIMEOUT)
            elif job.stop is not None and now > job.stop_at + STOP_PATIENCE_SECONDS:
                holding.report(job, stopped(job))


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

    async def run(self) -> None:
        """Write until cancelled."""
        pause = TICK_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self._lease()
                await self._write_progress()
            except DatabaseUnreachable as error:
                log.warning("lease_waits_for_database", error=str(error))
            except (StreamVibeError, psycopg.Error) as error:
                log.error("lease_failed", error=str(error))
            else:
                pause = TICK_SECONDS
                continue
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _active(self) -> list[ClaimedJob]:
        return [job for job in self._holding.running if job.stop is None and not job.reported]

    async def _lease(self) -> None:
        now = asyncio.get_running_loop().time()
        lasting = [job for job in self._active() if not job.leased and now > job.started + self._lease_after]
        if not lasting:
            return
        refused = await self._session.fetch(
            statements.LEASE, (self._worker_id, *_columns(lasting), [job.started_at for job in lasting])
        )
        for job in lasting:
            job.leased = True
        # 'processing': the same was written before, and the reply was lost. The heartbeat knows better anyway.
        if any(status != "processing" for _, status in refused):
            self._on_refused()

    async def _write_progress(self) -> None:
        now = asyncio.get_running_loop().time()
        noted: list[tuple[ClaimedJob, float, str | None]] = []
        for job in self._active():
            if job.leased and now > job.progress_at + PROGRESS_SECONDS:
                progress = job.take_progress()
                if progress is not None:
                    job.progress_at = now
                    noted.append((job, *progress))
        if noted:
            await self._session.fetch(
                statements.PROGRESS,
                (
                    self._worker_id,
                    *_columns([job for job, _, _ in noted]),
                    [fraction for _, fraction, _ in noted],
                    [message for _, _, message in noted],
                ),
            )


def _columns(jobs: Sequence[ClaimedJob]) -> tuple[list[int], list[UUID]]:
    return [job.token for job in jobs], [job.job_id for job in jobs]
