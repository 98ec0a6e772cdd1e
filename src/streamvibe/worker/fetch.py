"""Claims ordinary jobs for the free places of the worker, and starts them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg

from streamvibe import tracing
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, WorkerUnknown
from streamvibe.eventlog import Outage, event_logger
from streamvibe.worker import statements
from streamvibe.worker.alone import Alone
from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.flush import End
from streamvibe.worker.heartbeat import Heartbeat
from streamvibe.worker.holding import Holding
from streamvibe.worker.lanes import Lanes

log = event_logger("streamvibe.worker")

#: Every so often the worker gives back what it was granted in a reply that never arrived.
FORGOTTEN_CLAIMS_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 2.0
#: What one claim takes at most: so long an urgent job waits for, which comes when it has begun, before the next.
MOST_JOBS = 200
#: How long a claim under way may take to return once the worker stops.
LAST_CLAIM_SECONDS = 2.0


class Fetcher:
    """Claims what is due for the free places. Belongs to one event loop."""

    def __init__(
        self,
        session: Session,
        worker_id: str,
        job_types: list[str],
        concurrency: int,
        poll_seconds: float,
        *,
        holding: Holding,
        flusher: Lanes,
        heartbeat: Heartbeat,
        alone: Alone,
        stopping: asyncio.Event,
        on_lines: Callable[[ClaimedJob], None],
    ) -> None:
        """``on_lines``: the first line of a job waits to be written."""
        self._session = session
        self._worker_id = worker_id
        self._names = job_types
        self._concurrency = concurrency
        self._poll_seconds = poll_seconds
        self._holding = holding
        self._flusher = flusher
        self._heartbeat = heartbeat
        self._alone = alone
        self._stopping = stopping
        self._on_lines = on_lines
        self._wake = asyncio.Event()
        self._forgotten_looked_at = float("-inf")

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def run(self) -> None:
        """Claim and start jobs until the worker stops."""
        claiming = asyncio.create_task(self._claim_until_stopped())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            # Without a type that is not transactional there is nothing to claim here.
            waits = {claiming, stopping} if self._names else {stopping}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({claiming}, timeout=LAST_CLAIM_SECONDS)
        finally:
            # A claim may wait for as long as somebody has the table locked; what it is granted goes back when the
            # worker leaves.
            claiming.cancel()
            stopping.cancel()
            await asyncio.wait({claiming, stopping})
        if not claiming.cancelled():
            claiming.result()
        elif self._names:
            log.warning("claim_abandoned", worker_id=self._worker_id)
            await self._session.close()

    async def _claim_until_stopped(self) -> None:
        empty_looks = 0
        pause = 0.05
        outage = Outage(log, "claim")
        while self._names and not self._stopping.is_set():
            # Before anything is awaited, or the wake-up of a stop() meanwhile would be lost.
            self._wake.clear()
            free = self._free_places()
            if free <= 0:
                self._holding.changed.clear()
                await self._holding.changed.wait()
                continue
            if free * 4 < self._concurrency:
                # A few milliseconds gather more free places, so that busy workers claim in batches.
                await asyncio.sleep(0.005)
            if self._flusher.waiting > 4 * self._concurrency:
                await self.or_stopping(self._flusher.at_most(4 * self._concurrency))
            try:
                claimed = await self._claim_and_start()
            except (DatabaseUnreachable, psycopg.Error) as error:
                outage.goes_on("claim_waits_for_database", error)
                # Its reply may be what was lost.
                self._forgotten_looked_at = float("-inf")
                await self._woken_within(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            outage.ends()
            pause = 0.05
            if claimed:
                empty_looks = 0
                if claimed < MOST_JOBS:
                    # Their handlers begin before the next look is sent: where the server answers on the processor that
                    # this process runs on, they would wait for all of it.
                    await asyncio.sleep(0)
                continue
            # The first empty look told the database that this worker sleeps; what was asked for while it did
            # so sent no wake-up, and is found by the second look.
            empty_looks += 1
            if empty_looks > 1:
                await self._woken_within(self._poll_seconds)

    async def run_until_idle(self) -> int:
        """Run what is due, and what that makes due. Returns how many were started."""
        count = 0
        while self._names and not self._stopping.is_set():
            self._holding.changed.clear()
            held_before = len(self._holding)
            claimed = await self._claim_and_start()
            count += claimed
            if claimed:
                continue
            if self._holding.unfinished:
                await self._holding.changed.wait()
            elif len(self._holding):
                await self.or_stopping(self._flusher.drained())
            elif not held_before:
                # Else a failure may have been written, and its job been due again, just after that look.
                break
        return count

    def _free_places(self) -> int:
        return self._concurrency - self._holding.places()

    async def _woken_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _claim_and_start(self) -> int:
        """Claim for the free places and start what came. Returns how many; 0 when nothing is due or free."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._forgotten_looked_at > FORGOTTEN_CLAIMS_SECONDS:
            known = (self._worker_id, self._holding.tokens())
            await self._session.fetch(statements.RELEASE_FORGOTTEN, known)
            self._forgotten_looked_at = loop.time()
        async with self._alone.beside_others():
            free = self._free_places()
            if free <= 0:
                return 0
            alone = self._alone.could_run()
            asked_ns = time.time_ns()
            try:
                rows = await self._session.fetch(
                    statements.CLAIM, (self._worker_id, min(free, MOST_JOBS), self._names, alone, False)
                )
            except WorkerUnknown:
                # The lease ran out, for example because the machine slept. Register again; what was held meanwhile
                # is either still held or reported as lost by this very heartbeat.
                await asyncio.to_thread(self._heartbeat.beat)
                self._wake.set()
                return 0
            jobs = [ClaimedJob(row, self._on_lines) for row in rows]
            if jobs and tracing.is_on():
                from streamvibe import spans

                spans.claimed(asked_ns, ((job.job_type, job.traceparent) for job in jobs))
            for job in jobs:
                self._holding.add(job)
            if self._stopping.is_set():
                return len(jobs)  # what was not started is handed back
            if jobs and jobs[0].isolated:
                await self._run_alone(jobs[0])
            else:
                self._holding.start(jobs)
            return len(jobs)

    async def _run_alone(self, job: ClaimedJob) -> None:
        """Run a job with no other handler in this process, so that a crash can be laid at its door."""
        async with self._alone.reserved() as is_alone:
            if is_alone:
                self._holding.start([job])
                await self._alone.until_nothing_runs()
            elif not self._stopping.is_set():  # else it is handed back with all others
                self._holding.report(job, End(job, "released", None))

    async def or_stopping(self, awaited: Coroutine[Any, Any, None]) -> None:
        """Wait for this of the flusher, but no longer than this worker is wanted: the database may be away."""
        waits = [asyncio.ensure_future(awaited), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
