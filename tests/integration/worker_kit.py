"""What the worker's tests share: jobs asked for in SQL, a worker that runs beside the test, and waiting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tests.support.databases import Database

from streamvibe import JobType, Worker
from streamvibe.db.registration import registration

T = TypeVar("T")

DEADLINE_SECONDS = 30.0
# All but params, which may hold what Python cannot read.
ROW = """
SELECT id, status, job_type, result, failure_kind, error_message, retry_count, retry_at, scheduled_for, worker_id,
       claim_token, isolated, progress, progress_message, started_at, completed_at, updated_at, xmin::text, ctid::text
FROM job_queue WHERE id = %s
"""
USER = UUID("00000000-0000-4000-8000-000000000001")
#: Longer than any test: what a test waits for must come from elsewhere.
NEVER = timedelta(hours=1)


class Queue:
    """One connection of the service: asks for jobs and reads what became of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn: Connection[Any] = database.connect()

    def register(self, *job_types: JobType[Any, Any]) -> None:
        """Make job types known before a worker does."""
        for job_type in job_types:
            self.conn.execute(*registration(job_type))

    def request(self, name: str, params: Mapping[str, object] | None = None, **options: Any) -> UUID:
        """Ask for a job of its own: no cache, no dedupe, no limit."""
        row = self.conn.execute(
            "SELECT job_id FROM request_job(p_user_id := %s, p_job_type := %s, p_params := %s, p_force := true,"
            " p_dedupe_window := '0', p_enforce_limit := false, p_priority := %s)",
            [USER, name, Jsonb(dict(params or {})), options.get("priority")],
        ).fetchone()
        assert row is not None
        job_id: UUID = row[0]
        return job_id

    def request_text(self, name: str, params: str) -> UUID:
        """Ask for a job with params as JSON text, also such as only rows older than today's checks hold."""
        with self.conn.transaction():
            job_id = self.request(name)
            self.conn.execute("UPDATE job_queue SET params = %s::text::jsonb WHERE id = %s", [params, job_id])
        return job_id

    def row(self, job_id: UUID) -> dict[str, Any]:
        """The job's row as it is stored, without its params."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(ROW, [job_id]).fetchone()
        assert row is not None
        return row

    def seen(self, job_id: UUID) -> str:
        """The job's status as readers get it."""
        row = self.conn.execute("SELECT status FROM get_job(%s)", [job_id]).fetchone()
        assert row is not None
        status: str = row[0]
        return status

    def logs(self, job_id: UUID) -> list[dict[str, Any]]:
        """The job's log lines, oldest first."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute("SELECT * FROM job_log WHERE job_id = %s ORDER BY id", [job_id]).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.conn.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    def cancel(self, *job_ids: UUID) -> None:
        """Cancel jobs as their user."""
        self.conn.execute("SELECT cancel_jobs(%s, %s)", [USER, list(job_ids)])

    async def until(self, job_id: UUID, *statuses: str) -> dict[str, Any]:
        """The job's row once its stored status is one of these (default: any finished one)."""
        wanted = statuses or ("completed", "failed", "cancelled")
        await eventually(lambda: self.row(job_id)["status"] in wanted, f"job is {' or '.join(wanted)}")
        return self.row(job_id)

    async def until_released(self) -> None:
        """Wait until no worker holds anything."""
        await eventually(
            lambda: self.value("SELECT count(*) FROM streamvibe.claim") == 0, "all claims are gone"
        )


async def eventually(condition: Callable[[], T], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """The first truthy value of `condition`, polled; fails, naming `what`, after the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (value := condition()):
        assert loop.time() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.005)
    return value


async def event(waited: asyncio.Event, what: str) -> None:
    """Wait for an event, with a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await waited.wait()
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_SECONDS:g} s: {what}") from None


def make_worker(database: Database, *job_types: JobType[Any, Any], **options: Any) -> Worker:
    """A worker with a name of its own that is quick to stop."""
    options = {"grace": timedelta(0), "worker_id": f"w-{uuid4().hex[:6]}", **options}
    return Worker(database.dsn, job_types, **options)


@contextlib.asynccontextmanager
async def at_work(worker: Worker) -> AsyncIterator["asyncio.Task[None]"]:
    """The worker runs beside the block, and is stopped after it; what it raises, this raises."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task


async def run_all(database: Database, *job_types: JobType[Any, Any], **options: Any) -> int:
    """Run all that is due with a worker made for it; how many jobs it started."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await make_worker(database, *job_types, **options).run_until_idle()
