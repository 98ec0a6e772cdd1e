"""Checks of what a caller passes, for what would never reach the SQL function that checks the rest.

Each returns the value as psycopg shall send it, or raises InvalidArgument naming field, value and fix.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from streamvibe import payload
from streamvibe.errors import InvalidArgument
from streamvibe.jobtype import JobType

_MAX_INTEGER = 2**31 - 1
_MAX_DURATION = timedelta(days=36_525)


def uuid(value: UUID | str, field: str) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (AttributeError, TypeError, ValueError):
        raise _invalid(
            f"{field} is not a UUID",
            field,
            value,
            "Pass a UUID such as 018f4e2a-7c31-7b0e-9d51-3f5d1c2b6a90.",
        ) from None


def uuids(values: UUID | str | Iterable[UUID | str], field: str) -> list[UUID]:
    """One id or many."""
    if isinstance(values, UUID | str):
        return [uuid(values, field)]
    return [uuid(value, f"{field}[{index}]") for index, value in enumerate(values)]


def text(value: str | None, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _invalid(f"{field} is not text", field, value, "Pass a str.")
    payload.encode(value, field)
    return value


def integer(value: int | None, field: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not -_MAX_INTEGER <= value <= _MAX_INTEGER:
        raise _invalid(
            f"{field} is not a 32-bit integer", field, value, f"Use a whole number up to {_MAX_INTEGER}."
        )
    return value


def moment(value: datetime | None, field: str) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise _invalid(
            f"{field} is not a time with a time zone",
            field,
            value,
            "Pass a datetime such as datetime.now(UTC).",
        )
    return value


def duration(value: timedelta | None, field: str) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _MAX_DURATION:
        raise _invalid(
            f"{field} is not a possible duration",
            field,
            value,
            "Pass a timedelta of 0 (which switches it off) to 100 years.",
        )
    return value


def job_type_name(value: JobType[Any, Any] | str | None, field: str = "job_type") -> str | None:
    return value.name if isinstance(value, JobType) else text(value, field)


def _invalid(message: str, field: str, received: object, fix: str) -> InvalidArgument:
    return InvalidArgument(message, field=field, received=ascii(received)[:200], fix=fix)
