"""Calls of the functions that request, change and read jobs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import orjson
from pydantic import PydanticUserError, TypeAdapter

from streamvibe import payload
from streamvibe.db.statements import arguments
from streamvibe.db.statements.statement import Row, Statement
from streamvibe.errors import InvalidArgument, JobNotFound, from_parts
from streamvibe.jobtype import JobType
from streamvibe.model import Job, JobChange, JobResult, JobStatus, Outcome, Requested

P = TypeVar("P")
R = TypeVar("R")

_REQUEST = """
SELECT outcome, job_id, status, result, result_age, traceparent
FROM public.request_job(
    p_user_id := %(user_id)s, p_job_type := %(job_type)s, p_params := %(params)s::jsonb,
    p_priority := %(priority)s::integer, p_scheduled_for := %(scheduled_for)s::timestamptz,
    p_force := %(force)s, p_idempotency_key := %(idempotency_key)s,
    p_dedupe_window := %(dedupe_window)s::interval, p_cache_ttl := %(cache_ttl)s::interval,
    p_enforce_limit := %(enforce_limit)s, p_traceparent := %(traceparent)s::text)
"""
_REQUESTS = """
SELECT outcome, job_id, status, result, result_age, traceparent, error FROM public.request_jobs(p_requests := %s::jsonb)
"""
_CANCEL = """
SELECT job_id, outcome, status
FROM public.cancel_jobs(p_user_id := %(user_id)s, p_job_ids := %(job_ids)s::uuid[])
"""
_RETRY = """
SELECT job_id, outcome, status
FROM public.retry_jobs(p_user_id := %(user_id)s, p_job_ids := %(job_ids)s::uuid[])
"""
# The fields of Job, in its order. A real that is read in binary would come as 0.30000001192092896.
# The statements below are put together of constants alone.
JOB_COLUMNS = (
    "id, user_id, job_type, status, job_priority, params, result, failure_kind, error_message, retry_count, "
    "progress::text::double precision, progress_message, worker_id, created_at, updated_at, scheduled_for, "
    "started_at, completed_at, expires_at, retry_at, idempotency_key"
)
_GET = f"SELECT {JOB_COLUMNS} FROM public.get_job(p_job_id := %(job_id)s, p_user_id := %(user_id)s::uuid)"  # noqa: S608
_RESULT = """
SELECT job_id, status, result, failure_kind, error_message, completed_at
FROM public.get_job_result(p_job_id := %(job_id)s, p_user_id := %(user_id)s::uuid)
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
    traceparent: str | None = None,
) -> Statement[Requested[R]]:
    """Ask for a job. ``traceparent``: the W3C trace context of who asks."""
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
            "traceparent": traceparent,
        },
        partial(_requested, job_type.load_result if isinstance(job_type, JobType) else None),
    )


def request_jobs(requests: Sequence[Statement[Any]]) -> Statement[Sequence[Row]]:
    """Make what ``request_job`` made in one transaction, each for itself; a row for each, to give to ``answer``."""
    return Statement(
        _REQUESTS, (f"[{','.join(_element(request.params) for request in requests)}]",), lambda rows: rows
    )


def answer(request: Statement[R], row: Row) -> R | None:
    """What became of one request. None: another transaction has its user's lock. Raises what it was refused for."""
    error = row[6]
    if error is not None:
        raise from_parts(error["code"], error["field"], error["message"], error["received"], error["fix"])
    return None if row[0] == "busy" else request.decode([row[:6]])


def characters(request: Statement[Any]) -> int:
    """About how long its text is."""
    params: Any = request.params
    return len(params["params"])


def _element(params: Any) -> str:
    """One request as JSON. Its params are JSON already."""
    named = {name: value for name, value in params.items() if value is not None and name != "params"}
    text = orjson.dumps(named, default=_interval).decode()
    return f'{text[:-1]},"params":{params["params"]}}}'


def _interval(value: object) -> str:
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"
    raise TypeError(value)


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
    return Statement(_GET, one(job_id, user_id), lambda rows: read_job(first(rows, job_id, user_id)))


def get_job_result(
    job_id: UUID | str, user_id: UUID | str | None, job_type: JobType[Any, R] | None
) -> Statement[JobResult[R]]:
    """Read how a job ended so far. Decoding raises JobNotFound."""
    load = job_type.load_result if job_type is not None else None

    def decode(rows: Sequence[Row]) -> JobResult[R]:
        found, status, result, *rest = first(rows, job_id, user_id)
        ended = JobStatus(status)
        return JobResult(found, ended, loaded(load, ended, result), *rest)

    return Statement(_RESULT, one(job_id, user_id), decode)


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


def one(job_id: UUID | str, user_id: UUID | str | None) -> dict[str, object]:
    return {
        "job_id": arguments.uuid(job_id, "job_id"),
        "user_id": None if user_id is None else arguments.uuid(user_id, "user_id"),
    }


def _requested(load: Any, rows: Sequence[Row]) -> Requested[Any]:
    outcome, job_id, status, result, age, traceparent = rows[0]
    now = JobStatus(status)
    return Requested(Outcome(outcome), job_id, now, loaded(load, now, result), age, load, traceparent)


def first(rows: Sequence[Row], job_id: UUID | str, user_id: UUID | str | None) -> Row:
    """The first row. Raises JobNotFound where there is none."""
    if not rows:
        raise JobNotFound(
            "There is no such job",
            field="job_id",
            received=str(job_id),
            fix="Check the id" + ("" if user_id is None else "; a user sees only their own jobs"),
        )
    return rows[0]


def read_job(row: Row) -> Job:
    """A row of JOB_COLUMNS."""
    values = [*row[:3], JobStatus(row[3]), *row[4:21]]
    return Job(*values)
