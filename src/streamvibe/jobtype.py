"""Job types: what a job's params and result are, how it is run, and what its handler gets."""

import functools
import inspect
import re
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, cast, get_type_hints, overload
from uuid import UUID

from psycopg import AsyncConnection
from pydantic import PydanticUserError, TypeAdapter

from streamvibe import payload
from streamvibe.errors import InvalidArgument
from streamvibe.typed_json import TypedJson

P = TypeVar("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
#: Settings of a job type, as register_job_type() in SQL names them; what is left out gets its default there.
SETTINGS = (
    "cache_ttl",
    "dedupe_window",
    "max_attempts",
    "backoff_base",
    "backoff_max",
    "timeout",
    "max_live_jobs",
    "priority",
    "expires_after",
    "retention",
    "log_retention",
    "max_params_bytes",
)
#: A transaction that lasts holds locks, keeps dead rows, and makes the finished jobs before it wait.
TRANSACTION_TIMEOUT = timedelta(seconds=10)
LONGEST_TRANSACTION = timedelta(seconds=60)
#: Those that are no durations: what they may be, and how to say so. SQL checks again, for those who call it.
_WHOLE_NUMBERS = {
    "max_attempts": (range(1, 101), "Use 1 to 100."),
    "max_live_jobs": (range(2**31), "Use 0 or more; leave it out for no limit of its own."),
    "priority": (range(10), "Use 0 to 9; higher runs first."),
    "max_params_bytes": (range(2, 100 * 2**20 + 1), "Use 2 to 104857600 (100 MiB)."),
}


class Context(Protocol):
    """What a handler gets beside its params. Safe to use from a handler's thread as well as from its task."""

    @property
    def job_id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def job_type(self) -> str: ...
    @property
    def attempt(self) -> int:
        """1 for the first attempt."""
        ...

    @property
    def max_attempts(self) -> int: ...
    @property
    def cancelled(self) -> bool:
        """True once the job was cancelled, timed out, lost its lease, or the worker wants to stop.

        What the handler returns from then on is not used: return soon. An ``async def`` handler
        gets ``asyncio.CancelledError`` besides.
        """
        ...

    def log(self, message: str, /, *, level: str = "info", **metadata: object) -> None:
        """Append a line to the job's log. ``level``: debug, info, warning or error.

        Never waits: lines are written some milliseconds later, and before the job's end is. Text is cut at
        10,000 characters; characters and values that the database cannot hold are replaced.
        Raises InvalidArgument for an unknown level.
        """
        ...

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the job is: 0 to 1. Only the latest is kept; written at most twice a second, and with the end.

        What rounding puts outside, by a millionth at most, counts as 0 or 1; InvalidArgument for all else.
        """
        ...

    @property
    def connection(self) -> AsyncConnection[Any]:
        """The connection of a transactional job: what is written with it and the job's end commit together.

        The worker ends its transaction: do not commit or roll back (``connection.transaction()`` makes a savepoint).
        Settings and temporary tables end with the handler. Raises InvalidArgument in an ordinary job.
        """
        ...

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled once ``cancelled`` is true; for the steps of a plain ``def`` handler."""
        ...


Handler = Callable[[Context, P], Awaitable[R] | R]


class JobType(Generic[P, R]):
    """A job type declared in Python by ``@job_type``: a Worker runs it, a Client requests it.

    Calling it calls the handler, so a handler can be tested as the function it is.
    """

    def __init__(
        self,
        name: str,
        handler: Handler[P, R],
        settings: Mapping[str, object],
        *,
        transactional: bool = False,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgument(
                "the job type's name cannot be used",
                field="name",
                received=repr(name),
                fix="Use a lowercase letter, then up to 62 of a-z 0-9 _ . -",
            )
        _check_settings(settings)
        self.name = name
        self.handler = handler
        default = {"timeout": TRANSACTION_TIMEOUT} if transactional else {}
        self.settings = types.MappingProxyType(default | dict(settings))
        self.is_async = inspect.iscoroutinefunction(_function(handler))
        self.transactional = transactional
        _check_transactional(self)
        params_type, result_type = _annotations(handler)
        self.params_model: Any = params_type
        self.result_model: Any = result_type
        self._params = TypedJson[P](_adapter(params_type, "params", handler), "params", round_trip=True)
        self._result = TypedJson[R](_adapter(result_type, "result", handler), "result", round_trip=False)

    def __call__(self, context: Context, params: P) -> Awaitable[R] | R:
        return self.handler(context, params)

    def __repr__(self) -> str:
        return f"JobType({self.name!r})"

    def dump_params(self, params: P | Mapping[str, object] | None) -> str:
        """The JSON text of ``params``, validated. Raises InvalidArgument naming the field that is wrong."""
        return self._params.dump({} if params is None else params)

    def parse_params(self, text: str) -> P:
        """The params object of stored JSON text. Raises InvalidArgument naming the field."""
        return self._params.parse(text)

    def dump_result(self, result: object) -> str:
        """The JSON text of what a handler returned, validated. Raises InvalidArgument naming the field."""
        return self._result.dump(result)

    def load_result(self, result: object) -> R:
        """The result object of a stored JSON result. Raises InvalidArgument naming the field."""
        try:
            return self._result.validate(result)
        except InvalidArgument:
            # A strict model takes "2026-01-01" for a date from JSON text only.
            return self._result.parse(payload.encode(result, "result"))


class Declare(Protocol):
    """What ``@job_type(...)`` is: a decorator that keeps the types of an ``async def`` and of a plain ``def``."""

    @overload
    def __call__(self, handler: Callable[[Context, P], Awaitable[R]], /) -> JobType[P, R]: ...
    @overload
    def __call__(self, handler: Callable[[Context, P], R], /) -> JobType[P, R]: ...


def job_type(
    name: str,
    *,
    cache_ttl: timedelta | None = None,
    dedupe_window: timedelta | None = None,
    max_attempts: int | None = None,
    backoff_base: timedelta | None = None,
    backoff_max: timedelta | None = None,
    timeout: timedelta | None = None,
    max_live_jobs: int | None = None,
    priority: int | None = None,
    expires_after: timedelta | None = None,
    retention: timedelta | None = None,
    log_retention: timedelta | None = None,
    max_params_bytes: int | None = None,
    transactional: bool = False,
) -> Declare:
    """Declare a job type by its handler: ``async def`` or plain ``def`` (run in a thread), (context, params).

    The annotations of ``params`` and of the return value (pydantic models, dataclasses, or anything pydantic
    validates) are checked when a job is requested and again when it runs. What is left out gets the default
    of ``register_job_type`` in SQL: cache TTL 1 hour, dedupe window 5 minutes (``timedelta(0)`` switches
    either off), 3 attempts, backoff from 2 seconds doubling up to 1 hour, timeout 30 minutes, no live-job limit
    of its own, priority 5, expiry 24 hours after it was due, retention 7 days (logs 30), params up to 1 MiB.

    ``transactional``: for short work on this database. What the ``async def`` handler writes with ``ctx.connection``
    commits together with the job's end, so it takes effect exactly once; timeout 10 seconds, 60 at most.

    Raises InvalidArgument for a name or setting that cannot be used.
    """
    given = dict(locals())
    if callable(name):  # whatever the annotation says
        called = getattr(name, "__name__", "my_job")
        raise InvalidArgument(
            "@job_type needs the job type's name, in parentheses",
            field="name",
            received=f"the handler {called}",
            fix=f'Write @job_type("{called.lower()}")',
        )
    settings = {key: given[key] for key in SETTINGS if given[key] is not None}

    def declare(handler: Handler[P, R]) -> JobType[P, R]:
        return JobType(name, handler, settings, transactional=transactional)

    return declare


def listed(job_types: Iterable[object]) -> list[JobType[Any, Any]]:
    """The job types as a list. Raises InvalidArgument for a name, or anything else that @job_type did not make."""
    if isinstance(job_types, JobType):
        raise InvalidArgument(
            "job_types is one job type, not a list of them",
            field="job_types",
            received=repr(job_types),
            fix=f"Pass a list, as in [{getattr(job_types.handler, '__name__', 'greet')}].",
        )
    found: list[JobType[Any, Any]] = []
    for place, item in enumerate(job_types):
        if not isinstance(item, JobType):
            raise InvalidArgument(
                "that is not a job type",
                field=f"job_types[{place}]",
                received=ascii(item)[:200],
                fix="Pass what @job_type made, such as greet, not its name.",
            )
        found.append(item)
    return found


def _check_settings(settings: Mapping[str, object]) -> None:
    for key, value in settings.items():
        if key not in _WHOLE_NUMBERS:
            if not isinstance(value, timedelta):
                number = isinstance(value, int | float) and not isinstance(value, bool)
                raise InvalidArgument(
                    f"{key} is not a timedelta",
                    field=key,
                    received=ascii(value)[:200],
                    fix=f"Write timedelta(seconds={value if number else 5})",
                )
            if value < timedelta(0):
                raise InvalidArgument(
                    f"{key} is negative", field=key, received=str(value), fix="Use a duration of 0 or more."
                )
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidArgument(
                f"{key} is not a whole number",
                field=key,
                received=ascii(value)[:200],
                fix=_WHOLE_NUMBERS[key][1],
            )
        possible, fix = _WHOLE_NUMBERS[key]
        if value not in possible:
            raise InvalidArgument(f"{key} is out of range", field=key, received=repr(value), fix=fix)


def _check_transactional(job_type: JobType[Any, Any]) -> None:
    if not job_type.transactional:
        return
    if not job_type.is_async:
        raise InvalidArgument(
            "a transactional handler is not async def",
            field="handler",
            received=repr(job_type.handler),
            fix="Write it as async def, and await what it does with ctx.connection.",
        )
    timeout = cast(timedelta, job_type.settings["timeout"])
    if not timedelta(0) < timeout <= LONGEST_TRANSACTION:
        raise InvalidArgument(
            "timeout is out of range for a transactional job type",
            field="timeout",
            received=str(timeout),
            fix="Use more than 0 and at most 60 seconds; what takes longer is an ordinary job type.",
        )


def _function(handler: object) -> object:
    """The function whose signature and annotations count: under a partial, or of an object that can be called."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler if inspect.isroutine(handler) else type(handler).__call__


def _annotations(handler: Callable[..., object]) -> tuple[object, object]:
    name = getattr(handler, "__qualname__", repr(handler))
    parameters = [
        p
        for p in inspect.signature(handler).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(parameters) != 2:
        raise InvalidArgument(
            "a handler takes two arguments",
            field="handler",
            received=f"{name}{inspect.signature(handler)}",
            fix="Write it as (context, params); annotate params with a pydantic model or a dataclass.",
        )
    try:
        hints = get_type_hints(_function(handler), include_extras=True)
    except NameError as error:
        raise InvalidArgument(
            "a handler's annotation cannot be resolved",
            field="handler",
            received=f"{name}: {error}",
            fix="Import or define the type at the top of the handler's module, not inside a function.",
        ) from error
    params = hints.get(parameters[1].name, dict[str, object])
    return params, hints.get("return", object)


def _adapter(annotation: object, role: str, handler: Callable[..., object]) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(cast(Any, annotation))
    except PydanticUserError as error:
        raise InvalidArgument(
            f"the type of the handler's {role} is nothing that can be validated",
            field="handler",
            received=f"{getattr(handler, '__qualname__', handler)}, {role}: {inspect.formatannotation(annotation)}",
            fix="Annotate it with a pydantic model or a dataclass, made of types that pydantic knows",
        ) from error
