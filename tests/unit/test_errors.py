"""The error tree: one stable code everywhere, and what a database error stands for."""

import inspect
import pickle
import re
import traceback
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest
from psycopg import errors as pg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from streamvibe import errors
from streamvibe.errors import (
    BY_SQLSTATE,
    ConfigurationError,
    DatabaseUnreachable,
    InvalidArgument,
    JobCancelled,
    JobFailed,
    NotAllowed,
    RetryLater,
    StreamVibeError,
    from_postgres,
    translated,
)

JOB_ID = UUID(int=7)


@dataclass(frozen=True)
class Ended:
    """A job as it ended."""

    id: UUID = JOB_ID
    status: str = "failed"
    failure_kind: str | None = "error"
    error_message: str | None = "no such channel"


def tree() -> set[type[StreamVibeError]]:
    """Every error class of the module but the base."""
    members = {value for _, value in inspect.getmembers(errors, inspect.isclass)}
    return {cls for cls in members if issubclass(cls, StreamVibeError)} - {StreamVibeError}


def test_the_table_in_the_docstring_is_the_truth() -> None:
    """Each class stands in the drawn tree with its own SQLSTATE, HTTP and exit status, and nothing else does."""
    rows = re.findall(r"[├└]── (\w+) +(\S+) +(\d+) +(\d)", errors.__doc__ or "")
    drawn = {(name, state, int(http), int(status)) for name, state, http, status in rows}
    assert drawn == {(cls.__name__, cls.sqlstate or "-", cls.http_status, cls.exit_status) for cls in tree()}


def test_codes_are_unique() -> None:
    """No two classes share a SQLSTATE or a problem type, and SV008 and SV011 mean nothing any more."""
    numbers = [number for number in range(1, 18) if number not in (8, 11)]
    assert sorted(BY_SQLSTATE) == [f"SV{number:03}" for number in numbers]
    types = [cls.problem_type for cls in tree()]
    assert len(set(types)) == len(types)
    assert "error" not in types


def test_the_text_is_what_received_and_fix() -> None:
    """An error reads as three sentences on one line, and leaves out what it does not know."""
    error = InvalidArgument(
        "p_limit is too large", field="p_limit", received="1000", fix="Ask for 100 or less"
    )
    assert str(error) == "p_limit is too large. Received: 1000. Ask for 100 or less."
    assert (error.field, error.received, error.fix) == ("p_limit", "1000", "Ask for 100 or less")
    assert str(InvalidArgument("No.")) == "No."


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("m", field="f", received="r", fix="x"),
        JobFailed("m", job=Ended()),
        RetryLater(2.5, "quota"),
        JobCancelled(),
    ],
)
def test_errors_travel_between_processes(error: StreamVibeError) -> None:
    """Pickling keeps the class, the text and the fields."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_place_that_is_pointed_at_gets_no_full_stop() -> None:
    """PostgreSQL's caret stands below the place of a mistake."""
    assert str(InvalidArgument("syntax error\nLINE 1: SELCT\n        ^")).endswith("\n        ^")


@pytest.mark.parametrize("after", [float("nan"), float("inf"), -1])
def test_retry_later_refuses_what_is_no_time(after: float) -> None:
    """RetryLater takes a finite number of seconds that is not negative."""
    with pytest.raises(ValueError, match=re.escape(repr(after))):
        RetryLater(after)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection failed: connection refused"),
        pg.ConnectionFailure("lost"),
        pg.AdminShutdown("terminating connection"),
        pg.CannotConnectNow("the database system is starting up"),
        pg.TooManyConnections("sorry, too many clients already"),
        pg.InvalidPassword("password authentication failed"),
        pg.DiskFull("could not extend file: No space left on device"),
        pg.OutOfMemory("out of memory"),
        PoolTimeout("couldn't get a connection after 30.00 sec"),
        PoolClosed("the pool is closed"),
        TooManyRequests("the pool has already 10 requests waiting"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_keeps_the_database_from_working_is_unreachable(error: psycopg.Error) -> None:
    """Refused, broken and timed out connections and exhausted servers are one error, with exit status 3."""
    known = from_postgres(error)
    assert isinstance(known, DatabaseUnreachable)
    assert (known.exit_status, known.http_status) == (3, 503)
    assert known.fix


@pytest.mark.parametrize(
    "error", [pg.UndefinedFunction("x"), pg.UndefinedTable("x"), pg.InvalidSchemaName("x")]
)
def test_a_database_that_was_never_migrated_is_named(error: psycopg.Error) -> None:
    """A missing function, table or schema means: migrate."""
    known = from_postgres(error)
    assert isinstance(known, ConfigurationError) and "streamvibe migrate" in (known.fix or "")


def test_a_role_without_the_right_is_not_allowed() -> None:
    """PostgreSQL's own permission error is the same error as ours."""
    assert isinstance(from_postgres(pg.InsufficientPrivilege("permission denied for function")), NotAllowed)


@pytest.mark.parametrize(
    "error",
    [
        pg.UniqueViolation("x"),
        pg.QueryCanceled("x"),
        pg.LockNotAvailable("x"),
        pg.SerializationFailure("x"),
        pg.DeadlockDetected("x"),
        psycopg.InterfaceError("x"),
        psycopg.ProgrammingError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_database_errors_stay_what_they_are(error: psycopg.Error) -> None:
    """An error that stands for none of ours passes through unchanged."""
    assert from_postgres(error) is None
    with pytest.raises(type(error)) as caught, translated():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("original", "shown"),
    [
        (psycopg.OperationalError("refused"), False),
        (pg.AdminShutdown("terminating connection"), False),
        (pg.UndefinedTable("relation job_queue does not exist"), True),
        (pg.InsufficientPrivilege("permission denied for function"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_cause_is_shown_only_where_it_says_more(original: psycopg.Error, shown: bool) -> None:
    """A traceback ends with our error alone, unless the database's own names what ours does not."""
    with pytest.raises(StreamVibeError) as caught, translated():
        raise original
    text = "".join(traceback.format_exception(caught.value))
    assert (type(original).__name__ in text) == shown
    assert original in (caught.value.__cause__, caught.value.__context__)
