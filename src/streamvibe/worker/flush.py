"""Batched writing of what handlers produced: logs, results, failures and jobs handed back.

Whatever has gathered while one flush was under way goes with the next: at low load that is one job a few
milliseconds after its end, at high load hundreds at once. Each kind is one statement and one transaction: a
statement locks its claims and jobs in one order, two in one transaction would deadlock with the ticker's.

A job's lines are written before its end; no end waits for another job's lines, beyond the statement under way.
An end whose row somebody else holds locked, or that fails for a reason that may pass, waits by itself.
"""

import asyncio
import contextlib
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
from streamvibe.eventlog import Outage, event_logger
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, LogLine, Stop
from streamvibe.worker.progress import write_last_progress

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
#: So often an error is met that may be the data's own before it is taken for that.
MOST_TRIES = 5
#: Classes of SQLSTATE that are about the server's state: connection, read-only, rights and names (a migration is
#: under way), deadlocks, resources, locks, an operator's intervention, the system.
PASSING = frozenset({"08", "25", "28", "40", "42", "53", "55", "57", "58"})
#: After so long a statement may be waiting for somebody's lock.
LONG_SECONDS = 0.1
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


class End:
    """How a job ended in this worker: completed (payload: result), failed (failure) or released (None)."""

    tries = 0
    pause = 0.0  # seconds
    again_at = 0.0  # loop time
    is_of_database = False  # the handler raised an error of the database

    def __init__(self, job: ClaimedJob, kind: Kind, text: str | None, *, is_minimal: bool = False) -> None:
        self.job = job
        self.kind = kind
        self.payload = text
        self.is_minimal = is_minimal


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
        self._postponed: list[End] = []
        self._logging: dict[ClaimedJob, None] = {}  # the jobs whose lines wait
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._round: asyncio.Future[None] | None = None
        self._writing_since = float("inf")  # loop time

    @property
    def load(self) -> tuple[bool, int]:
        """For comparison with others: whether its statements have taken long already, and how many ends wait."""
        return asyncio.get_running_loop().time() > self._writing_since + LONG_SECONDS, self.waiting

    @property
    def waiting(self) -> int:
        """How many ends wait to be written, without those that wait for others' locks."""
        return len(self._ends)

    def add_end(self, end: End) -> None:
        """Write this end soon, after the lines of its job."""
        if end.job.has_lines:
            self._logging[end.job] = None
        self._ends.append(end)
        self._idle.clear()
        self._wanted.set()

    def add_lines(self, job: ClaimedJob) -> None:
        """Write the lines of this job soon."""
        self._logging[job] = None
        self._idle.clear()
        self._wanted.set()

    async def drained(self) -> None:
        """Wait until everything added so far is written."""
        await self._idle.wait()

    def next_round(self) -> "asyncio.Future[None]":
        """Done when the next statements were written, or tried."""
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_future()
        return self._round

    async def run(self) -> None:
        """Write until cancelled. What the database cannot take at the moment is kept and tried again."""
        pause = FIRST_PAUSE_SECONDS
        outage = Outage(log, "flush")
        while True:
            await self._something_due()
            self._writing_since = asyncio.get_running_loop().time()
            try:
                await self._write_ends()
                await self._write_lines()
            except DatabaseUnreachable as error:
                outage.goes_on("flush_waits", error, jobs=len(self._ends) + len(self._postponed))
                self._wanted.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                outage.ends()
                pause = FIRST_PAUSE_SECONDS
            self._writing_since = float("inf")
            if self._round is not None and not self._round.done():
                self._round.set_result(None)
            if not (self._ends or self._postponed or self._logging):
                self._idle.set()

    async def _something_due(self) -> None:
        now = asyncio.get_running_loop().time()
        times = [end.again_at for end in self._postponed] + [job.lines.again_at for job in self._logging]
        if not self._wanted.is_set() and (not times or min(times) > now):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(times, default=None)):
                    await self._wanted.wait()
        self._wanted.clear()

    # Ends

    async def _write_ends(self) -> None:
        """Write the ends of all jobs that have no line waiting. Raises DatabaseUnreachable; nothing is lost then."""
        now = asyncio.get_running_loop().time()
        self._ends += [end for end in self._postponed if end.again_at <= now]
        self._postponed = [end for end in self._postponed if end.again_at > now]
        ready: dict[Kind, list[End]] = {}
        for end in self._ends:
            if end.job not in self._logging:
                ready.setdefault(end.kind, []).append(end)
        for these in ready.values():
            await self._write_all(these, _end_size, self._send_ends, self._end_failed)

    async def _send_ends(self, ends: list[End]) -> None:
        kind = ends[0].kind
        busy: set[str] = set()
        if kind == "completed":
            busy = await write_last_progress(self._session, self._worker_id, [end.job for end in ends])
        these = [end for end in ends if end.job.key not in busy] if busy else ends
        columns: list[object] = [
            self._worker_id,
            statements.array([end.job.token for end in these]),
            statements.array([end.job.key for end in these]),
        ]
        if kind != "released":
            columns.append(statements.documents([end.payload for end in these]))
            columns.append(statements.moments([end.job.started_epoch for end in these]))
        for row in await self._session.fetch(STATEMENTS[kind], columns) if these else ():
            if kind == "failed" and row[1]:
                continue
            if (row[2] if kind == "failed" else row[1]) == "busy":
                busy.add(row[0])
            else:
                # The job is somebody else's, or cancelled: its row is untouched, which is what the token is for.
                known = any(end.job.key == row[0] and end.job.stop is Stop.CANCELLED for end in these)
                (log.debug if known else log.info)("job_end_not_accepted", job_id=row[0], kind=kind)
        sent = set(ends)
        self._ends = [end for end in self._ends if end not in sent]
        for end in ends:
            if end.job.key in busy:
                # Somebody's open transaction holds the job's row, for example one that cancels it.
                self._postpone(end)
        self._on_written([end for end in ends if end.job.key not in busy])

    def _postpone(self, end: End) -> None:
        if not end.pause:
            log.debug("job_end_waits", job_id=end.job.key, kind=end.kind)
        end.pause = _longer(end.pause)
        end.again_at = asyncio.get_running_loop().time() + end.pause
        self._postponed.append(end)

    def _end_failed(self, end: End, error: Exception) -> None:
        self._ends.remove(end)
        end.tries += 1
        if _may_pass(error, end.tries):
            self._postpone(end)
            return
        log.error("job_end_refused", job_id=end.job.key, kind=end.kind, error=str(error))
        if end.kind == "completed":
            message = f"the database refused the result: {error}"
            end.job.note_failure(message)
            self.add_end(End(end.job, "failed", failure("invalid_result", message, retryable=False)))
        elif end.kind == "failed" and not end.is_minimal:
            self.add_end(End(end.job, "failed", _shortened(end), is_minimal=True))
        else:
            log.critical("job_end_given_up", job_id=end.job.key, kind=end.kind, error=str(error))
            self._on_written([end])

    # Lines

    async def _write_lines(self) -> None:
        """Write some lines, the places in the statement shared by all jobs that log. Raises DatabaseUnreachable."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        jobs = [job for job in self._logging if job.lines.again_at <= now][:MAX_ITEMS]
        if not jobs:
            return
        share = MAX_ITEMS // len(jobs)
        lines = [line for job in jobs for line in job.lines.take(job, share)]
        left = dict.fromkeys(lines)
        held_up: set[ClaimedJob] = set()

        async def send(these: list[LogLine]) -> None:
            these = [line for line in these if line.job not in held_up]  # a job's lines keep their order
            if these:
                await self._send_lines(these)
            for line in these:
                del left[line]

        def failed(line: LogLine, error: Exception) -> None:
            line.tries += 1
            if _may_pass(error, line.tries):
                held_up.add(line.job)
                log.warning("lines_wait", job_id=line.job.key, error=str(error))
            else:
                del left[line]
                log.error("log_line_refused", job_id=line.job.key, error=str(error))

        try:
            await self._write_all(lines, lambda line: line.size, send, failed)
        finally:
            for job in jobs:
                job.lines.pause = _longer(job.lines.pause) if job in held_up else 0.0
                job.lines.again_at = loop.time() + job.lines.pause
                job.lines.put_back([line for line in left if line.job is job])
                # Those that were not written in full come after the others next time.
                del self._logging[job]
                if job.has_lines:
                    self._logging[job] = None
        if self._ends:
            self._wanted.set()

    async def _send_lines(self, lines: list[LogLine]) -> None:
        await self._session.fetch(
            statements.APPEND_LOGS,
            (
                self._worker_id,
                statements.array([line.job.token for line in lines]),
                statements.array([line.job.key for line in lines]),
                [line.level for line in lines],
                [line.message for line in lines],
                [line.metadata for line in lines],
            ),
        )

    # Both

    async def _write_all(
        self,
        items: list[T],
        size: Callable[[T], int],
        send: Callable[[list[T]], Awaitable[None]],
        failed: Callable[[T, Exception], None],
    ) -> None:
        """Send the items portion by portion."""
        while items:
            count = _portion(items, size)
            await self._write(items[:count], send, failed)
            items = items[count:]

    async def _write(
        self,
        items: list[T],
        send: Callable[[list[T]], Awaitable[None]],
        failed: Callable[[T, Exception], None],
    ) -> None:
        """Send the items together, or in halves down to those that spoil it, which go to ``failed``."""
        try:
            await send(items)
        except DatabaseUnreachable:
            raise
        except PartitionMissing as error:
            await self._ensure_partitions()
            for item in items:
                failed(item, error)
        except Exception as error:
            if len(items) > 1:
                middle = len(items) // 2
                await self._write(items[:middle], send, failed)
                await self._write(items[middle:], send, failed)
            else:
                failed(items[0], error)

    async def _ensure_partitions(self) -> None:
        try:
            await self._session.fetch(statements.ENSURE_PARTITIONS)
        except DatabaseUnreachable:
            raise
        except (StreamVibeError, psycopg.Error) as error:
            log.error("partitions_not_made", error=str(error))


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


def _longer(pause: float) -> float:
    return min(max(pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def _shortened(end: End) -> str:
    """The failure that is left when the database refuses the whole of it."""
    given = orjson.loads(end.payload or "{}")
    return failure(
        str(given.get("kind", "error"))[:100],
        "its message is lost: the database refused it",
        retryable=bool(given.get("retryable")),
    )


def _may_pass(error: Exception, tries: int) -> bool:
    """Whether the same write may succeed later: true of all but what the written data itself brings about.

    ``tries``: how often it failed. Of some errors nobody can tell, such as one that a trigger of yours raises.
    """
    if isinstance(error, InvalidArgument | PayloadTooLarge | psycopg.DataError | psycopg.IntegrityError):
        return False
    if isinstance(error, psycopg.Error):
        kind = (error.sqlstate or "")[:2]
        # 54: a limit of the server, such as jsonb's size.
        return kind != "54" and (kind in PASSING or tries < MOST_TRIES)
    return isinstance(error, StreamVibeError)
