"""Running one handler and turning whatever it does into an End."""

import asyncio
import contextlib
import contextvars
import inspect
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

import psycopg

from streamvibe.errors import InvalidArgument, PermanentError, RetryLater
from streamvibe.eventlog import event_logger
from streamvibe.jobtype import JobType
from streamvibe.worker.context import ClaimedJob, Stop
from streamvibe.worker.flush import End, failure

log = event_logger("streamvibe.worker")

#: Of a traceback the job's log has so many frames, the last ones.
MOST_FRAMES = 5


async def execute(job: ClaimedJob, job_type: JobType[Any, Any]) -> End | None:
    """Run the job's handler to its end, whatever that is. None: there is nothing left to report."""
    try:
        params = job_type.parse_params(job.params)
    except Exception as error:  # also what a model's own validators raise
        _note_unreadable(job, error)
        return End(job, "failed", failure("invalid_params", describe(error), retryable=False))
    try:
        if job_type.is_async:
            result = await cast(Any, job_type.handler(job, params))
        else:
            result = await in_thread(lambda: job_type.handler(job, params))
            if inspect.isawaitable(result):  # a plain function around an asynchronous one
                result = await result
    except BaseException as error:  # also SystemExit: a handler must not take the worker with it
        end = _end_of(job, error)
        if end is not None:
            end.is_of_database = any(isinstance(cause, psycopg.Error) for cause in _leaves(error))
        return end
    if job.stop is not None:
        # It returned because it was told to stop: a limit holds all the same, and half a job is not a whole one.
        return stopped(job)
    try:
        text = job_type.dump_result(result)
    except Exception as error:
        _note_unreadable(job, error)
        return End(job, "failed", failure("invalid_result", describe(error), retryable=False))
    return End(job, "completed", None if text == "null" else text)


def _end_of(job: ClaimedJob, error: BaseException) -> End | None:
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, PermanentError):
            _note_failure(job, cause)
            return End(job, "failed", failure("permanent", describe(cause), retryable=False))
    for cause in causes:
        if isinstance(cause, RetryLater):
            text = failure("retry_later", describe(cause), retryable=True, retry_after=cause.after)
            return End(job, "failed", text)
    if job.stop is not None:
        # What a handler raises while it is told to stop is no failure of its own.
        return stopped(job)
    # The whole traceback is for the operator. What the job keeps, its user may read: no paths, and no source.
    _note_failure(job, causes[0] if len(causes) == 1 else error)
    log.warning(
        "handler_failed",
        job_id=job.key,
        job_type=job.job_type,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        exc_info=error,
    )
    return End(job, "failed", failure("error", describe(error), retryable=True))


def _note_unreadable(job: ClaimedJob, error: Exception) -> None:
    """Params or a result that are not what the job type says; where in the code that was found out helps nobody."""
    job.log(describe(error), level="error", attempt=job.attempt)


def _note_failure(job: ClaimedJob, error: BaseException) -> None:
    """A line of the job's log, for each attempt that failed: its row keeps the last one's message alone."""
    job.log(describe(error), level="error", attempt=job.attempt, frames=_frames(error))


def _frames(error: BaseException) -> list[str]:
    """Where an error was raised, the innermost last: the file's name, the line and the function."""
    last: deque[str] = deque(maxlen=MOST_FRAMES)
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code.co_filename != __file__:
            last.append(f"{os.path.basename(code.co_filename)}:{line} in {code.co_qualname}")  # noqa: PTH119 - quicker
    return list(last)


def stopped(job: ClaimedJob) -> End | None:
    """What is reported of a handler that was told to stop and did."""
    match job.stop:
        case Stop.TIMEOUT:
            limit = f"{job.timeout_seconds:g} seconds"
            return End(job, "failed", failure("timeout", f"still running after {limit}", retryable=True))
        case Stop.LOST:
            return None
        case _:
            return End(job, "released", None)


def describe(error: BaseException) -> str:
    """An error as one line of text, whatever its own text does; a group's causes one after the other."""
    try:
        text = str(error)
    except Exception as problem:  # anybody's __str__
        text = f"its text raised {type(problem).__name__}"
    if isinstance(error, BaseExceptionGroup):
        text += ": " + "; ".join(describe(cause) for cause in error.exceptions)
    if isinstance(error, InvalidArgument):
        return text if error.field is None or text.startswith(error.field) else f"{error.field}: {text}"
    if isinstance(error, PermanentError | RetryLater):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for cause in error.exceptions:
            yield from _leaves(cause)
    else:
        yield error


async def in_thread(call: Callable[[], object]) -> object:
    """Run ``call`` in a daemon thread, so that one that never ends cannot keep the process from stopping."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(
            error, StopIteration | GeneratorExit
        ):  # a future refuses the one, a coroutine loses the other
            future.set_exception(RuntimeError(describe(error)))
        else:
            future.set_exception(error)

    def run() -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(
        target=contextvars.copy_context().run, args=(run,), name="streamvibe-handler", daemon=True
    ).start()
    return await future
