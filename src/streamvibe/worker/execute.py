"""Running one handler and turning whatever it does into an End."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from streamvibe.errors import InvalidArgument, JobCancelled, PermanentError, RetryLater
from streamvibe.jobtype import JobType
from streamvibe.worker.context import ClaimedJob, Stop
from streamvibe.worker.flush import End, failure


async def execute(job: ClaimedJob, job_types: Mapping[str, JobType[Any, Any]]) -> End | None:
    """Run the job's handler to its end, whatever that is. None: there is nothing left to report."""
    job_type = job_types[job.job_type]
    try:
        params = job_type.load_params(job.params)
    except InvalidArgument as error:
        return End(job, "failed", failure("invalid_params", str(error), retryable=False))
    try:
        if job_type.is_async:
            result = await cast(Any, job_type.handler(job, params))
        else:
            result = await in_thread(lambda: job_type.handler(job, params))
    except RetryLater as error:
        text = failure("retry_later", str(error), retryable=True, retry_after=error.after)
        return End(job, "failed", text)
    except PermanentError as error:
        return End(job, "failed", failure("permanent", str(error), retryable=False))
    except (asyncio.CancelledError, JobCancelled) as error:
        if job.stop is None:
            return End(job, "failed", failure("error", _describe(error), retryable=True))
        return stopped(job)
    except BaseException as error:  # also SystemExit: a handler must not take the worker with it
        if job.stop is Stop.TIMEOUT:
            return stopped(job)
        return End(job, "failed", failure("error", _describe(error), retryable=True))
    try:
        text = job_type.dump_result(result)
    except InvalidArgument as error:
        return End(job, "failed", failure("invalid_result", str(error), retryable=False))
    return End(job, "completed", None if text == "null" else text)


def stopped(job: ClaimedJob) -> End | None:
    """What is reported of a handler that was told to stop and did."""
    match job.stop:
        case Stop.TIMEOUT:
            limit = f"{job.timeout.total_seconds():g} seconds"
            return End(job, "failed", failure("timeout", f"still running after {limit}", retryable=True))
        case Stop.LOST:
            return None
        case _:
            return End(job, "released", None)


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def in_thread(call: Callable[[], object]) -> object:
    """Run ``call`` in a daemon thread, so that one that never ends cannot keep the process from stopping."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):  # a future refuses it
            future.set_exception(RuntimeError(_describe(error)))
        else:
            future.set_exception(error)

    def run() -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="streamvibe-handler", daemon=True).start()
    return await future
