"""Batched writing of what handlers produced: logs, results, failures and jobs handed back.

Whatever has gathered while one flush was under way goes with the next, in one transaction: at low load that is
one job a few milliseconds after its end, at high load hundreds at once.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import orjson
import psycopg
import structlog

from streamvibe import payload
from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, PartitionMissing, StreamVibeError, translated
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, LogLine

log = structlog.get_logger("streamvibe.worker")


class End:
    """How a job ended in this worker: completed (payload: result), failed (failure) or released (None)."""

    __slots__ = ("job", "kind", "payload")

    def __init__(
        self, job: ClaimedJob, kind: Literal["completed", "failed", "released"], text: str | None
    ) -> None:
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
    """Collects ends and log lines, and writes them. Belongs to one event loop; ``add_log`` may come from anywhere."""

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
        """Write this end soon. From the event loop's thread only."""
        self._ends.append(end)
        self._idle.clear()
        self._wanted.set()

    def add_log(self, line: LogLine) -> None:
        """Write this line soon. From the event loop's thread only."""
        self._lines.append(line)
        self._idle.clear()
        self._wanted.set()

    async def drained(self) -> None:
        """Wait until everything added so far is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled. A lost database is waited for: nothing is dropped."""
        pause = 0.05
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            ends, self._ends = self._ends, []
            lines, self._lines = self._lines, []
            try:
                await self._write(ends, lines)
            except DatabaseUnreachable as error:
                log.warning(
                    "flush_waits_for_database", error=str(error), jobs=len(ends), retry_in_seconds=pause
                )
                self._ends[:0] = ends
                self._lines[:0] = lines
                self._wanted.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            pause = 0.05
            self._on_written(ends)
            if not self._ends and not self._lines:
                self._idle.set()

    async def _write(self, ends: list[End], lines: list[LogLine]) -> None:
        """Write everything in one transaction; if one item spoils it, each job by itself."""
        try:
            await self._write_together(ends, lines)
        except PartitionMissing:
            await self._session.fetch(statements.ENSURE_PARTITIONS)
            await self._write_together(ends, lines)
        except DatabaseUnreachable:
            raise
        except (StreamVibeError, psycopg.Error) as error:
            if len(ends) + len(lines) == 1:
                await self._write_spoiled(ends, lines, error)
                return
            for line in lines:
                await self._write([], [line])
            for end in ends:
                await self._write([end], [])

    async def _write_spoiled(self, ends: list[End], lines: list[LogLine], error: Exception) -> None:
        """One job's end, or one log line, that the database refuses: it alone pays for it."""
        for line in lines:
            log.error("log_line_refused", job_id=str(line.job.job_id), error=str(error))
        for end in ends:
            log.error("job_end_refused", job_id=str(end.job.job_id), kind=end.kind, error=str(error))
            if end.kind == "completed":
                text = failure("invalid_result", f"the database refused the result: {error}", retryable=False)
                await self._write_together([End(end.job, "failed", text)], [])

    async def _write_together(self, ends: list[End], lines: list[LogLine]) -> None:
        connection = await self._session.connection()
        with translated():
            async with connection.transaction():
                if lines:
                    await connection.execute(
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
                for kind, statement in (
                    ("completed", statements.COMPLETE),
                    ("failed", statements.FAIL),
                    ("released", statements.RELEASE),
                ):
                    jobs = [end for end in ends if end.kind == kind]
                    if jobs:
                        await self._move(connection, statement, jobs)

    async def _move(self, connection: psycopg.AsyncConnection[Any], statement: str, ends: list[End]) -> None:
        columns: list[object] = [
            self._worker_id,
            [end.job.token for end in ends],
            [end.job.job_id for end in ends],
        ]
        if statement is not statements.RELEASE:
            columns.append([end.payload for end in ends])
            columns.append([end.job.started_at for end in ends])
        cursor = await connection.execute(statement, columns)
        for row in await cursor.fetchall():
            if statement is statements.FAIL and row[1]:
                continue
            # The job is somebody else's, or cancelled: its row is untouched, which is what the token is for.
            log.info("job_end_not_accepted", job_id=str(row[0]), kind=ends[0].kind, status=row[-1])
