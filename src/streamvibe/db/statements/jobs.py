"""Calls of the functions that request, change and read jobs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from pydantic import PydanticUserError, TypeAdapter

from streamvibe import payload
from streamvibe.db.statements import arguments
from streamvibe.db.statements.statement import Row, Statement
from streamvibe.errors import InvalidArgument, JobNotFound
from streamvibe.jobtype import JobType
from streamvibe.model import Job, JobChange, JobResult, JobStatus, LogLine, Outcome, Page, Requested

P = TypeVar("P")
R = TypeVar("R")

_REQUEST = """
SELECT outcome, job_id, status, result, result_age
FROM public.request_job(
    p_user_id := %(user_id)s, p_job_type := %(job_type)s, p_params := %(params)s::jsonb,
    p_priority := %(priority)s::integer, p_scheduled_for := %(scheduled_for)s::timestamptz,
    p_force := %(force)s, p_idempotency_key := %(idempotency_key)s,
    p_dedupe_window := %(dedupe_window)s::interval, p_cache_ttl := %(cache_ttl)s::interval,
    p_enforce_limit := %(enforce_limit)s)
"""
_CANCEL = """
SELECT job_id, outcome, status
FROM public.cancel_jobs(p_user_id := %(user_id)s, p_job_ids := %(job_ids)s::uuid[])
"""
_RETRY = """
SELECT job_id, outcome, status
FROM public.retry_jobs(p_user_id := %(user_id)s, p_job_ids := %(job_ids)s::uuid[])
"""
# The fields of Job, in its order. The statements below are put together of constants alone.
_JOB = (
    "id, user_id, job_type, status, job_priority, params, result, failure_kind, error_message, retry_count, "
    "progress, progress_message, worker_id, created_at, updated_at, scheduled_for, started_at, completed_at, "
    "expires_at, retry_at, idempotency_key"
)
_GET = f"SELECT {_JOB} FROM public.get_job(p_job_id := %(job_id)s, p_user_id := %(user_id)s::uuid)"  # noqa: S608
_RESULT = """
SELECT job_id, status, result, failure_kind, error_message, completed_at
FROM public.get_job_result(p_job_id := %(job_id)s, p_user_id := %(user_id)s::uuid)
"""
_LIST = f"""
SELECT {_JOB}, total_count, total_age
FROM public.get_user_jobs(
    p_user_id := %(user_id)s, p_status := %(status)s, p_job_type := %(job_type)s,
    p_limit := %(limit)s::integer, p_offset := %(offset)s::integer,
    p_order_by := %(order_by)s, p_order_dir := %(order_dir)s)
"""  # noqa: S608
_LIST_BY_CURSOR = f"""
SELECT {_JOB}, next_cursor, has_more
FROM public.get_user_jobs_by_cursor(
    p_user_id := %(user_id)s, p_cursor := %(cursor)s, p_status := %(status)s, p_job_type := %(job_type)s,
    p_limit := %(limit)s::integer)
"""  # noqa: S608
_LIST_BY_BUCKET = f"""
SELECT {_JOB}, bucket_total, bucket_total_age, bucket_start, bucket_end, next_cursor, has_more
FROM public.get_user_jobs_by_bucket(
    p_user_id := %(user_id)s, p_bucket := %(bucket)s, p_page := %(page)s::integer, p_status := %(status)s,
    p_job_type := %(job_type)s, p_limit := %(limit)s::integer, p_cursor := %(cursor)s,
    p_time_zone := %(time_zone)s)
"""  # noqa: S608
_LOGS = """
SELECT id, job_id, user_id, log_level, message, metadata, created_at, next_cursor, has_more
FROM public.get_job_logs(
    p_job_id := %(job_id)s, p_user_id := %(user_id)s::uuid, p_log_level := %(level)s,
    p_limit := %(limit)s::integer, p_cursor := %(cursor)s)
"""


def request_job(
    job_type: JobType[Any, R] | str,
    params: object,
    *,
    user_id: UUID | str,
    force: bool,
    priority: int | None,
    scheduled_for: datetime | None,
    idempotency_key: str | None,
    dedupe_window: timedelta | None,
    cache_ttl: timedelta | None,
    enforce_limit: bool,
) -> Statement[Requested[R]]:
    """Ask for a job."""
    return Statement(
        _REQUEST,
        {
            "user_id": arguments.uuid(user_id, "user_id"),
            "job_type": arguments.job_type_name(job_type),
            "params": dump_params(job_type, params),
            "force": bool(force),
            "priority": arguments.integer(priority, "priority"),
            "scheduled_for": arguments.moment(scheduled_for, "scheduled_for"),
            "idempotency_key": arguments.text(idempotency_key, "idempotency_key"),
            "dedupe_window": arguments.duration(dedupe_window, "dedupe_window"),
            "cache_ttl": arguments.duration(cache_ttl, "cache_ttl"),
            "enforce_limit": bool(enforce_limit),
        },
        partial(_requested, job_type.load_result if isinstance(job_type, JobType) else None),
    )


def cancel_jobs(
    job_ids: UUID | str | Iterable[UUID | str], user_id: UUID | str
) -> Statement[list[JobChange]]:
    """Cancel a user's live jobs."""
    return _change(_CANCEL, job_ids, user_id)


def retry_jobs(job_ids: UUID | str | Iterable[UUID | str], user_id: UUID | str) -> Statement[list[JobChange]]:
    """Retry a user's failed jobs now."""
    return _change(_RETRY, job_ids, user_id)


def get_job(job_id: UUID | str, user_id: UUID | str | None) -> Statement[Job]:
    """Read one job. Decoding raises JobNotFound."""
    return Statement(_GET, _one(job_id, user_id), lambda rows: _job(_first(rows, job_id)))


def get_job_result(
    job_id: UUID | str, user_id: UUID | str | None, job_type: JobType[Any, R] | None
) -> Statement[JobResult[R]]:
    """Read how a job ended so far. Decoding raises JobNotFound."""
    load = job_type.load_result if job_type is not None else None

    def decode(rows: Sequence[Row]) -> JobResult[R]:
        found, status, result, *rest = _first(rows, job_id)
        ended = JobStatus(status)
        return JobResult(found, ended, loaded(load, ended, result), *rest)

    return Statement(_RESULT, _one(job_id, user_id), decode)


def get_user_jobs(
    user_id: UUID | str,
    *,
    status: str | None,
    job_type: JobType[Any, Any] | str | None,
    limit: int,
    offset: int,
    order_by: str,
    order_dir: str,
) -> Statement[Page[Job]]:
    """Read a page of a user's jobs by offset."""

    def decode(rows: Sequence[Row]) -> Page[Job]:
        total, age = rows[0][-2:] if rows else (0, timedelta(0)) if offset == 0 else (None, None)
        has_more = total is not None and offset + len(rows) < total
        return Page([_job(row) for row in rows], None, has_more, total, age)

    params = {
        **_filter(user_id, status, job_type, limit),
        "offset": arguments.integer(offset, "offset"),
        "order_by": arguments.text(order_by, "order_by"),
        "order_dir": arguments.text(order_dir, "order_dir"),
    }
    return Statement(_LIST, params, decode)


def get_user_jobs_by_cursor(
    user_id: UUID | str,
    *,
    cursor: str | None,
    status: str | None,
    job_type: JobType[Any, Any] | str | None,
    limit: int,
) -> Statement[Page[Job]]:
    """Read a page of a user's jobs after a cursor, newest first."""
    params = {**_filter(user_id, status, job_type, limit), "cursor": arguments.text(cursor, "cursor")}
    return Statement(_LIST_BY_CURSOR, params, partial(_page, _job))


def get_user_jobs_by_bucket(
    user_id: UUID | str,
    *,
    bucket: str,
    page: int,
    status: str | None,
    job_type: JobType[Any, Any] | str | None,
    limit: int,
    cursor: str | None,
    time_zone: str,
) -> Statement[Page[Job]]:
    """Read a page of a user's jobs of one hour, day, week or month."""

    def decode(rows: Sequence[Row]) -> Page[Job]:
        total, age, start, end, next_cursor, has_more = rows[0][-6:]
        # An empty bucket is one row without a job.
        items = [_job(row) for row in rows if row[0] is not None]
        return Page(items, next_cursor, has_more, total, age, start, end)

    params = {
        **_filter(user_id, status, job_type, limit),
        "bucket": arguments.text(bucket, "bucket"),
        "page": arguments.integer(page, "page"),
        "cursor": arguments.text(cursor, "cursor"),
        "time_zone": arguments.text(time_zone, "time_zone"),
    }
    return Statement(_LIST_BY_BUCKET, params, decode)


def get_job_logs(
    job_id: UUID | str, *, user_id: UUID | str | None, level: str | None, limit: int, cursor: str | None
) -> Statement[Page[LogLine]]:
    """Read a page of a job's log, newest first."""
    params = {
        **_one(job_id, user_id),
        "level": arguments.text(level, "level"),
        "limit": arguments.integer(limit, "limit"),
        "cursor": arguments.text(cursor, "cursor"),
    }
    return Statement(_LOGS, params, partial(_page, lambda row: LogLine(*row[:7])))


def dump_params(job_type: JobType[Any, Any] | str, params: object, field: str = "params") -> str:
    """The JSON text of params: validated by its job type where that is known, else any JSON object."""
    if isinstance(job_type, JobType):
        return job_type.dump_params(params)
    if params is None:
        return "{}"
    if not isinstance(params, Mapping):
        try:
            params = TypeAdapter(type(params)).dump_python(params, mode="json")
        except (PydanticUserError, ValueError) as error:
            raise _not_an_object(params, field) from error
    if not isinstance(params, Mapping):
        raise _not_an_object(params, field)
    return payload.encode(dict(params), field)


def loaded(load: Any, status: JobStatus, result: Any) -> Any:
    """The result as its job type's object, where the job has one and the type is known."""
    return load(result) if load is not None and status == JobStatus.COMPLETED else result


def _not_an_object(params: object, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} is not a JSON object",
        field=field,
        received=ascii(params)[:200],
        fix="Pass a mapping, a pydantic model or a dataclass.",
    )


def _change(
    text: str, job_ids: UUID | str | Iterable[UUID | str], user_id: UUID | str
) -> Statement[list[JobChange]]:
    params = {"user_id": arguments.uuid(user_id, "user_id"), "job_ids": arguments.uuids(job_ids, "job_ids")}
    return Statement(
        text,
        params,
        lambda rows: [JobChange(row[0], row[1], JobStatus(row[2]) if row[2] else None) for row in rows],
    )


def _one(job_id: UUID | str, user_id: UUID | str | None) -> dict[str, object]:
    return {
        "job_id": arguments.uuid(job_id, "job_id"),
        "user_id": None if user_id is None else arguments.uuid(user_id, "user_id"),
    }


def _filter(
    user_id: UUID | str, status: str | None, job_type: JobType[Any, Any] | str | None, limit: int
) -> dict[str, object]:
    return {
        "user_id": arguments.uuid(user_id, "user_id"),
        # A StrEnum would be sent as a PostgreSQL enum.
        "status": str(arguments.text(status, "status")) if status is not None else None,
        "job_type": arguments.job_type_name(job_type),
        "limit": arguments.integer(limit, "limit"),
    }


def _requested(load: Any, rows: Sequence[Row]) -> Requested[Any]:
    outcome, job_id, status, result, age = rows[0]
    now = JobStatus(status)
    return Requested(Outcome(outcome), job_id, now, loaded(load, now, result), age, load)


def _first(rows: Sequence[Row], job_id: UUID | str) -> Row:
    if not rows:
        raise JobNotFound(
            "There is no such job",
            field="job_id",
            received=str(job_id),
            fix="Check the id; a user sees only their own jobs",
        )
    return rows[0]


def _job(row: Row) -> Job:
    values = [*row[:3], JobStatus(row[3]), *row[4:21]]
    return Job(*values)


def _page(item: Any, rows: Sequence[Row]) -> Page[Any]:
    next_cursor, has_more = rows[0][-2:] if rows else (None, False)
    return Page([item(row) for row in rows], next_cursor, has_more)
