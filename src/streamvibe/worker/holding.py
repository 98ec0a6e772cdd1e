"""The jobs a worker holds, from their claim until their end is written."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from streamvibe import tracing
from streamvibe.eventlog import event_logger
from streamvibe.jobtype import JobType
from streamvibe.worker.context import ClaimedJob, Stop
from streamvibe.worker.execute import describe, execute, stopped
from streamvibe.worker.flush import End, failure
from streamvibe.worker.heartbeat import Gone, Held

log = event_logger("streamvibe.worker")
_logger = logging.getLogger("streamvibe.worker")

#: How long a handler that was told to stop may take before its job is reported without it.
STOP_PATIENCE_SECONDS = 5.0
#: Of a handler's own message the worker's log has so many.
MOST_CHARACTERS = 500


class Holding:
    """Starts the handlers of held jobs, stops them, and passes on how they ended.

    A job is *held* until its end is written, *running* until its handler is over (which a thread that ignores
    every request to stop decides itself), *reported* once its end is on its way to the database.
    Belongs to one event loop; only ``held_now`` and ``is_alive`` may be called from other threads.
    """

    def __init__(self, job_types: Mapping[str, JobType[Any, Any]], on_end: Callable[[End], None]) -> None:
        self._job_types = job_types
        self._on_end = on_end
        self._held: dict[str, ClaimedJob] = {}
        self.running: set[ClaimedJob] = set()
        #: Loop time of the last look at the clock; infinite until somebody looks.
        self.ticked_at = float("inf")
        #: Set whenever a handler is over or a job is reported.
        self.changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, job_id: UUID) -> bool:
        return str(job_id) in self._held

    @property
    def unfinished(self) -> bool:
        """Whether a handler runs whose job is not reported: what a crash would be laid at its door."""
        return any(not job.reported for job in self.running)

    def held_now(self) -> Held:
        """What the worker believes to hold and works on."""
        return [(job.key, job.token) for job in tuple(self._held.values()) if not job.reported]

    def is_alive(self) -> bool:
        """Whether the event loop runs, or is blocked by handlers that may yet end within their time."""
        jobs = [job for job in tuple(self._held.values()) if job.started and not job.reported]
        return (
            not jobs
            or time.monotonic() < max(self.ticked_at, *(job.deadline for job in jobs)) + STOP_PATIENCE_SECONDS
        )

    def places(self, *, transactional: bool = False) -> int:
        """How many handlers run that are transactional, or are not."""
        return sum(job.transactional is transactional for job in self.running)

    def tokens(self) -> list[int]:
        """The claims of the held jobs."""
        return list({job.token for job in self._held.values()})

    def waiting(self) -> list[ClaimedJob]:
        """The held jobs whose handler was never started."""
        return [job for job in self._held.values() if job.task is None]

    def add(self, job: ClaimedJob) -> None:
        """Hold a job that was just claimed."""
        self._held[job.key] = job
        if job.job_type not in self._job_types:
            # Its type was registered between this worker's claim and the database's look at all types.
            self.report(job, End(job, "released", None))

    def start(self, jobs: Iterable[ClaimedJob]) -> None:
        """Run the jobs' handlers, but for those where there is no more reason to."""
        loop = asyncio.get_running_loop()
        now, epoch = loop.time(), time.time()
        run = self._traced if tracing.is_on() else self._run
        for job in jobs:
            if not job.reported:
                self.running.add(job)
                job.begin(now, epoch)
                job.task = loop.create_task(run(job))

    async def _traced(self, job: ClaimedJob) -> None:
        from streamvibe import spans

        def ended(end: End | None) -> None:
            failed = orjson.loads(end.payload or "{}") if end is not None and end.kind == "failed" else {}
            spans.ended(span, end.kind if end else "lost", failed.get("kind"), failed.get("message"))

        with spans.processing(job.job_type, job.key, job.attempt, job.traceparent) as span:
            await self._run(job, ended)

    async def _run(self, job: ClaimedJob, ended: Callable[[End | None], None] | None = None) -> None:
        # The end is not what the task returns: job, task and end would keep each other until the collector comes,
        # which was a quarter of a busy worker's memory.
        job.entered = True
        try:
            end = await execute(job, self._job_types[job.job_type])
        except asyncio.CancelledError:
            end = stopped(job)
        except BaseException as error:
            log.error("job_not_run", job_id=job.key, error=describe(error))
            end = End(job, "failed", failure("error", describe(error), retryable=True))
        self._over(job, end)
        if ended is not None:
            ended(end)

    def _over(self, job: ClaimedJob, end: End | None) -> None:
        self.running.discard(job)
        self.changed.set()
        self.report(job, end)

    def report(self, job: ClaimedJob, end: End | None) -> None:
        """Pass on how the job ended, the first time it is said. None: there is nothing to write."""
        if job.reported:
            return
        job.reported = True
        self.changed.set()
        if end is not None and (end.kind != "completed" or _logger.isEnabledFor(logging.DEBUG)):
            _log_end(end)
        if job.outcome is not None:
            job.outcome.set_result(end)
        elif end is None:
            self.forget(job)
        else:
            self._on_end(end)

    def written(self, ends: Sequence[End]) -> None:
        """The database has these ends."""
        for end in ends:
            self.forget(end.job)

    def forget(self, job: ClaimedJob) -> None:
        """Hold this job no longer."""
        # The same job may have come back under a new claim by now.
        if self._held.get(job.key) is job:
            del self._held[job.key]

    def gone(self, gone: Gone) -> None:
        """Stop the handlers of jobs that are held no longer under these tokens."""
        for job_id, token, reason in gone:
            job = self._held.get(job_id)
            if job is not None and job.token == token and job.stop is None and not job.reported:
                why = Stop.CANCELLED if reason == "cancelled" else Stop.LOST
                log.info("job_no_longer_held", job_id=job_id, reason=why.value)
                self.stop(job, why)

    def stop(self, job: ClaimedJob, why: Stop) -> None:
        """Tell the handler to stop, once; its job is reported when it does, or at once where that cannot matter."""
        if job.stop is not None or job.reported:
            return
        job.stop = why
        job.stop_at = asyncio.get_running_loop().time()
        is_async = job.task is not None and self._job_types[job.job_type].is_async
        if job.task is not None and is_async:
            job.task.cancel()
            if not job.entered:  # nor will it ever be
                self._over(job, stopped(job))
        if job.task is None or why is Stop.LOST or (why is Stop.TIMEOUT and not is_async):
            # A thread cannot be interrupted: its job is failed now, its place is free when it ends.
            self.report(job, stopped(job))


def _log_end(end: End) -> None:
    """A line for the operator; what else a handler raised has been logged with its traceback."""
    job = end.job
    fields: dict[str, object] = {"job_id": job.key, "job_type": job.job_type, "attempt": job.attempt}
    if end.kind == "completed":
        log.debug("job_completed", **fields)
    elif end.kind == "released":
        if job.stop is not Stop.CANCELLED:  # else it was said when that was learnt
            log.info("job_handed_back", **fields)
    else:
        fields["max_attempts"] = job.max_attempts
        failed = orjson.loads(end.payload or "{}")
        kind = failed.get("kind")
        if kind in ("permanent", "retry_later"):
            # What a handler wrote; of params and results that cannot be read the message may hold values.
            fields["message"] = str(failed.get("message"))[:MOST_CHARACTERS]
        if kind == "retry_later":
            log.info("job_retried_later", **fields)
        elif kind != "error":
            log.warning("job_failed", kind=kind, **fields)
