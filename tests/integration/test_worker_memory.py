"""What a worker keeps of the jobs that it is done with: nothing, also before Python's collector looks for cycles."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.worker_kit import Queue, run_all
from tests.support.databases import Database

from streamvibe import Context, JobType, PermanentError, job_type
from streamvibe.worker.context import ClaimedJob

Params = dict[str, Any]


@job_type("async")
async def in_loop(ctx: Context, params: Params) -> str:
    return "done"


@job_type("logs")
async def with_lines(ctx: Context, params: Params) -> str:
    ctx.log("a line")
    ctx.progress(0.5)
    return "done"


@job_type("fails")
async def fails(ctx: Context, params: Params) -> str:
    raise PermanentError("never")


@job_type("plain")
def in_thread(ctx: Context, params: Params) -> str:
    return "done"


@job_type("transactional", transactional=True)
async def in_transaction(ctx: Context, params: Params) -> str:
    return "done"


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What only the collector would free stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "job_type", [in_loop, with_lines, fails, in_thread, in_transaction], ids=lambda known: known.name
)
async def test_a_finished_job_is_freed_at_once(database18: Database, job_type: JobType[Any, Any]) -> None:
    """Of a hundred jobs none is left, although the collector never ran."""
    queue = Queue(database18)
    queue.register(job_type)
    jobs = [queue.request(job_type.name) for _ in range(100)]
    await run_all(database18, job_type)
    assert {queue.row(job_id)["status"] for job_id in jobs} <= {"completed", "failed"}
    assert sum(isinstance(known, ClaimedJob) for known in gc.get_objects()) <= 1
