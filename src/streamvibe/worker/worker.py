"""The worker process: claims jobs in batches, runs their handlers, writes what they did.

fetch loop ──claim_jobs──▶ ClaimedJob ──task──▶ execute ──End──▶ Flusher ──complete/fail/release_jobs
ticker (50 ms): leases what lasts, writes progress, stops what ran out of time
heartbeat (own thread): renews the lease, learns what was cancelled or lost
listen: wakes the fetch loop, passes cancellations on
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import structlog

from streamvibe.config import Settings
from streamvibe.db.embedded import database_url
from streamvibe.db.registration import registration
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, InvalidArgument, StreamVibeError, WorkerUnknown
from streamvibe.jobtype import JobType
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, LogLine, Stop
from streamvibe.worker.execute import execute, stopped
from streamvibe.worker.flush import End, Flusher
from streamvibe.worker.heartbeat import Heartbeat, Held
from streamvibe.worker.listen import listen

log = structlog.get_logger("streamvibe.worker")

TICK_SECONDS = 0.05
PROGRESS_SECONDS = 0.5
#: How long a handler that was told to stop may take before its job is reported without it.
STOP_PATIENCE_SECONDS = 5.0
#: Every so often the worker gives back what it was granted in a reply that never arrived.
FORGOTTEN_CLAIMS_SECONDS = 60.0


class Worker:
    """Runs the jobs of the given types until stopped.

    ``dsn``: a connection string of the service (the owner of ``job_queue``, or one whose role is service_role);
    None: the database of STREAMVIBE_DATABASE_URL, else the embedded one, which is started if need be.
    ``concurrency``: how many handlers run at once. ``lease``: how long after its last heartbeat the worker counts
    as dead (renewed three times as often). ``lease_after``: how long a job runs before its row says so;
    a shorter one is written once, when it ends. ``poll_interval``: how often an idle worker looks without
    being woken. ``grace``: how long running handlers may go on after ``stop()`` before they are interrupted and
    their jobs handed back; 0 hands them back at once. ``listen_dsn``: a connection for LISTEN that bypasses a
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
        self._job_types = {job_type.name: job_type for job_type in job_types}
        if not self._job_types:
            raise InvalidArgument(
                "a worker needs job types", field="job_types", received="none", fix="Pass at least one."
            )
        if concurrency < 1 or concurrency > 10_000:
            raise InvalidArgument(
                "concurrency is out of range",
                field="concurrency",
                received=str(concurrency),
                fix="Use 1 to 10000.",
            )
        if dsn is None:
            dsn = database_url(Settings())
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._names = sorted(self._job_types)
        self._concurrency = concurrency
        self._lease_after = lease_after.total_seconds()
        self._poll_seconds = poll_interval.total_seconds()
        self._grace_seconds = grace.total_seconds()

        def session(purpose: str, to: str = dsn) -> Session:
            return Session(
                to,
                application_name=f"streamvibe {purpose} {self.worker_id}"[:63],
                prepare_threshold=prepare_threshold,
            )

        self._claims, self._ticks = session("claim"), session("lease")
        self._listening = session("listen", listen_dsn or dsn)
        self._flushes = session("flush")
        self._flusher = Flusher(self._flushes, self.worker_id, self._written)
        self._heartbeat = Heartbeat(
            dsn,
            self.worker_id,
            self._names,
            lease,
            {"hostname": socket.gethostname(), "pid": os.getpid(), "concurrency": concurrency},
            self._held_now,
            self._gone_from_thread,
        )
        self._held: dict[UUID, ClaimedJob] = {}
        self._running: set[ClaimedJob] = set()
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._slot_free = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._forgotten_looked_at = float("-inf")

    async def run(self) -> None:
        """Run until ``stop()``. Raises the error tree when it cannot start; later a lost database is waited for."""
        async with self._started():
            await self._fetch_until_stopped()

    async def run_until_idle(self) -> int:
        """Run every job that is due, and what they make due, then stop. Returns how many were started."""
        count = 0
        async with self._started():
            while True:
                claimed = await self._claim_and_start()
                count += claimed
                if claimed:
                    continue
                if self._running:
                    self._slot_free.clear()
                    await self._slot_free.wait()
                elif self._held:
                    await self._flusher.drained()
                else:
                    return count

    def stop(self) -> None:
        """Stop claiming, let running handlers go on for ``grace``, then hand their jobs back.

        From the event loop's thread, for example in a signal handler of the loop.
        """
        self._stopping.set()
        self._wake.set()
        self._slot_free.set()

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        for job_type in self._job_types.values():
            await self._ticks.fetch(*registration(job_type))
        await self._ticks.fetch(statements.ENSURE_PARTITIONS)
        await asyncio.to_thread(self._heartbeat.start)
        log.info(
            "worker_started", worker_id=self.worker_id, job_types=self._names, concurrency=self._concurrency
        )
        helpers = [
            asyncio.create_task(self._flusher.run()),
            asyncio.create_task(self._tick_forever()),
            asyncio.create_task(listen(self._listening, self._wake.set, self._cancelled)),
        ]
        try:
            yield
        finally:
            await self._hand_back()
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await asyncio.to_thread(self._heartbeat.stop)
            for session in (self._claims, self._ticks, self._listening, self._flushes):
                await session.close()
            log.info("worker_stopped", worker_id=self.worker_id)

    # Claiming

    async def _fetch_until_stopped(self) -> None:
        empty_looks = 0
        pause = 0.05
        while not self._stopping.is_set():
            free = self._concurrency - len(self._running)
            if free <= 0:
                self._slot_free.clear()
                await self._slot_free.wait()
                continue
            if free * 4 < self._concurrency:
                # A few milliseconds gather more free places, so that busy workers claim in batches.
                await asyncio.sleep(0.005)
            if self._flusher.waiting > 4 * self._concurrency:
                await self._flusher.drained()
            self._wake.clear()
            try:
                claimed = await self._claim_and_start()
            except DatabaseUnreachable as error:
                log.warning("claim_waits_for_database", error=str(error), retry_in_seconds=pause)
                self._forgotten_looked_at = float("-inf")
                await self._woken_within(pause)
                pause = min(pause * 2, 2.0)
                continue
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
            known = [job.token for job in self._held.values()]
            await self._claims.fetch(statements.RELEASE_FORGOTTEN, (self.worker_id, known))
            self._forgotten_looked_at = loop.time()
        free = self._concurrency - len(self._running)
        if free <= 0:
            return 0
        alone = not any(job.leased for job in self._running)
        try:
            rows = await self._claims.fetch(statements.CLAIM, (self.worker_id, free, self._names, alone))
        except WorkerUnknown:
            # The lease ran out, for example because the machine slept. Register again; what was held meanwhile
            # is either still held or reported as lost by this very heartbeat.
            await asyncio.to_thread(self._heartbeat.beat)
            return 0
        jobs = [ClaimedJob(row, self._add_log) for row in rows]
        for job in jobs:
            self._held[job.job_id] = job
        if jobs and jobs[0].isolated:
            await self._run_alone(jobs[0])
        else:
            for job in jobs:
                self._start(job)
        return len(jobs)

    async def _run_alone(self, job: ClaimedJob) -> None:
        """Run a job with nothing else unfinished in this process, so that a crash can be laid at its door."""
        await self._until_nothing_runs()
        if not self._stopping.is_set() and job.stop is None:
            self._start(job)
            await self._until_nothing_runs()

    async def _until_nothing_runs(self) -> None:
        while self._running and not self._stopping.is_set():
            self._slot_free.clear()
            await self._slot_free.wait()
        if not self._stopping.is_set():
            await self._flusher.drained()

    # Running

    def _start(self, job: ClaimedJob) -> None:
        loop = asyncio.get_running_loop()
        self._running.add(job)
        job.begin(loop.time())
        job.task = loop.create_task(self._run_one(job))

    async def _run_one(self, job: ClaimedJob) -> None:
        try:
            self._report(job, await execute(job, self._job_types))
        finally:
            self._running.discard(job)
            self._slot_free.set()

    def _report(self, job: ClaimedJob, end: End | None) -> None:
        if job.reported:
            return
        job.reported = True
        if end is None:
            self._forget(job)
        else:
            self._flusher.add_end(end)

    def _forget(self, job: ClaimedJob) -> None:
        # The same job may have come back under a new claim by now.
        if self._held.get(job.job_id) is job:
            del self._held[job.job_id]

    def _written(self, ends: Sequence[End]) -> None:
        for end in ends:
            self._forget(end.job)

    def _stop_job(self, job: ClaimedJob, why: Stop) -> None:
        if job.stop is not None or job.reported:
            return
        job.stop = why
        job.stop_at = asyncio.get_running_loop().time()
        if job.task is None:
            self._report(job, stopped(job))
        elif self._job_types[job.job_type].is_async:
            job.task.cancel()
        elif why is Stop.TIMEOUT:
            # A thread cannot be interrupted: its job is failed now, its place is free when it ends.
            self._report(job, stopped(job))

    # What others tell

    def _add_log(self, line: LogLine) -> None:
        if threading.get_ident() == self._loop_thread:
            self._flusher.add_log(line)
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._flusher.add_log, line)

    def _held_now(self) -> Held:
        return [(job.job_id, job.token) for job in tuple(self._held.values()) if not job.reported]

    def _gone_from_thread(self, gone: list[tuple[UUID, str]]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._gone, gone)

    def _gone(self, gone: Iterable[tuple[UUID, str | None]]) -> None:
        for job_id, reason in gone:
            job = self._held.get(job_id)
            if job is not None and not job.reported:
                why = Stop.CANCELLED if reason == "cancelled" else Stop.LOST
                log.info("job_no_longer_held", job_id=str(job_id), reason=why.value)
                self._stop_job(job, why)

    def _cancelled(self, job_id: UUID) -> None:
        self._gone([(job_id, "cancelled")])

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._tick()
            except DatabaseUnreachable as error:
                log.warning("lease_waits_for_database", error=str(error))
            except (StreamVibeError, psycopg.Error) as error:
                log.error("lease_failed", error=str(error))

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        lasting: list[ClaimedJob] = []
        noted: list[tuple[ClaimedJob, float, str | None]] = []
        for job in tuple(self._running):
            if job.reported:
                continue
            if job.stop is None and now > job.deadline:
                self._stop_job(job, Stop.TIMEOUT)
            elif job.stop is not None and now > job.stop_at + STOP_PATIENCE_SECONDS:
                self._report(job, stopped(job))
            elif not job.leased and now > job.started + self._lease_after:
                lasting.append(job)
            elif job.leased and now > job.progress_at + PROGRESS_SECONDS:
                progress = job.take_progress()
                if progress is not None:
                    job.progress_at = now
                    noted.append((job, *progress))
        if lasting:
            for job in lasting:
                job.leased = True
            self._gone(
                await self._ticks.fetch(
                    statements.LEASE,
                    (self.worker_id, *_columns(lasting), [job.started_at for job in lasting]),
                )
            )
        if noted:
            jobs = [job for job, _, _ in noted]
            await self._ticks.fetch(
                statements.PROGRESS,
                (
                    self.worker_id,
                    *_columns(jobs),
                    [share for _, share, _ in noted],
                    [text for _, _, text in noted],
                ),
            )

    async def _hand_back(self) -> None:
        for job in tuple(self._held.values()):
            if job.task is None:
                self._stop_job(job, Stop.SHUTDOWN)
        await self._running_ended_within(self._grace_seconds)
        for job in tuple(self._running):
            self._stop_job(job, Stop.SHUTDOWN)
        await self._running_ended_within(1.0)
        for job in tuple(self._running):
            self._report(job, stopped(job))
        # Without a database there is nobody to hand back to: the lease runs out by itself.
        try:
            async with asyncio.timeout(10):
                await self._flusher.drained()
        except TimeoutError:
            log.error("jobs_not_handed_back", jobs=len(self._held))

    async def _running_ended_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:
                    self._slot_free.clear()
                    await self._slot_free.wait()


def _columns(jobs: Sequence[ClaimedJob]) -> tuple[list[int], list[UUID]]:
    return [job.token for job in jobs], [job.job_id for job in jobs]
