"""A claimed job inside the worker, and what its handler sees of it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from psycopg import AsyncConnection

from streamvibe import payload
from streamvibe.errors import InvalidArgument, JobCancelled

if TYPE_CHECKING:
    from streamvibe.worker.flush import End

LOG_LEVELS = frozenset({"debug", "info", "warning", "error"})
#: A line's metadata beyond this many bytes is left out; the line stays.
MAX_METADATA_BYTES = 100_000
#: What one job may have waiting to be written; a handler that logs faster than that loses lines.
MAX_WAITING_LINES = 10_000
MAX_WAITING_CHARACTERS = 10_000_000
#: How far outside 0 to 1 a sum of fractions may end.
ROUNDING = 1e-6


class Stop(Enum):
    """Why a running handler is told to stop."""

    CANCELLED = "cancelled"  # the job was cancelled
    LOST = "lost"  # another worker may run it by now
    TIMEOUT = "timeout"  # it ran longer than its type allows
    SHUTDOWN = "shutdown"  # the worker stops; the job is handed back


class Progress:
    """How far a handler said that its job is."""

    __slots__ = ("fraction", "message")

    def __init__(self, fraction: float, message: str | None) -> None:
        self.fraction = fraction
        self.message = message


class LogLine:
    """A line waiting to be written."""

    __slots__ = ("job", "level", "message", "metadata", "tries")

    def __init__(self, job: "ClaimedJob", level: str, message: str, metadata: str | None) -> None:
        self.job = job
        self.level = level
        self.message = message
        self.metadata = metadata
        self.tries = 0

    @property
    def size(self) -> int:
        """Its characters."""
        return len(self.message) + len(self.metadata or "")


class WaitingLines:
    """A job's lines that wait to be written. Any thread may add; the event loop takes.

    Once there are too many, every further line is left out until all are taken; a warning says how many.
    It does not know its job: they would keep each other until the collector comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[LogLine] = deque()
        self._characters = 0
        self._left_out = 0
        self.pause = 0.0  # seconds; how long they waited after they could not be written
        self.again_at = 0.0  # loop time

    def __bool__(self) -> bool:
        return bool(self._lines)

    def leaves_out(self) -> bool:
        """Whether there is no room for one more; if so it is counted as left out."""
        with self._lock:
            full = len(self._lines) >= MAX_WAITING_LINES or self._characters >= MAX_WAITING_CHARACTERS
            if full or self._left_out:
                self._left_out += 1
                return True
            return False

    def add(self, line: LogLine) -> bool:
        """Add a line; whether it is the first that waits."""
        with self._lock:
            self._lines.append(line)
            self._characters += line.size
            return len(self._lines) == 1

    def take(self, job: "ClaimedJob", most: int) -> list[LogLine]:
        """The oldest lines, ``most`` of them; these are the lines of ``job``."""
        with self._lock:
            taken = [self._lines.popleft() for _ in range(min(most, len(self._lines)))]
            self._characters -= sum(line.size for line in taken)
            if not self._lines and self._left_out:
                warning = LogLine(job, "warning", f"{self._left_out} lines left out", None)
                self._lines.append(warning)
                self._characters += warning.size
                self._left_out = 0
            return taken

    def put_back(self, lines: list[LogLine]) -> None:
        """Lines that could not be written, before the others."""
        with self._lock:
            self._lines.extendleft(reversed(lines))
            self._characters += sum(line.size for line in lines)


_making_lines = threading.Lock()


class ClaimedJob:
    """A job this worker holds; it is also the handler's Context (``streamvibe.Context`` documents that part)."""

    # Most jobs leave most of these as they are, so they are set on the few that do not.
    task: "asyncio.Task[None] | None" = None
    entered = False  # its task has begun
    started = 0.0  # loop time
    started_epoch: float | None = None  # seconds since 1970
    deadline = 0.0  # loop time
    leased = False
    lease_at = 0.0  # loop time of the next try to lease its row
    is_stuck = False  # it was told to stop long ago, and runs
    reported = False
    stop: Stop | None = None
    stop_at = 0.0  # loop time
    progress_at = 0.0  # loop time of the last written progress
    is_noting = False  # its progress is being written
    #: Of a transactional job: how it ended, for the transaction that writes it. None: nothing may be written.
    outcome: "asyncio.Future[End | None] | None" = None
    _connection: AsyncConnection[Any] | None = None  # while its handler runs
    _lines: WaitingLines | None = None
    _progress: "Progress | None" = None  # the newest; noted in any thread
    _progress_written: "Progress | None" = None

    def __init__(self, row: tuple[Any, ...], on_log: Callable[["ClaimedJob"], None]) -> None:
        """``on_log``: the first line waits to be written. Called in the handler's thread."""
        self.token: int = row[0]
        self.key: str = row[1]  # the id as text, as all statements take it
        self._user_key: str = row[2]
        self.job_type: str = row[3]
        self.params: str = row[4]  # JSON text: it may hold what only this job's type can tell is wrong
        self.attempt: int = row[5]
        self.max_attempts: int = row[6]
        self.timeout_seconds: float = row[7]
        self.isolated: bool = row[8]
        self.traceparent: str | None = row[9]  # of who asked for it
        self._on_log = on_log

    def begin(self, loop_time: float, epoch: float) -> None:
        """Note that the handler starts now."""
        self.started = loop_time
        self.started_epoch = epoch
        self.deadline = loop_time + self.timeout_seconds

    def run_again(self) -> None:
        """Forget that its handler ran: what it did was rolled back."""
        self.drop_outcome()
        self.task, self.entered, self.reported = None, False, False
        self._lines = None

    def drop_outcome(self) -> None:
        """Forget how it ended, which refers to this job: they would keep each other until the collector comes."""
        if self.outcome is not None:
            self.outcome = self.outcome.get_loop().create_future()

    @property
    def job_id(self) -> UUID:
        return UUID(self.key)

    @property
    def user_id(self) -> UUID:
        return UUID(self._user_key)

    @property
    def transactional(self) -> bool:
        """Whether its end is written in the transaction in which it runs."""
        return self.outcome is not None

    @property
    def connection(self) -> AsyncConnection[Any]:
        if self._connection is not None:
            return self._connection
        if self.transactional:
            raise InvalidArgument(
                "the job's transaction is over",
                field="connection",
                received="a use after the handler had returned",
                fix="Await everything that uses the connection before the handler returns.",
            )
        raise InvalidArgument(
            "the job has no connection",
            field="connection",
            received=f"the job type {self.job_type}, which is not transactional",
            fix=f'Declare it with @job_type("{self.job_type}", transactional=True).',
        )

    def lend(self, connection: AsyncConnection[Any] | None) -> None:
        """Give the handler its connection, or take it away."""
        self._connection = connection

    @property
    def lines(self) -> WaitingLines:
        """The lines that wait to be written."""
        if self._lines is None:
            with _making_lines:  # two threads may log first at once
                if self._lines is None:
                    self._lines = WaitingLines()
        return self._lines

    @property
    def has_lines(self) -> bool:
        """Whether lines wait to be written."""
        return self._lines is not None and bool(self._lines)

    @property
    def cancelled(self) -> bool:
        return self.stop is not None

    def raise_if_cancelled(self) -> None:
        if self.stop is not None:
            raise JobCancelled(f"the job must stop: {self.stop.value}")

    def log(self, message: str, /, *, level: str = "info", **metadata: object) -> None:
        if level not in LOG_LEVELS:
            raise InvalidArgument(
                "the log level is unknown",
                field="level",
                received=repr(level),
                fix="Use debug, info, warning or error.",
            )
        # What is reported ends once its lines are written: a thread that logs on and on would put that off for ever.
        if self.reported or self.lines.leaves_out():
            return
        encoded = orjson.dumps(payload.clean(metadata)).decode() if metadata else None
        if encoded is not None and len(encoded) > MAX_METADATA_BYTES:
            encoded = orjson.dumps({"left_out": f"metadata of {len(encoded)} bytes"}).decode()
        if self.lines.add(LogLine(self, level, payload.clean_text(str(message), 10_000), encoded)):
            self._on_log(self)

    def note_failure(self, message: str) -> None:
        """Add the line that says why this attempt failed, when its handler has returned and log() takes nothing."""
        metadata = orjson.dumps({"attempt": self.attempt}).decode()
        self.lines.add(LogLine(self, "error", payload.clean_text(message, 10_000), metadata))

    def progress(self, fraction: float, message: str | None = None) -> None:
        if not -ROUNDING <= fraction <= 1 + ROUNDING:  # nor nan
            raise InvalidArgument(
                "progress is out of range", field="fraction", received=repr(fraction), fix="Use 0 to 1."
            )
        text = None if message is None else payload.clean_text(str(message), 500)
        self._progress = Progress(min(max(float(fraction), 0.0), 1.0), text)

    def new_progress(self) -> "Progress | None":
        """The progress noted last, until that note is written."""
        noted = self._progress
        return None if noted is self._progress_written else noted

    def progress_written(self, noted: "Progress") -> None:
        """This note is in the job's row, or never will be."""
        self._progress_written = noted
