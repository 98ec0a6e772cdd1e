"""What both clients do alike: finding the database, looking after idle connections, waiting."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from psycopg import AsyncClientCursor, AsyncConnection, ClientCursor, Connection
from psycopg.pq import TransactionStatus

from streamvibe.db.current import configured_dsn, current_dsn
from streamvibe.db.statements.jobs import loaded
from streamvibe.errors import DatabaseUnreachable, JobFailed, StreamVibeError, WaitTimeout
from streamvibe.jobtype import JobType
from streamvibe.model import BulkOutcome, Job, JobResult, JobStatus, Requested

R = TypeVar("R")

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
PAUSE_GROWTH = 1.5
#: How long one look waits for a connection: so soon is whoever waits told that the database is away.
LOOK_SECONDS = 1.0


def find_dsn() -> str:
    """In a handler, its worker's database; else that of the settings; else the embedded one, started if need be."""
    return current_dsn.get() or configured_dsn()


def needs_transaction(connection: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether two statements on this connection would be two transactions."""
    return connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE


def reads_binary(connection: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether its answers can come in binary: less work for the server and here, a page of jobs in an eighth less time.

    Not those of a caller's connection whose cursors put the parameters into the text themselves.
    """
    factory = connection.cursor_factory
    return isinstance(factory, type) and not issubclass(factory, ClientCursor | AsyncClientCursor)


class AllInUse(DatabaseUnreachable):
    """The database answers, but the pool has no connection to spare."""


def all_in_use(max_size: int, seconds: float) -> AllInUse:
    """All of the pool's connections are lent, and stayed so."""
    return AllInUse(
        "No database connection became free",
        field="max_size",
        received=f"{max_size} connections, all in use for {seconds:g} s",
        fix="Raise max_size, or make fewer calls at once",
    )


def none_made(url: str, seconds: float) -> DatabaseUnreachable:
    """The database answers, but the pool got no connection to it in time."""
    return DatabaseUnreachable(
        f"No connection to the database could be made within {seconds:g} s",
        field="database_url",
        received=url,
        fix="It was away, or is slow to connect to: try again",
    )


@contextmanager
def noting_created(outcomes: list[BulkOutcome], *, committed: bool) -> Iterator[None]:
    """When a later batch fails, say what the earlier ones left behind."""
    try:
        yield
    except StreamVibeError as error:
        if committed and outcomes:
            error.add_note(f"Elements 1 to {outcomes[-1].ordinal} were handled before and are committed.")
        raise


class Waiting:
    """The steps of waiting for one job: ``look`` at it, then pause for ``pause()`` seconds, again and again."""

    def __init__(
        self,
        job: UUID | str | Requested[Any],
        job_type: JobType[Any, Any] | None,
        timeout: float | None,
        pool_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job_id = job.job_id if isinstance(job, Requested) else job
        self._load: Callable[[Any], Any] | None = job_type.load_result if job_type else None
        if self._load is None and isinstance(job, Requested):
            self._load = job.load_result
        self._timeout = timeout
        self._clock = clock
        self._pool_timeout = pool_timeout
        self._started_at = self._looked_at = clock()
        self._missed: DatabaseUnreachable | None = None
        self._pause = FIRST_PAUSE_SECONDS / PAUSE_GROWTH

    def miss(self, error: DatabaseUnreachable) -> bool:
        """This look failed: the job is looked at again, for a look can be repeated.

        Returns whether the database is away. Raises ``error`` when all connections have been in use for pool_timeout.
        """
        self._missed = error
        if not isinstance(error, AllInUse):
            return True
        busy = self._clock() - self._looked_at
        if busy >= self._pool_timeout:
            raise error
        return False

    def look(self, job: Job) -> JobResult[Any] | None:
        """The result, or None while there is something to wait for. Raises JobFailed."""
        self._missed, self._looked_at = None, self._clock()
        if job.status == JobStatus.COMPLETED:
            result = loaded(self._load, job.status, job.result)
            return JobResult(
                job.id, job.status, result, job.failure_kind, job.error_message, job.completed_at
            )
        if job.is_over:
            reason = f": {job.error_message}" if job.error_message else ""
            raise JobFailed(f"The job ended as {job.status}{reason}", job=job)
        return None

    def pause(self) -> float:
        """How long to wait before the next look. Raises WaitTimeout, or what kept the last look from being made."""
        self._pause = min(self._pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
        if self._timeout is None:
            return self._pause
        left = self._started_at + self._timeout - self._clock()
        if left <= 0:
            if self._missed is not None:
                self._missed.add_note(f"Waited {self._timeout:g} s for job {self.job_id}, which may go on.")
                raise self._missed
            raise WaitTimeout(
                f"Job {self.job_id} is not finished yet",
                field="timeout",
                received=f"{self._timeout:g} s",
                fix="The job goes on: wait again with client.wait(job_id), or look at it with client.get(job_id)",
            )
        return min(self._pause, left)
