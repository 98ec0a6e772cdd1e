"""The worker process: claims jobs in batches, runs their handlers, writes what they did.

fetch loop ──claim_jobs──▶ Holding ──task──▶ execute ──End──▶ Flusher ──complete/fail/release_jobs
limits (50 ms): stops what ran out of time        leases (50 ms): rows of what lasts, progress
heartbeat (own thread): renews the lease, learns what was cancelled or lost
listen: wakes the fetch loop, and the heartbeat when something was cancelled
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from streamvibe.config import Settings
from streamvibe.db.current import current_dsn
from streamvibe.db.embedded import database_url
from streamvibe.db.registration import registration
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError, WorkerUnknown
from streamvibe.eventlog import Outage, event_logger
from streamvibe.jobtype import JobType
from streamvibe.jobtype import listed as listed_job_types
from streamvibe.worker import statements
from streamvibe.worker.arguments import check
from streamvibe.worker.context import ClaimedJob, Stop
from streamvibe.worker.execute import stopped
from streamvibe.worker.flush import End, Flusher
from streamvibe.worker.heartbeat import Gone, Heartbeat
from streamvibe.worker.holding import Holding
from streamvibe.worker.lanes import Lanes
from streamvibe.worker.listen import listen
from streamvibe.worker.ticker import Leases, enforce_limits

log = event_logger("streamvibe.worker")

#: Every so often the worker gives back what it was granted in a reply that never arrived.
FORGOTTEN_CLAIMS_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 2.0
#: How many connections write ends and log lines.
LANES = 2
#: How long a job that must run alone waits for the others to end before it is handed back; nothing is claimed then.
ALONE_SECONDS = 5.0
#: How long no such job is taken after that, unless what was in its way has ended.
NOT_ALONE_SECONDS = 60.0


class Worker:
    """Runs the jobs of the given types until stopped.

    ``dsn``: a connection string of the service (the owner of ``job_queue``, or one whose role is service_role);
    None: the database of STREAMVIBE_DATABASE_URL, else the embedded one, which is started if need be.
    ``worker_id``: a name for it, at most 190 characters, which gets a part that tells two workers of one name
    apart. ``concurrency``: how many handlers run at once. ``lease``: how long after its last heartbeat the
    worker counts as dead (renewed three times as often). ``lease_after``: how long a job runs before its row
    says so; a shorter one is written once, when it ends. ``poll_interval``: how often an idle worker looks without
    being woken. ``grace``: how long running handlers may go on after ``stop()`` before they are interrupted and
    their jobs handed back; 0 hands them back at once. Nothing can interrupt a plain ``def`` handler: its job is
    handed back while its thread goes on until the process ends, so for that long it may run twice at the same
    time, unless it looks at ``ctx.cancelled``. ``listen_dsn``: a connection for LISTEN that bypasses a
    transaction pooler; then also set ``prepare_threshold=None``.
    """

    def __init__(
        self,
        dsn: str | None,
        job_types: Iterable[JobType[Any, Any]],
        *,
        concurrency: int = 20,
        worker_id: str | None = None,
        lease: timedelta = timedelta(seconds=10),
        lease_after: timedelta = timedelta(milliseconds=250),
        poll_interval: timedelta = timedelta(seconds=1),
        grace: timedelta = timedelta(seconds=10),
        listen_dsn: str | None = None,
        prepare_threshold: int | None = 2,
    ) -> None:
        listed = listed_job_types(job_types)
        self._job_types = {job_type.name: job_type for job_type in listed}
        check(self._job_types, listed, concurrency, poll_interval)
        if dsn is None:
            dsn = database_url(Settings())
        self._dsn = dsn
        # Never the same twice: under a dead worker's id its claims would be taken for this one's.
        self.worker_id = f"{worker_id or f'{socket.gethostname()}-{os.getpid()}'}-{uuid4().hex[:8]}"
        self._names = sorted(self._job_types)
        self._concurrency = concurrency
        self._poll_seconds = poll_interval.total_seconds()
        self._grace_seconds = grace.total_seconds()
        self._hurried = False

        def session(purpose: str, to: str = dsn) -> Session:
            return Session(
                to,
                application_name=f"streamvibe {purpose} {self.worker_id}"[:63],
                prepare_threshold=prepare_threshold,
            )

        self._claims, self._ticks = session("claim"), session("lease")
        self._listening = session("listen", listen_dsn or dsn)
        self._flushes = [session("flush") for _ in range(LANES)]
        self._flusher = Lanes(
            [Flusher(lane, self.worker_id, on_written=self._written) for lane in self._flushes]
        )
        self._holding = Holding(self._job_types, on_end=self._flusher.add_end)
        self._heartbeat = Heartbeat(
            dsn,
            self.worker_id,
            self._names,
            lease,
            {"hostname": socket.gethostname(), "pid": os.getpid(), "concurrency": concurrency},
            held=self._holding.held_now,
            is_alive=self._holding.is_alive,
            on_gone=self._gone_from_thread,
            on_return=self._returned_from_thread,
        )
        self._leases = Leases(
            self._ticks,
            self.worker_id,
            self._holding,
            lease_after.total_seconds(),
            on_refused=self._heartbeat.beat_soon,
        )
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._forgotten_looked_at = float("-inf")
        self._in_the_way: set[ClaimedJob] = set()  # ran on while a job waited to run alone
        self._not_alone_until = float("-inf")  # loop time
        self._broken: BaseException | None = None

    async def run(self) -> None:
        """Run until ``stop()``. Raises the error tree when it cannot start; later a lost database is waited for.

        Raises StreamVibeError as well when handlers that do not stop have taken every place for 30 seconds: leave
        the process then, and let its supervisor start another.
        """
        async with self._started():
            await self._fetch_until_stopped()

    async def run_until_idle(self) -> int:
        """Run every job that is due, and what they make due, then stop. Returns how many were started."""
        count = 0
        async with self._started():
            while not self._stopping.is_set():
                self._holding.changed.clear()
                held_before = len(self._holding)
                claimed = await self._claim_and_start()
                count += claimed
                if claimed:
                    continue
                if self._holding.unfinished:
                    await self._holding.changed.wait()
                elif len(self._holding):
                    await self._or_stopping(self._flusher.drained())
                elif not held_before:
                    # Else a failure may have been written, and its job been due again, just after that look.
                    break
        return count

    def stop(self) -> None:
        """Stop claiming, let running handlers go on for ``grace``, then hand their jobs back.

        Called again: no more grace. From the event loop's thread, for example in a signal handler of the loop.
        """
        self._hurried = self._stopping.is_set()
        self._stopping.set()
        self._woken()

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        around = current_dsn.set(self._dsn)  # the handlers' tasks inherit it
        try:
            for job_type in self._job_types.values():
                await self._ticks.fetch(*registration(job_type))
            await self._ticks.fetch(statements.ENSURE_PARTITIONS)
            await asyncio.to_thread(self._heartbeat.start)
            log.info(
                "worker_started",
                worker_id=self.worker_id,
                job_types=self._names,
                concurrency=self._concurrency,
            )
            helpers = [
                asyncio.create_task(self._flusher.run()),
                asyncio.create_task(self._leases.run()),
                asyncio.create_task(enforce_limits(self._holding, self._concurrency)),
                asyncio.create_task(listen(self._listening, self._woken, self._maybe_cancelled)),
            ]
            for task in helpers:
                task.add_done_callback(self._helper_ended)
            try:
                yield
            finally:
                await self._hand_back()
                for task in helpers:
                    task.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                # After its last heartbeat, which would register it again.
                await asyncio.to_thread(self._heartbeat.stop)
                await self._unregister()
        finally:
            current_dsn.reset(around)
            await asyncio.to_thread(self._heartbeat.stop)
            for session in (self._claims, self._ticks, self._listening, *self._flushes):
                await session.close()
        log.info("worker_stopped", worker_id=self.worker_id)
        if self._broken is not None:
            raise self._broken

    def _helper_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # A worker that cannot write or look at its clock must not go on claiming.
            log.error("worker_broke", worker_id=self.worker_id, exc_info=error)
            self._broken = error
            self.stop()

    # Claiming

    async def _fetch_until_stopped(self) -> None:
        empty_looks = 0
        pause = 0.05
        outage = Outage(log, "claim")
        while not self._stopping.is_set():
            # Before anything is awaited, or the wake-up of a stop() meanwhile would be lost.
            self._wake.clear()
            free = self._concurrency - len(self._holding.running)
            if free <= 0:
                self._holding.changed.clear()
                await self._holding.changed.wait()
                continue
            if free * 4 < self._concurrency:
                # A few milliseconds gather more free places, so that busy workers claim in batches.
                await asyncio.sleep(0.005)
            if self._flusher.waiting > 4 * self._concurrency:
                await self._or_stopping(self._flusher.at_most(4 * self._concurrency))
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
                continue
            # The first empty look told the database that this worker sleeps; what was asked for while it did
            # so sent no wake-up, and is found by the second look.
            empty_looks += 1
            if empty_looks > 1:
                await self._woken_within(self._poll_seconds)

    async def _woken_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _claim_and_start(self) -> int:
        """Claim for the free places and start what came. Returns how many; 0 when nothing is due or free."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._forgotten_looked_at > FORGOTTEN_CLAIMS_SECONDS:
            await self._claims.fetch(statements.RELEASE_FORGOTTEN, (self.worker_id, self._holding.tokens()))
            self._forgotten_looked_at = loop.time()
        free = self._concurrency - len(self._holding.running)
        if free <= 0:
            return 0
        alone = self._could_run_alone(loop.time())
        try:
            rows = await self._claims.fetch(statements.CLAIM, (self.worker_id, free, self._names, alone))
        except WorkerUnknown:
            # The lease ran out, for example because the machine slept. Register again; what was held meanwhile
            # is either still held or reported as lost by this very heartbeat.
            await asyncio.to_thread(self._heartbeat.beat)
            self._wake.set()
            return 0
        jobs = [ClaimedJob(row, self._lines_wait) for row in rows]
        for job in jobs:
            self._holding.add(job)
        if self._stopping.is_set():
            return len(jobs)  # what was not started is handed back
        if jobs and jobs[0].isolated:
            await self._run_alone(jobs[0])
        else:
            self._holding.start(jobs)
        return len(jobs)

    def _could_run_alone(self, now: float) -> bool | None:
        """Whether a job could run alone here soon. None: no, not even one that has waited for long elsewhere."""
        running = self._holding.running
        self._in_the_way &= running if now < self._not_alone_until else set()
        if self._in_the_way or any(job.reported for job in running):
            return None
        return not any(job.leased for job in running)

    async def _run_alone(self, job: ClaimedJob) -> None:
        """Run a job with no other handler in this process, so that a crash can be laid at its door."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALONE_SECONDS):
                await self._until_nothing_runs()
                # What is not written yet would be held beside it; what waits for others' locks may take hours.
                await self._or_stopping(self._flusher.at_most(0))
        if self._stopping.is_set():
            return  # it is handed back
        if self._holding.running:
            # Others run for long, or do not stop: no worker waits for hours, and this job need not wait for this one.
            self._in_the_way = set(self._holding.running)
            self._not_alone_until = asyncio.get_running_loop().time() + NOT_ALONE_SECONDS
            self._holding.report(job, End(job, "released", None))
            return
        self._holding.start([job])
        await self._until_nothing_runs()

    async def _until_nothing_runs(self) -> None:
        while self._holding.unfinished and not self._stopping.is_set():
            self._holding.changed.clear()
            await self._holding.changed.wait()

    async def _or_stopping(self, awaited: Coroutine[Any, Any, None]) -> None:
        """Wait for this of the flusher, but no longer than this worker is wanted: the database may be away."""
        waits = [asyncio.ensure_future(awaited), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # What others tell

    def _written(self, ends: Sequence[End]) -> None:
        self._holding.written(ends)

    def _woken(self) -> None:
        self._wake.set()
        self._holding.changed.set()

    def _lines_wait(self, job: ClaimedJob) -> None:
        if threading.get_ident() == self._loop_thread:
            self._flusher.add_lines(job)
        else:
            self._from_thread(self._flusher.add_lines, job)

    def _maybe_cancelled(self, job_id: UUID) -> None:
        if job_id in self._holding:
            self._heartbeat.beat_soon()

    def _gone_from_thread(self, gone: Gone) -> None:
        self._from_thread(self._holding.gone, gone)

    def _returned_from_thread(self) -> None:
        # The database may have forgotten that this worker sleeps and wants to be woken.
        self._from_thread(self._woken)

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: there is nobody left to tell
                self._loop.call_soon_threadsafe(call, *arguments)

    # Stopping

    async def _hand_back(self) -> None:
        for job in self._holding.waiting():
            self._holding.stop(job, Stop.SHUTDOWN)
        if not self._hurried:
            await self._running_ended_within(self._grace_seconds, unless=lambda: self._hurried)
        for job in tuple(self._holding.running):
            self._holding.stop(job, Stop.SHUTDOWN)
        await self._running_ended_within(1.0)
        for job in tuple(self._holding.running):
            self._holding.report(job, stopped(job))
        # Without a database there is nobody to hand back to: the lease runs out by itself.
        try:
            async with asyncio.timeout(10):
                await self._flusher.drained()
        except TimeoutError:
            log.error("jobs_not_handed_back", jobs=len(self._holding))

    async def _unregister(self) -> None:
        """Leave: also a claim goes back that was under way when this worker was interrupted."""
        try:
            async with asyncio.timeout(10):
                try:
                    await self._claims.fetch(statements.UNREGISTER, (self.worker_id,))
                except DatabaseUnreachable:
                    # Perhaps only its connection had died.
                    await self._claims.fetch(statements.UNREGISTER, (self.worker_id,))
        except (TimeoutError, StreamVibeError, psycopg.Error) as error:
            log.error("worker_not_unregistered", worker_id=self.worker_id, error=str(error))

    async def _running_ended_within(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._holding.unfinished and not unless():
                    self._holding.changed.clear()
                    await self._holding.changed.wait()
