"""Calls of the functions that list and search jobs and log lines, page by page."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from streamvibe import payload
from streamvibe.db.statements import arguments
from streamvibe.db.statements.jobs import JOB_COLUMNS, read_job
from streamvibe.db.statements.statement import Row, Statement
from streamvibe.errors import InvalidArgument
from streamvibe.jobtype import JobType
from streamvibe.model import Job, LogLine, Page

# The statements below are put together of constants alone.
_LIST = f"""
SELECT {JOB_COLUMNS}, total_count, total_age
FROM public.get_user_jobs(
    p_user_id := %(user_id)s, p_status := %(status)s, p_job_type := %(job_type)s,
    p_limit := %(limit)s::integer, p_offset := %(offset)s::integer,
    p_order_by := %(order_by)s, p_order_dir := %(order_dir)s)
"""  # noqa: S608
_LIST_BY_CURSOR = f"""
SELECT {JOB_COLUMNS}, next_cursor, has_more
FROM public.get_user_jobs_by_cursor(
    p_user_id := %(user_id)s, p_cursor := %(cursor)s, p_status := %(status)s, p_job_type := %(job_type)s,
    p_limit := %(limit)s::integer)
"""  # noqa: S608
_LIST_BY_BUCKET = f"""
SELECT {JOB_COLUMNS}, bucket_total, bucket_total_age, bucket_start, bucket_end, next_cursor, has_more
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
_SEARCH = f"""
SELECT {JOB_COLUMNS}, next_cursor, has_more
FROM public.search_jobs(
    p_user_id := %(user_id)s::uuid, p_params := %(params)s::jsonb, p_result := %(result)s::jsonb,
    p_status := %(status)s, p_job_type := %(job_type)s, p_limit := %(limit)s::integer, p_cursor := %(cursor)s)
"""  # noqa: S608
_SEARCH_LOGS = """
SELECT id, job_id, user_id, log_level, message, metadata, created_at, snippet, next_cursor, has_more
FROM public.get_job_logs(
    p_job_id := %(job_id)s::uuid, p_user_id := %(user_id)s::uuid, p_log_level := %(level)s,
    p_limit := %(limit)s::integer, p_cursor := %(cursor)s, p_since := %(since)s::timestamptz,
    p_until := %(until)s::timestamptz, p_metadata := %(metadata)s::jsonb, p_search := %(search)s)
"""


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
        return Page([read_job(row) for row in rows], None, has_more, total, age)

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
    return Statement(_LIST_BY_CURSOR, params, partial(_page, read_job))


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
        items = [read_job(row) for row in rows if row[0] is not None]
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
        "job_id": arguments.uuid(job_id, "job_id"),
        "user_id": _optional(user_id, "user_id"),
        "level": arguments.text(level, "level"),
        "limit": arguments.integer(limit, "limit"),
        "cursor": arguments.text(cursor, "cursor"),
    }
    return Statement(_LOGS, params, partial(_page, _line))


def search_jobs(
    *,
    params: Mapping[str, Any] | None,
    result: object,
    user_id: UUID | str | None,
    status: str | None,
    job_type: JobType[Any, Any] | str | None,
    limit: int,
    cursor: str | None,
) -> Statement[Page[Job]]:
    """Read a page of jobs whose params and result contain these values, newest first."""
    values = {
        "user_id": _optional(user_id, "user_id"),
        "params": _object(params, "params"),
        "result": None if result is None else payload.encode(result, "result"),
        "status": str(arguments.text(status, "status")) if status is not None else None,
        "job_type": arguments.job_type_name(job_type),
        "limit": arguments.integer(limit, "limit"),
        "cursor": arguments.text(cursor, "cursor"),
    }
    return Statement(_SEARCH, values, partial(_page, read_job))


def search_logs(
    search: str | None,
    *,
    job_id: UUID | str | None,
    user_id: UUID | str | None,
    level: str | None,
    since: datetime | None,
    until: datetime | None,
    metadata: Mapping[str, Any] | None,
    limit: int,
    cursor: str | None,
) -> Statement[Page[LogLine]]:
    """Read a page of log lines of any job, newest first."""
    values = {
        "search": arguments.text(search, "search"),
        "job_id": _optional(job_id, "job_id"),
        "user_id": _optional(user_id, "user_id"),
        "level": arguments.text(level, "level"),
        "since": arguments.moment(since, "since"),
        "until": arguments.moment(until, "until"),
        "metadata": _object(metadata, "metadata"),
        "limit": arguments.integer(limit, "limit"),
        "cursor": arguments.text(cursor, "cursor"),
    }
    return Statement(_SEARCH_LOGS, values, partial(_page, _line))


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


def _optional(value: UUID | str | None, field: str) -> UUID | None:
    return None if value is None else arguments.uuid(value, field)


def _object(value: Mapping[str, Any] | None, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f"{field} is not a mapping",
            field=field,
            received=ascii(value)[:200],
            fix='Pass the keys and values to look for, like {"channel": "UC1"}.',
        )
    return payload.encode(dict(value), field)


def _line(row: Row) -> LogLine:
    return LogLine(*row[:-2])


def _page(item: Any, rows: Sequence[Row]) -> Page[Any]:
    next_cursor, has_more = rows[0][-2:] if rows else (None, False)
    return Page([item(row) for row in rows], next_cursor, has_more)
