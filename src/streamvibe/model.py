"""What the queue's functions return: frozen types, no I/O.

Fields are named as the columns of the SQL functions they come from. Times are timezone-aware; durations are
``timedelta``; JSON values are what ``json`` makes of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

T = TypeVar("T")
R = TypeVar("R")


class JobStatus(StrEnum):
    """Where a job is: live (pending, processing) or finished (completed, failed, cancelled)."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_live(self) -> bool:
        """Whether the job waits or runs. A failed one with a ``retry_at`` is not live, and still comes back."""
        return self in (JobStatus.PENDING, JobStatus.PROCESSING)


class Outcome(StrEnum):
    """What a request did: made a job, joined an identical live one, or found a result in the cache."""

    CREATED = "created"
    JOINED = "joined"
    CACHED = "cached"


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands."""

    id: UUID
    user_id: UUID
    job_type: str
    status: JobStatus
    job_priority: int
    """0 to 9; higher runs first."""
    params: dict[str, Any]
    result: Any
    """None until the job is completed."""
    failure_kind: str | None
    """Of the last attempt: error, timeout, retry_later, permanent, invalid_params, invalid_result, crash or expired."""
    error_message: str | None
    retry_count: int
    """Attempts that failed so far."""
    progress: float | None
    """0 to 1, as far as the handler says."""
    progress_message: str | None
    worker_id: str | None
    created_at: datetime
    updated_at: datetime
    scheduled_for: datetime
    started_at: datetime | None
    completed_at: datetime | None
    """When it was completed, failed or cancelled."""
    expires_at: datetime | None
    retry_at: datetime | None
    """On a failed job: when it comes back by itself. None: it does not."""
    idempotency_key: str | None

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to the job any more unless somebody asks for it."""
        return not self.status.is_live and self.retry_at is None


@dataclass(frozen=True, slots=True)
class JobResult(Generic[R]):
    """How a job ended so far. ``result`` is None until ``status`` is completed."""

    job_id: UUID
    status: JobStatus
    result: R | None
    failure_kind: str | None
    error_message: str | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Requested(Generic[R]):
    """The answer to a request. ``result`` and ``result_age`` are filled when the outcome is cached."""

    outcome: Outcome
    job_id: UUID
    status: JobStatus
    result: R | None
    result_age: timedelta | None
    load_result: Callable[[Any], R] | None = field(default=None, repr=False, compare=False)
    """Makes the job type's result object of a JSON value; None when only the type's name is known."""
    traceparent: str | None = field(default=None, repr=False, compare=False)
    """The W3C trace context of the job joined or found, when this request was traced."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a job's log."""

    id: UUID
    job_id: UUID
    user_id: UUID
    log_level: str
    """debug, info, warning or error."""
    message: str
    metadata: dict[str, Any] | None
    created_at: datetime
    snippet: str | None = None
    """Of a search for words: the parts of the message that have them, each word between ``**`` and ``**``."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list. ``next_cursor`` fetches the next part; None on the last page and on offset pages."""

    items: list[T]
    next_cursor: str | None
    has_more: bool
    total_count: int | None = None
    """How many rows the whole list (or bucket) has, with these filters; None where nobody counted (cursor pages,
    logs, an offset past the end)."""
    total_age: timedelta | None = None
    """How long ago the total was counted: 0, or for more than 10,000 rows up to five minutes."""
    start: datetime | None = None
    """The bucket's start, on pages of one hour, day, week or month; else None."""
    end: datetime | None = None
    """The bucket's end, which is not in it."""


@dataclass(frozen=True, slots=True)
class JobChange:
    """What cancelling or retrying did to one job.

    ``outcome``: of cancelling, cancelled, unchanged (it was finished for good) or not_found; of retrying, retried,
    not_failed, not_retryable, attempts_exhausted, at_limit, has_twin or not_found. ``status`` is the job's
    status afterwards, None when there is no such job of this user.
    """

    job_id: UUID
    outcome: str
    status: JobStatus | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job to create in bulk. ``params`` None is ``{}``; None elsewhere means what the job type says."""

    user_id: UUID | str
    job_type: Any
    """A name, or a ``JobType`` (which then validates ``params``)."""
    params: Any = None
    priority: int | None = None
    scheduled_for: datetime | None = None


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What became of one job of a bulk creation: ``ordinal`` counts from 1 in the order given.

    ``job_id`` is the live twin's when joined, None when refused (over the user's limit).
    """

    ordinal: int
    job_id: UUID | None
    outcome: Literal["created", "joined", "refused"]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker, as the database knows it."""

    worker_id: str
    job_types: list[str] | None
    """What it takes; None: every type."""
    is_alive: bool
    """Whether its lease still runs. The jobs of one whose lease does not are taken back within seconds."""
    claimed_jobs: int
    started_at: datetime
    heartbeat_at: datetime

    def takes(self, job_type: str) -> bool:
        """Whether it runs jobs of this type now."""
        return self.is_alive and (self.job_types is None or job_type in self.job_types)


@dataclass(frozen=True, slots=True)
class Pause:
    """What is not claimed for now. Without ``job_type`` and ``user_id`` it is everything."""

    job_type: str | None
    user_id: UUID | None
    paused_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class DutyState:
    """A duty of maintenance; what is said of the leader is the same for all."""

    duty: str
    state: str
    """running, done, failed, disabled or new"""
    schedule: str
    """Cron in UTC, or ``every 30 seconds``."""
    enabled: bool
    running_since: datetime | None
    last_started_at: datetime | None
    last_ended_at: datetime | None
    last_done: int | None
    """How many jobs, notes, keys or leaves."""
    last_error: str | None
    leader_id: str | None
    led_since: datetime | None
    leader_is_alive: bool
    """Whether a process does the maintenance at this moment."""


@dataclass(frozen=True, slots=True)
class DutyRun:
    """A run of a duty, or several in a row that had nothing to do."""

    duty: str
    started_at: datetime
    ended_at: datetime
    runs: int
    done: int | None
    error: str | None
    leader_id: str
    fence: int
    """Grows by one whenever another process takes over."""


@dataclass(frozen=True, slots=True)
class Report:
    """What maintenance reported of a period, from ``period_start`` to before ``period_end``."""

    kind: str
    """weekly or monthly; daily: the figures those are added up from"""
    period_start: datetime
    period_end: datetime
    made_at: datetime
    content: dict[str, Any]
    """jobs, job_types, errors, queue, alerts, growth, tables, indexes, partitions, statements, duties: lists begin with
    the worst; ``before`` is what the report before said."""


@dataclass(frozen=True, slots=True)
class SlowStatement:
    """A statement on the queue, without anybody's constants, in all the calls since ``since``."""

    statement: str
    calls: int
    total_seconds: float
    mean_seconds: float
    max_seconds: float
    rows_per_call: float
    blocks_per_call: float
    """Pages read, from memory or disk."""
    query_id: int
    since: datetime


@dataclass(frozen=True, slots=True)
class SlowStatements:
    """The statements on the queue that took the most time, the longest in all first."""

    items: list[SlowStatement]
    problem: str | None
    """Why there is nothing, or not everything, to show: pg_stat_statements is not there, or hides some."""
    fix: str | None
    """What to do about that, in SQL."""


@dataclass(frozen=True, slots=True)
class WaitReason:
    """One reason why a job is not running."""

    reason: str
    """finished, running, paused, scheduled, backoff, retry_later, attempts_exhausted, at_limit, has_twin, no_worker,
    isolated, locked, behind or next"""
    message: str
    ready_at: datetime | None
    """When that ends, where it is known; of ``behind`` an estimate."""
    jobs_ahead: int | None
    job_ids: list[UUID] | None
    """The jobs that stand in its way."""


@dataclass(frozen=True, slots=True)
class Recounted:
    """A number of the statistics that was wrong."""

    job_type: str
    status: str
    jobs_before: int
    jobs_now: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The whole queue in numbers, exact in one snapshot.

    Averages and percentiles are in seconds, over completed jobs: waiting from due to started, processing from started
    to ended; None when there are none. Percentiles are within 1 % of the exact ones.
    """

    total_jobs: int
    pending_jobs: int
    processing_jobs: int
    completed_jobs: int
    failed_jobs: int
    cancelled_jobs: int
    avg_processing_seconds: float | None
    avg_wait_seconds: float | None
    error_rate: float | None
    """failed / (completed + failed), 0 to 1; None when nothing is finished."""
    jobs_by_type: dict[str, dict[str, int]]
    """``{job type: {status: count}}``."""
    error_rates: dict[str, float | None]
    """The error rate of what ended in the last ``"1 hour"``, ``"1 day"`` and ``"7 days"``."""
    processing_p50_seconds: float | None
    processing_p95_seconds: float | None
    processing_p99_seconds: float | None
    wait_p50_seconds: float | None
    wait_p95_seconds: float | None
    wait_p99_seconds: float | None
