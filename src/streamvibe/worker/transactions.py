"""The lanes in which transactional jobs run: each claims a few, runs them in one transaction, and commits.

How many a lane claims at once follows from how long such jobs take: a transaction is to be over in a few
milliseconds, because jobs that are done wait for it, or holds one job.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

import psycopg

from streamvibe import tracing
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError, WorkerUnknown, translated
from streamvibe.eventlog import event_logger
from streamvibe.jobtype import JobType
from streamvibe.worker import statements
from streamvibe.worker.alone import Alone
from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.flush import End
from streamvibe.worker.heartbeat import Heartbeat
from streamvibe.worker.holding import Holding
from streamvibe.worker.job_connection import JobConnection
from streamvibe.worker.transaction import ClaimRunner

log = event_logger("streamvibe.worker")

#: Twice as many jobs are claimed next time when a transaction's handlers took less than this share of the time after
#: which it starts no more, fewer after more.
QUICK_SHARE = 2 / 3
#: Within the 64 subtransactions of which PostgreSQL keeps the ids in shared memory: more slow down every snapshot.
MOST_JOBS = 50
#: How often claims are looked for whose transaction is over; those of others too.
RECOVER_SECONDS = 1.0
#: How long the server waits for a worker that is stopped or cut off, beyond its longest job's time limit.
SILENCE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 2.0
#: So long isolated jobs may follow one another before others get a turn.
ALONE_AT_A_STRETCH_SECONDS = 0.25


class Transactions:
    """Claims transactional jobs and runs them in lanes. Belongs to one event loop."""

    def __init__(
        self,
        dsn: str,
        session: Session,
        worker_id: str,
        job_types: Sequence[JobType[Any, Any]],
        lanes: int,
        poll_seconds: float,
        *,
        prepare_threshold: int | None,
        holding: Holding,
        heartbeat: Heartbeat,
        alone: Alone,
        on_left: Callable[[End], None],
    ) -> None:
        self._dsn = dsn
        self._session = session
        self._worker_id = worker_id
        self._poll_seconds = poll_seconds
        self._prepare_threshold = prepare_threshold
        self._holding = holding
        self._heartbeat = heartbeat
        self._alone = alone
        #: How many jobs run at once; 0 without such types.
        self.count = lanes if job_types else 0
        timeouts = [cast(timedelta, job_type.settings["timeout"]).total_seconds() for job_type in job_types]
        self._longest_seconds = max(timeouts, default=0.0) + SILENCE_SECONDS
        #: How many of each type are claimed at once.
        self._portions = {job_type.name: 1 for job_type in job_types}
        self._quick_ones_next = False
        self._runners = [
            ClaimRunner(self._connect, worker_id, holding, self._is_stopping, on_left)
            for _ in range(self.count)
        ]
        self._stopping = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._due = asyncio.Event()  # set until nothing was found twice
        self._empty_looks = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._helpers: list[asyncio.Task[None]] = []

    def _is_stopping(self) -> bool:
        return self._stopping.is_set()

    @contextlib.contextmanager
    def running(self, on_end: Callable[["asyncio.Task[Any]"], None]) -> Iterator[None]:
        """The lanes run beside this block, and end after it: see ``ended``."""
        self._stopping.clear()
        self.wake()
        if self.count:
            self._tasks = [asyncio.create_task(self._run(runner)) for runner in self._runners]
            self._helpers = [asyncio.create_task(loop) for loop in (self._poll(), self._recover())]
            for task in (*self._tasks, *self._helpers):
                task.add_done_callback(on_end)
        yield

    async def run_until_idle(self) -> int:
        """Run what is due, and what that makes due. Returns how many were started."""
        self._stopping.clear()
        self._tasks = [asyncio.create_task(self._run_until_empty(runner)) for runner in self._runners]
        return sum(await asyncio.gather(*self._tasks))

    def wake(self) -> None:
        """Something may be due."""
        self._empty_looks = 0
        self._due.set()

    def stop(self) -> None:
        """Start no more handlers."""
        self._stopping.set()
        self.wake()

    async def ended(self) -> None:
        """Wait until all have ended what they were doing after ``stop``, and close their connections."""
        tasks = [*self._tasks, *self._helpers]
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks, self._helpers = [], []
        for runner in self._runners:
            await runner.close()

    async def _connect(self) -> JobConnection:
        with translated():
            return await JobConnection.open(
                self._dsn,
                application_name=f"streamvibe transaction {self._worker_id}"[:63],
                prepare_threshold=self._prepare_threshold,
                longest_seconds=self._longest_seconds,
            )

    # The lanes

    async def _run(self, runner: ClaimRunner) -> None:
        pause = 0.05
        while not self._stopping.is_set():
            await self._due.wait()
            try:
                await self._claim_and_run(runner)
            except (DatabaseUnreachable, psycopg.Error) as error:
                log.warning("claim_waits_for_database", error=str(error), retry_in_seconds=pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                pause = 0.05

    async def _run_until_empty(self, runner: ClaimRunner) -> int:
        count = 0
        while not self._stopping.is_set():
            self._due.set()
            started = await self._claim_and_run(runner)
            if started is None:
                break
            count += started
        return count

    async def _claim_and_run(self, runner: ClaimRunner) -> int | None:
        """Run one claim. Returns how many handlers were started, None when nothing is due."""
        await runner.connection()  # before anything is claimed that could not be run
        async with self._alone.beside_others():
            jobs = await self._claim()
            if not jobs:
                return None
            if jobs[0].isolated:
                return await self._run_alone(runner, jobs)
            await runner.run(jobs)
        self._learn(jobs, runner)
        return runner.started

    async def _run_alone(self, runner: ClaimRunner, jobs: list[ClaimedJob]) -> int:
        """Run isolated jobs, of which a crash leaves many, one by one for a while."""
        if not self._alone.is_free():
            # It is claimed again when nothing else runs: a crash meanwhile would be taken for its own.
            await runner.hand_back(jobs)
            jobs = []
        count = 0
        async with self._alone.reserved() as is_alone:
            loop = asyncio.get_running_loop()
            until = loop.time() + ALONE_AT_A_STRETCH_SECONDS
            while is_alone and (jobs := jobs or await self._claim()):
                await runner.run(jobs)
                count += runner.started
                if not jobs[0].isolated or loop.time() > until:
                    break
                jobs = []
        if jobs and not is_alone:  # the worker stops
            await runner.hand_back(jobs)
        return count

    async def _claim(self) -> list[ClaimedJob]:
        async with self._claiming:
            if self._stopping.is_set() or not self._due.is_set():
                return []
            looks = self._empty_looks = (
                self._empty_looks + 1
            )  # unless it finds something, or is woken meanwhile
            rows: list[tuple[Any, ...]] = []
            asked_ns = time.time_ns()
            for names, limit in self._portions_next():
                values = (self._worker_id, limit, names, self._alone.could_run(), True)
                try:
                    rows = await self._session.fetch(statements.CLAIM, values)
                except WorkerUnknown:
                    await asyncio.to_thread(self._heartbeat.beat)
                    return []
                if rows:
                    break
            loop = asyncio.get_running_loop()
            jobs = [ClaimedJob(row, lambda _: None) for row in rows]
            if jobs and tracing.is_on():
                from streamvibe import spans

                spans.claimed(asked_ns, ((job.job_type, job.traceparent) for job in jobs))
            for job in jobs:
                job.outcome = loop.create_future()
                self._holding.add(job)
            if jobs:
                self._empty_looks = 0
            elif looks == self._empty_looks > 1:
                # The first empty look told the database that these lanes sleep; the second found what came meanwhile.
                self._due.clear()
            return jobs

    def _portions_next(self) -> Iterator[tuple[list[str], int]]:
        """Of which types to claim how many: all; every other time first those that are quicker than the slowest."""
        least = min(self._portions.values())
        quick = [name for name, most in self._portions.items() if most > least]
        self._quick_ones_next = bool(quick) and not self._quick_ones_next
        if self._quick_ones_next:
            yield quick, min(self._portions[name] for name in quick)
        yield list(self._portions), least

    def _learn(self, jobs: Sequence[ClaimedJob], runner: ClaimRunner) -> None:
        if not runner.started:
            return
        quick_seconds = runner.full_seconds * QUICK_SHARE
        for name in {job.job_type for job in jobs}:
            if runner.seconds > quick_seconds:
                fitting = int(runner.started * quick_seconds / runner.seconds)
                # Half at most: one that took long tells little, and what does not fit is handed back.
                self._portions[name] = min(max(1, fitting, self._portions[name] // 2), self._portions[name])
            elif len(jobs) >= self._portions[name]:
                self._portions[name] = min(self._portions[name] * 2, MOST_JOBS)

    # Beside them

    async def _poll(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(self._poll_seconds)
            self.wake()

    async def _recover(self) -> None:
        """Give claims back whose transaction is over, so that nobody waits for maintenance to do it."""
        while not self._stopping.is_set():
            await asyncio.sleep(RECOVER_SECONDS)
            try:
                async with self._claiming:
                    rows = await self._session.fetch(statements.RECOVER_BROKEN)
            except (StreamVibeError, psycopg.Error) as error:
                log.warning("recovery_waits_for_database", error=str(error))
                continue
            for job_id, worker_id, outcome in rows:
                log.warning("broken_claim_recovered", job_id=job_id, worker_id=worker_id, outcome=outcome)
