"""Bulk creation: rows for COPY into streamvibe.staging, and the call that turns them into jobs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import count, islice
from typing import Any
from uuid import UUID, uuid4

from streamvibe.db.statements import arguments
from streamvibe.db.statements.jobs import dump_params
from streamvibe.db.statements.statement import Row, Statement
from streamvibe.errors import InvalidArgument
from streamvibe.jobtype import JobType
from streamvibe.model import BulkOutcome, NewJob

COPY = (
    "COPY streamvibe.staging (batch, ordinal, user_id, job_type, params, priority, scheduled_for) FROM STDIN"
)
_CREATE = """
SELECT ordinal, job_id, outcome
FROM streamvibe.create_staged_jobs(
    p_batch := %(batch)s, p_dedupe := %(dedupe)s, p_enforce_limit := %(enforce_limit)s,
    p_traceparent := %(traceparent)s::text)
"""
_FIELDS = tuple(item.name for item in fields(NewJob))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to COPY, and then, in the same transaction, the statement that makes jobs of them."""

    rows: list[Row]
    create: Statement[list[BulkOutcome]]


class Batches:
    """``jobs`` in batches of ``chunk_size`` (None: one); ordinals go on from one to the next.

    Raises InvalidArgument naming ``jobs[n].field``.
    """

    def __init__(
        self,
        jobs: Iterable[NewJob | Mapping[str, Any]],
        *,
        chunk_size: int | None,
        dedupe: bool,
        enforce_limit: bool,
        traceparent: str | None = None,
    ) -> None:
        if chunk_size is not None and not 1 <= chunk_size <= 1_000_000:
            raise InvalidArgument(
                "chunk_size is out of range",
                field="chunk_size",
                received=repr(chunk_size),
                fix="Use 1 to 1000000, or None for one transaction.",
            )
        # What a source gives is asked for when it is needed: it may take its time, use this client, or fail.
        self._is_at_hand = isinstance(jobs, list | tuple)
        self._jobs = zip(count(1), jobs, strict=False)
        self._chunk_size = chunk_size
        self._options = {
            "dedupe": bool(dedupe),
            "enforce_limit": bool(enforce_limit),
            "traceparent": traceparent,
        }
        self._prepared: Batch | Exception | None = None

    def __iter__(self) -> Iterator[Batch]:
        while True:
            found, self._prepared = self._prepared or self._cut(), None
            if isinstance(found, Exception):
                raise found
            if found is None:
                return
            yield found

    def prepare(self) -> None:
        """Write the next batch now, if all jobs are at hand; what is wrong with it is raised when it is its turn."""
        if self._is_at_hand and self._prepared is None:
            try:
                self._prepared = self._cut()
            except Exception as error:
                self._prepared = error

    def _cut(self) -> Batch | None:
        batch = uuid4()
        rows = [_row(batch, ordinal, job) for ordinal, job in islice(self._jobs, self._chunk_size)]
        if not rows:
            return None
        params = {"batch": batch} | self._options
        return Batch(rows, Statement(_CREATE, params, lambda found: [BulkOutcome(*row) for row in found]))


def _row(batch: UUID, ordinal: int, job: NewJob | Mapping[str, Any]) -> Row:
    try:
        return _checked(batch, ordinal, job, "job")
    except InvalidArgument:
        # Which place it was is worked out when it matters: naming the fields costs as much as checking them.
        return _checked(batch, ordinal, job, f"jobs[{ordinal}]")


def _checked(batch: UUID, ordinal: int, job: NewJob | Mapping[str, Any], place: str) -> Row:
    if not isinstance(job, NewJob):
        job = _read(job, place)
    return (
        batch,
        ordinal,
        arguments.uuid(job.user_id, f"{place}.user_id"),
        arguments.job_type_name(job.job_type, f"{place}.job_type"),
        _params(job, place),
        arguments.integer(job.priority, f"{place}.priority"),
        arguments.moment(job.scheduled_for, f"{place}.scheduled_for"),
    )


def _params(job: NewJob, place: str) -> str:
    if isinstance(job.job_type, JobType):
        try:
            return job.job_type.dump_params(job.params)
        except InvalidArgument as error:
            error.field = f"{place}.{error.field}"
            raise
    return dump_params(job.job_type, job.params, f"{place}.params")


def _read(job: object, place: str) -> NewJob:
    if not isinstance(job, Mapping):
        raise InvalidArgument(
            "the element is not a job",
            field=place,
            received=ascii(job)[:200],
            fix="Pass NewJob objects, or mappings with user_id, job_type and params.",
        )
    unknown = [key for key in job if key not in _FIELDS]
    missing = [key for key in ("user_id", "job_type") if key not in job]
    if unknown or missing:
        raise InvalidArgument(
            "the field is unknown" if unknown else "the field is missing",
            field=f"{place}.{(unknown or missing)[0]}",
            received=ascii(job[unknown[0]])[:200] if unknown else None,
            fix=f"Use {', '.join(_FIELDS)}; the first two are needed.",
        )
    return NewJob(**job)
