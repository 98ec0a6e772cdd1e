"""The worker process: claims jobs in batches, runs their handlers, writes what they did.

Fetcher ──claim_jobs──▶ Holding ──task──▶ execute ──End──▶ Flusher ──complete/fail/release_jobs
Transactions: the same for transactional types, whose claims are run and ended in one transaction each
limits (50 ms): stops what ran out of time        leases (50 ms): rows of what lasts, progress
heartbeat (own thread): renews the lease, learns what was cancelled or lost
listen: wakes the fetch loop, and the heartbeat when something was cancelled
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from streamvibe.db.current import configured_dsn, current_dsn
from streamvibe.db.registration import registration
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import event_logger
from streamvibe.jobtype import JobType
from streamvibe.jobtype import listed as listed_job_types
from streamvibe.worker import statements
from streamvibe.worker.alone import Alone
from streamvibe.worker.arguments import check
from streamvibe.worker.context import ClaimedJob, Stop
from streamvibe.worker.execute import stopped
from streamvibe.worker.fetch import Fetcher
from streamvibe.worker.flush import End, Flusher
from streamvibe.worker.heartbeat import Gone, Heartbeat
from streamvibe.worker.holding import Holding
from streamvibe.worker.lanes import Lanes
from streamvibe.worker.listen import listen
from streamvibe.worker.ticker import Leases, enforce_limits
from streamvibe.worker.transactions import Transactions

log = event_logger("streamvibe.worker")

#: How many connections write ends and log lines.
LANES = 2


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
    transaction pooler; then also set ``prepare_threshold=None``. ``transactions``: how many transactional jobs run at
    once, if there are such types; each on a connection of its own, which must not go through a transaction pooler.
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
        transactions: int = 4,
    ) -> None:
        listed = listed_job_types(job_types)
        self._job_types = {job_type.name: job_type for job_type in listed}
        check(self._job_types, listed, concurrency, poll_interval, transactions)
        if dsn is None:
            dsn = configured_dsn()
        self._dsn = dsn
        # Never the same twice: under a dead worker's id its claims would be taken for this one's.
        self.worker_id = f"{worker_id or f'{socket.gethostname()}-{os.getpid()}'}-{uuid4().hex[:8]}"
        self._names = sorted(self._job_types)
        self._concurrency = concurrency
        self._grace_seconds = grace.total_seconds()
        self._hurried = False

        def session(purpose: str, to: str = dsn) -> Session:
            return Session(
                to,
                application_name=f"streamvibe {purpose} {self.worker_id}"[:63],
                prepare_threshold=prepare_threshold,
            )

        self._claims, self._ticks = session("claim"), session("lease")
        self._transaction_claims = session("claim")
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
        self._alone = Alone(
            self._holding,
            self._stopping.is_set,
            lambda: not self._flusher.waiting,
            lambda: self._fetcher.or_stopping(self._flusher.at_most(0)),
        )
        self._fetcher = Fetcher(
            self._claims,
            self.worker_id,
            [name for name in self._names if not self._job_types[name].transactional],
            concurrency,
            poll_interval.total_seconds(),
            holding=self._holding,
            flusher=self._flusher,
            heartbeat=self._heartbeat,
            alone=self._alone,
            stopping=self._stopping,
            on_lines=self._lines_wait,
        )
        self._transactions = Transactions(
            dsn,
            self._transaction_claims,
            self.worker_id,
            [job_type for job_type in listed if job_type.transactional],
            transactions,
            poll_interval.total_seconds(),
            prepare_threshold=prepare_threshold,
            holding=self._holding,
            heartbeat=self._heartbeat,
            alone=self._alone,
            on_left=self._flusher.add_end,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._broken: BaseException | None = None

    async def run(self) -> None:
        """Run until ``stop()``. Raises the error tree when it cannot start; later a lost database is waited for.

        Raises StreamVibeError as well when handlers that do not stop have taken every place for 30 seconds: leave
        the process then, and let its supervisor start another.
        """
        async with self._started():
            with self._transactions.running(self._helper_ended):
                await self._fetcher.run()

    async def run_until_idle(self) -> int:
        """Run every job that is due, and what they make due, then stop. Returns how many were started."""
        count = 0
        async with self._started():
            while not self._stopping.is_set():
                found = sum(
                    await asyncio.gather(self._fetcher.run_until_idle(), self._transactions.run_until_idle())
                )
                count += found
                if not found:
                    break
        return count

    def handlers_running(self) -> int:
        """How many handlers run at this moment. From any thread."""
        return len(self._holding.running)

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
                job_types=",".join(self._names),
                concurrency=self._concurrency,
            )
            helpers = [
                asyncio.create_task(self._flusher.run()),
                asyncio.create_task(self._leases.run()),
                asyncio.create_task(
                    enforce_limits(self._holding, self._concurrency, self._transactions.count)
                ),
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
            for session in (
                self._claims,
                self._transaction_claims,
                self._ticks,
                self._listening,
                *self._flushes,
            ):
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

    # What others tell

    def _written(self, ends: Sequence[End]) -> None:
        self._holding.written(ends)

    def _woken(self) -> None:
        self._fetcher.wake()
        self._transactions.wake()
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
        self._transactions.stop()
        for job in self._holding.waiting():
            self._holding.stop(job, Stop.SHUTDOWN)
        if not self._hurried:
            await self._running_ended_within(self._grace_seconds, unless=lambda: self._hurried)
        for job in tuple(self._holding.running):
            self._holding.stop(job, Stop.SHUTDOWN)
        await self._running_ended_within(1.0)
        for job in tuple(self._holding.running):
            self._holding.report(job, stopped(job))
        await self._transactions.ended()
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
