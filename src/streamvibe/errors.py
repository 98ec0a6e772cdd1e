# ruff: noqa: N818 - the names say what happened (JobNotFound, LimitReached); an Error suffix would add nothing
"""Every error StreamVibe raises, in one tree, with the same stable code in SQL, Python, HTTP and the CLI.

    StreamVibeError                    SQLSTATE  HTTP  exit
    ├── InvalidArgument                SV001     422   2    a value that cannot be accepted
    ├── UnknownJobType                 SV002     422   2    nobody registered this job type
    ├── PayloadTooLarge                SV003     413   2    params or result over the size limit
    ├── NotAllowed                     SV004     403   1    another user's id, or a role without the right
    ├── LimitReached                   SV005     429   1    the user has as many live jobs as allowed
    ├── IsolationNotSupported          SV006     409   1    dedupe, cache and limit need READ COMMITTED
    ├── JobNotFound                    SV007     404   1    no such job, or not this user's
    ├── PartitionMissing               SV009     503   1    no partition covers this moment
    ├── WorkerUnknown                  SV010     409   1    the worker never registered, or is counted as dead
    ├── IdempotencyConflict            SV012     409   1    the key was used for a different request
    ├── MigrationRefused               SV013     500   1    a foreign job_queue, or an edited migration
    ├── InvalidCursor                  SV014     422   2    a broken, foreign or forged cursor
    ├── OffsetTooLarge                 SV015     422   2    past the offset limit: use a cursor
    ├── NotLeader                      SV016     409   1    another process does the maintenance now
    ├── ArchiveFailed                  SV017     500   1    the archive cannot be written or read; nothing was dropped
    ├── DatabaseUnreachable            -         503   3    no connection, or a server that cannot work now
    ├── ConfigurationError             -         500   2    a setting that cannot be used
    ├── JobFailed                      -         500   1    raised by waiting: the job ended without a result
    ├── WaitTimeout                    -         504   1    raised by waiting: the job is still live
    ├── PermanentError                 -         500   1    raised BY a handler: do not retry
    ├── RetryLater                     -         503   1    raised BY a handler: retry after so many seconds
    └── JobCancelled                   -         409   1    raised BY a handler or its context: stop

The message says what is wrong; ``field``, ``received`` and ``fix`` name the place, the value and the remedy.
Nothing here parses message text: SQL errors are known by their SQLSTATE alone.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol
from uuid import UUID

import psycopg

from streamvibe.remedies import in_python

_RECEIVED = "Received: "


class StreamVibeError(Exception):
    """The base of the tree; catch it to catch everything StreamVibe raises.

    ``field`` is the parameter or setting at fault, ``received`` the value as text (never a secret), ``fix`` a
    sentence that says what to do. Each is None where there is nothing to say.
    """

    sqlstate: ClassVar[str | None] = None
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    problem_type: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, field: str | None = None, received: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.received = received
        self.fix = fix

    def __str__(self) -> str:
        """What, the value received, what to do: one sentence each, on one line."""
        parts = [_sentence(self.message)]
        if self.received is not None:
            parts.append(_sentence(_RECEIVED + self.received))
        if self.fix is not None:
            parts.append(_sentence(self.fix))
        return " ".join(parts)


class InvalidArgument(StreamVibeError):
    """A value that cannot be accepted; ``field`` names the parameter."""

    sqlstate = "SV001"
    http_status = 422
    exit_status = 2
    problem_type = "invalid-argument"


class UnknownJobType(StreamVibeError):
    """Nobody registered this job type."""

    sqlstate = "SV002"
    http_status = 422
    exit_status = 2
    problem_type = "unknown-job-type"


class PayloadTooLarge(StreamVibeError):
    """Params or a result over the size limit (1 MiB unless the job type says otherwise)."""

    sqlstate = "SV003"
    http_status = 413
    exit_status = 2
    problem_type = "payload-too-large"


class NotAllowed(StreamVibeError):
    """Another user's id, or a role without the right."""

    sqlstate = "SV004"
    http_status = 403
    problem_type = "not-allowed"


class LimitReached(StreamVibeError):
    """The user already has as many live jobs as allowed."""

    sqlstate = "SV005"
    http_status = 429
    problem_type = "limit-reached"


class IsolationNotSupported(StreamVibeError):
    """Dedupe, cache and limit are exact under READ COMMITTED only."""

    sqlstate = "SV006"
    http_status = 409
    problem_type = "isolation-not-supported"


class JobNotFound(StreamVibeError):
    """No such job, or it belongs to another user: the two are not told apart."""

    sqlstate = "SV007"
    http_status = 404
    problem_type = "job-not-found"


class PartitionMissing(StreamVibeError):
    """No partition covers this moment; ``ensure_partitions`` makes it."""

    sqlstate = "SV009"
    http_status = 503
    problem_type = "partition-missing"


class WorkerUnknown(StreamVibeError):
    """The worker never registered, or its lease ran out and it is counted as dead."""

    sqlstate = "SV010"
    http_status = 409
    problem_type = "worker-unknown"


class IdempotencyConflict(StreamVibeError):
    """The idempotency key was already used for a different request."""

    sqlstate = "SV012"
    http_status = 409
    problem_type = "idempotency-conflict"


class MigrationRefused(StreamVibeError):
    """A ``job_queue`` that is not ours, or a released migration file that was edited."""

    sqlstate = "SV013"
    http_status = 500
    problem_type = "migration-refused"


class InvalidCursor(StreamVibeError):
    """A cursor that is broken, forged, or was made for another list."""

    sqlstate = "SV014"
    http_status = 422
    exit_status = 2
    problem_type = "invalid-cursor"


class OffsetTooLarge(StreamVibeError):
    """An offset past the limit; page by cursor instead."""

    sqlstate = "SV015"
    http_status = 422
    exit_status = 2
    problem_type = "offset-too-large"


class NotLeader(StreamVibeError):
    """Another process does the maintenance by now."""

    sqlstate = "SV016"
    http_status = 409
    problem_type = "not-leader"


class DatabaseUnreachable(StreamVibeError):
    """No connection, a connection that broke, or a server that cannot work at the moment (starting, full)."""

    http_status = 503
    exit_status = 3
    problem_type = "database-unreachable"


class ConfigurationError(StreamVibeError):
    """A setting that cannot be used; ``field`` names it."""

    http_status = 500
    exit_status = 2
    problem_type = "configuration-error"


class ArchiveFailed(StreamVibeError):
    """The archive cannot be written, or what is in it cannot be read. Nothing left the queue for it."""

    sqlstate = "SV017"
    http_status = 500
    problem_type = "archive-failed"


class EndedJob(Protocol):
    """What an error needs of a job (``streamvibe.model.Job`` has it)."""

    @property
    def id(self) -> UUID: ...
    @property
    def status(self) -> str: ...
    @property
    def failure_kind(self) -> str | None: ...
    @property
    def error_message(self) -> str | None: ...


class JobFailed(StreamVibeError):
    """Raised by waiting for a result when the job ended without one; ``job`` is the job as it ended."""

    http_status = 500
    problem_type = "job-failed"

    def __init__(self, message: str, *, job: EndedJob) -> None:
        kind = f", {job.failure_kind}" if job.failure_kind else ""
        super().__init__(
            message,
            field="job_id",
            received=f"{job.id} ({job.status}{kind})",
            fix="Mend the cause, then request it again" if job.status == "failed" else "Request it again",
        )
        self.job = job

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_job_failed, (self.message, self.job))


class WaitTimeout(StreamVibeError):
    """Raised by waiting for a result when the job is still live after the time given; the job goes on."""

    http_status = 504
    problem_type = "wait-timeout"


class PermanentError(StreamVibeError):
    """Raise it in a handler: the job fails now, whatever attempts remain, and cannot be retried."""

    problem_type = "permanent-error"

    def __str__(self) -> str:
        return _as_given(self)


class RetryLater(StreamVibeError):
    """Raise it in a handler: this attempt failed; the next starts ``after`` seconds from now or later."""

    http_status = 503
    problem_type = "retry-later"

    def __init__(self, after: float, message: str = "The handler asked for a later retry") -> None:
        """``after``: seconds, finite, 0 or more. Raises ValueError otherwise."""
        if not (math.isfinite(after) and after >= 0):
            raise ValueError(f"after must be a finite number of seconds, 0 or more. Received: {after!r}.")
        super().__init__(message)
        self.after = after

    def __str__(self) -> str:
        return _as_given(self)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.after, self.message))


class JobCancelled(StreamVibeError):
    """The job is no longer wanted here: cancelled, timed out, or its lease was lost. Handlers let it pass."""

    http_status = 409
    problem_type = "job-cancelled"

    def __init__(self, message: str = "The job was cancelled") -> None:
        super().__init__(message)


BY_SQLSTATE: dict[str, type[StreamVibeError]] = {
    cls.sqlstate: cls for cls in StreamVibeError.__subclasses__() if cls.sqlstate is not None
}
"""SQLSTATE (class SV) to exception class."""

_CONNECTION_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "53300"})
_EXHAUSTED_STATES = {"53100": "disk space", "53200": "memory"}
_NO_RIGHT = "42501"
_NOT_MIGRATED_STATES = frozenset({"3F000", "42883", "42P01"})


def from_parts(
    code: str, field: str | None, message: str, received: str | None, fix: str | None
) -> StreamVibeError:
    """Return the error of one of the codes of class SV, with its parts as SQL has them."""
    field, message, fix = in_python(code, field, message, fix)
    return BY_SQLSTATE[code](
        message,
        field=field,
        received=received.removeprefix(_RECEIVED) if received is not None else None,
        fix=fix,
    )


def from_postgres(error: psycopg.Error, url: str | None = None) -> StreamVibeError | None:
    """Return the StreamVibe error that a database error stands for, or None when it stands for none.

    ``url``: the database that was tried, with its passwords masked.
    """
    state = error.sqlstate
    if state is not None and state in BY_SQLSTATE:
        diag = error.diag
        return from_parts(
            state,
            diag.column_name,
            diag.message_primary or str(error),
            diag.message_detail,
            diag.message_hint,
        )
    if state == _NO_RIGHT:
        return NotAllowed(
            error.diag.message_primary or str(error),
            fix="Call it as the role it is granted to: authenticated (own jobs only) or service_role",
        )
    if state in _NOT_MIGRATED_STATES:
        return ConfigurationError(
            "The database does not have this release's StreamVibe schema",
            field="database_url",
            received=url,
            fix="Run `streamvibe migrate`",
        )
    if state in _EXHAUSTED_STATES:
        return DatabaseUnreachable(
            f"The database has no {_EXHAUSTED_STATES[state]} left; nothing was written",
            received=error.diag.message_primary,
            fix="Free some on the database server, then try again",
        )
    if _is_connection_failure(error):
        return DatabaseUnreachable(
            _because("The database cannot be reached", error),
            field="database_url",
            received=url,
            fix="Check that it runs, and that this is its URL",
        )
    return None


@contextmanager
def translated(url: str | None = None) -> Iterator[None]:
    """Raise the StreamVibe error in place of the database error it stands for; let every other error pass.

    ``url``: the database that is tried, with its passwords masked.
    """
    try:
        yield
    except psycopg.Error as error:
        known = from_postgres(error, url)
        if known is None:
            raise
        if error.sqlstate in _NOT_MIGRATED_STATES or error.sqlstate == _NO_RIGHT:
            raise known from error
        # It says all that the other does: what a driver does inside is no part of anybody's traceback.
        raise known from None


def _is_connection_failure(error: psycopg.Error) -> bool:
    state = error.sqlstate
    if state is not None:
        return state.startswith(("08", "28")) or state in _CONNECTION_STATES
    # psycopg and its pool raise OperationalError without SQLSTATE for what never reached a server:
    # refused, timed out, broken or closed connections, pool timeouts.
    return isinstance(error, psycopg.OperationalError)


def _because(message: str, error: psycopg.Error) -> str:
    words = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    return f"{message}: {words}"


def _as_given(error: StreamVibeError) -> str:
    """What a handler wrote for its user is stored without an added full stop."""
    alone = error.received is None and error.fix is None
    return error.message if alone else StreamVibeError.__str__(error)


def _sentence(text: str) -> str:
    # A caret is PostgreSQL's, below the place of a mistake.
    return text if text.endswith((".", "!", "?", "^")) else text + "."


def _rebuild_job_failed(message: str, job: EndedJob) -> JobFailed:
    return JobFailed(message, job=job)
