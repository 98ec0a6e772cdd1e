"""Calls of the functions that register job types, set limits, make partitions and count."""

from datetime import datetime
from typing import Any
from uuid import UUID

from streamvibe.db.registration import registration
from streamvibe.db.statements import arguments
from streamvibe.db.statements.statement import Statement, nothing
from streamvibe.jobtype import JobType
from streamvibe.model import QueueStats, Recounted, WorkerState

_LIMIT = "SELECT public.set_user_limit(p_user_id := %(user_id)s, p_max_live_jobs := %(limit)s::integer)"
_ENSURE_PARTITIONS = "SELECT partition_name FROM public.ensure_partitions()"
_STATS = """
SELECT total_jobs, pending_jobs, processing_jobs, completed_jobs, failed_jobs, cancelled_jobs,
       avg_processing_seconds, avg_wait_seconds, error_rate, jobs_by_type, error_rates,
       processing_p50_seconds, processing_p95_seconds, processing_p99_seconds,
       wait_p50_seconds, wait_p95_seconds, wait_p99_seconds
FROM public.get_job_queue_stats(p_since := %(since)s::timestamptz, p_job_type := %(job_type)s::text)
"""
_RECOUNT = "SELECT job_type, status, jobs_before, jobs_now FROM public.recount_stats()"
_WORKERS = """
SELECT worker_id, job_types, is_alive, claimed_jobs, started_at, heartbeat_at FROM public.get_workers()
"""


def register_job_type(job_type: JobType[Any, Any]) -> Statement[None]:
    """Register a job type or change its settings. What it leaves out gets SQL's defaults."""
    text, params = registration(job_type)
    return Statement(text, params, nothing)


def set_user_limit(user_id: UUID | str, max_live_jobs: int | None) -> Statement[None]:
    """Set how many live jobs a user may have; None: the default."""
    params = {
        "user_id": arguments.uuid(user_id, "user_id"),
        "limit": arguments.integer(max_live_jobs, "max_live_jobs"),
    }
    return Statement(_LIMIT, params, nothing)


def ensure_partitions() -> Statement[list[str]]:
    """Make the partitions of the next weeks; the names of those that were missing."""
    return Statement(_ENSURE_PARTITIONS, {}, lambda rows: [row[0] for row in rows])


def get_job_queue_stats(
    since: datetime | None, job_type: JobType[Any, Any] | str | None
) -> Statement[QueueStats]:
    """The queue in numbers."""
    params = {"since": arguments.moment(since, "since"), "job_type": arguments.job_type_name(job_type)}
    return Statement(_STATS, params, lambda rows: QueueStats(*rows[0]))


def recount_stats() -> Statement[list[Recounted]]:
    """Count every job anew."""
    return Statement(_RECOUNT, {}, lambda rows: [Recounted(*row) for row in rows])


def get_workers() -> Statement[list[WorkerState]]:
    """The workers there are."""
    return Statement(_WORKERS, {}, lambda rows: [WorkerState(*row) for row in rows])
