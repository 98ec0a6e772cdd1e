"""Batched writing of what handlers produced: logs, results, failures and jobs handed back.

Whatever has gathered while one flush was under way goes with the next: at low load that is one job a few
milliseconds after its end, at high load hundreds at once. Each kind is one statement and one transaction: a
statement locks its claims and jobs in one order, two in one transaction would deadlock with the ticker's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import orjson
import psycopg

from streamvibe import payload
from streamvibe.db.session import Session
from streamvibe.errors import (
    DatabaseUnreachable,
    InvalidArgument,
    PartitionMissing,
    PayloadTooLarge,
    StreamVibeError,
)
from streamvibe.eventlog import event_logger
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, LogLine

log = event_logger("streamvibe.worker")

T = TypeVar("T")
Kind = Literal["completed", "failed", "released"]

STATEMENTS: dict[Kind, str] = {
    "completed": statements.COMPLETE,
    "failed": statements.FAIL,
    "released": statements.RELEASE,
}
#: What one statement carries at most, so that neither many nor large items make one that PostgreSQL refuses.
MAX_ITEMS = 1000
MAX_CHARACTERS = 8_000_000
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


class End:
    """How a job ended in this worker: completed (payload: result), failed (failure) or released (None)."""

    __slots__ = ("job", "kind", "payload")

    def __init__(self, job: ClaimedJob, kind: Kind, text: str | None) -> None:
        self.job = job
        self.kind = kind
        self.payload = text


def failure(kind: str, message: str, *, retryable: bool, retry_after: float | None = None) -> str:
    """The JSON of a failure, as fail_jobs() reads it."""
    document: dict[str, object] = {
        "kind": kind,
        "message": payload.clean_text(message, 10_000),
        "retryable": retryable,
    }
    if retry_after is not None:
        document["retry_after_seconds"] = min(retry_after, 366 * 86_400)
    return orjson.dumps(document).decode()


class Flusher:
    """Collects ends and log lines, and writes them. Belongs to one event loop."""

    def __init__(self, session: Session, worker_id: str, on_written: Callable[[Sequence[End]], None]) -> None:
        self._session = session
        self._worker_id = worker_id
        self._on_written = on_written
        self._ends: list[End] = []
        self._lines: list[LogLine] = []
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """How many ends are not written yet."""
        return len(self._ends)

    def add_end(self, end: End) -> None:
        """Write this end soon."""
        self._ends.append(end)
        self._idle.clear()
        self._wanted.set()

    def add_log(self, line: LogLine) -> None:
        """Write this line soon, before the end of its job."""
        self._lines.append(line)
        self._idle.clear()
        self._wanted.set()

    async def drained(self) -> None:
        """Wait until everything added so far is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled. What the database cannot take at the moment is kept and tried again."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            problem = await self._flush()
            if problem is None:
                pause = FIRST_PAUSE_SECONDS
                if not self._ends and not self._lines:
                    self._idle.set()
                continue
            log.warning(
                "flush_waits",
                error=str(problem),
                jobs=len(self._ends),
                lines=len(self._lines),
                retry_in_seconds=pause,
            )
            self._wanted.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _flush(self) -> Exception | None:
        """Write what has gathered; keep, in its order, what could not be written, and return why."""
        ends, self._ends = self._ends, []
        lines, self._lines = self._lines, []
        self._lines[:0], problem = await self._write_all(
            lines, _line_size, self._send_lines, self._refuse_line
        )
        for kind in STATEMENTS:
            these = [end for end in ends if end.kind == kind]
            if problem is None:
                these, problem = await self._write_all(these, _end_size, self._send_ends, self._refuse_end)
            self._ends[:0] = these
        return problem

    async def _write_all(
        self,
        items: list[T],
        size: Callable[[T], int],
        send: Callable[[list[T]], Awaitable[None]],
        refuse: Callable[[T, Exception], None],
    ) -> tuple[list[T], Exception | None]:
        """Send the items portion by portion. Returns what to try again, and why."""
        problem: Exception | None = None
        while items and problem is None:
            count = _portion(items, size)
            left, problem = await self._write(items[:count], send, refuse)
            items = left + items[count:]
        return items, problem

    async def _write(
        self,
        items: list[T],
        send: Callable[[list[T]], Awaitable[None]],
        refuse: Callable[[T, Exception], None],
    ) -> tuple[list[T], Exception | None]:
        """Send the items together, or in halves down to the one that spoils it. Returns what to try again."""
        try:
            await send(items)
        except DatabaseUnreachable as error:
            return items, error
        except PartitionMissing as error:
            return items, await self._ensure_partitions() or error
        except Exception as error:
            if len(items) > 1:
                middle = len(items) // 2
                left, problem = await self._write(items[:middle], send, refuse)
                if problem is not None:
                    return left + items[middle:], problem
                return await self._write(items[middle:], send, refuse)
            if _may_pass(error):
                return items, error
            refuse(items[0], error)
        return [], None

    async def _ensure_partitions(self) -> Exception | None:
        try:
            await self._session.fetch(statements.ENSURE_PARTITIONS)
        except (StreamVibeError, psycopg.Error) as error:
            return error
        return None

    async def _send_lines(self, lines: list[LogLine]) -> None:
        await self._session.fetch(
            statements.APPEND_LOGS,
            (
                self._worker_id,
                [line.job.token for line in lines],
                [line.job.job_id for line in lines],
                [line.level for line in lines],
                [line.message for line in lines],
                [line.metadata for line in lines],
            ),
        )

    def _refuse_line(self, line: LogLine, error: Exception) -> None:
        log.error("log_line_refused", job_id=str(line.job.job_id), error=str(error))

    async def _send_ends(self, ends: list[End]) -> None:
        kind = ends[0].kind
        columns: list[object] = [
            self._worker_id,
            [end.job.token for end in ends],
            [end.job.job_id for end in ends],
        ]
        if kind != "released":
            columns.append([end.payload for end in ends])
            columns.append([end.job.started_at for end in ends])
        for row in await self._session.fetch(STATEMENTS[kind], columns):
            if kind == "failed" and row[1]:
                continue
            # The job is somebody else's, or cancelled: its row is untouched, which is what the token is for.
            log.info("job_end_not_accepted", job_id=str(row[0]), kind=kind)
        self._on_written(ends)

    def _refuse_end(self, end: End, error: Exception) -> None:
        log.error("job_end_refused", job_id=str(end.job.job_id), kind=end.kind, error=str(error))
        if end.kind == "completed":
            text = failure("invalid_result", f"the database refused the result: {error}", retryable=False)
            self.add_end(End(end.job, "failed", text))
        else:
            self._on_written([end])


def _line_size(line: LogLine) -> int:
    return len(line.message) + len(line.metadata or "")


def _end_size(end: End) -> int:
    return len(end.payload or "")


def _portion(items: Sequence[T], size: Callable[[T], int]) -> int:
    """How many of the items go into the next statement; at least one."""
    characters = 0
    for count, item in enumerate(items[:MAX_ITEMS]):
        characters += size(item)
        if characters > MAX_CHARACTERS:
            return max(count, 1)
    return min(len(items), MAX_ITEMS)


def _may_pass(error: Exception) -> bool:
    """Whether the same write may succeed later: true of all but what the written data itself brings about."""
    if isinstance(error, InvalidArgument | PayloadTooLarge | psycopg.DataError | psycopg.IntegrityError):
        return False
    if isinstance(error, psycopg.Error):
        return not (error.sqlstate or "").startswith("54")  # a limit of the server, such as jsonb's size
    return isinstance(error, StreamVibeError)
