"""A claimed job inside the worker, and what its handler sees of it."""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from streamvibe import payload
from streamvibe.errors import InvalidArgument, JobCancelled

LOG_LEVELS = frozenset({"debug", "info", "warning", "error"})
#: A line's metadata beyond this many bytes is left out; the line stays.
MAX_METADATA_BYTES = 100_000


class Stop(Enum):
    """Why a running handler is told to stop."""

    CANCELLED = "cancelled"  # the job was cancelled
    LOST = "lost"  # another worker may run it by now
    TIMEOUT = "timeout"  # it ran longer than its type allows
    SHUTDOWN = "shutdown"  # the worker stops; the job is handed back


class LogLine:
    """A line waiting to be written."""

    __slots__ = ("job", "level", "message", "metadata")

    def __init__(self, job: "ClaimedJob", level: str, message: str, metadata: str | None) -> None:
        self.job = job
        self.level = level
        self.message = message
        self.metadata = metadata


class ClaimedJob:
    """A job this worker holds; it is also the handler's Context (``streamvibe.Context`` documents that part)."""

    __slots__ = (
        "_on_log",
        "_progress",
        "attempt",
        "deadline",
        "isolated",
        "job_id",
        "job_type",
        "leased",
        "max_attempts",
        "params",
        "progress_at",
        "reported",
        "started",
        "started_at",
        "stop",
        "stop_at",
        "task",
        "timeout_seconds",
        "token",
        "user_id",
    )

    def __init__(self, row: tuple[Any, ...], on_log: Callable[[LogLine], None]) -> None:
        self.token: int = row[0]
        self.job_id: UUID = row[1]
        self.user_id: UUID = row[2]
        self.job_type: str = row[3]
        self.params: str = row[4]  # JSON text: it may hold what only this job's type can tell is wrong
        self.attempt: int = row[5]
        self.max_attempts: int = row[6]
        self.timeout_seconds: float = row[7]
        self.isolated: bool = row[8]
        self.task: asyncio.Task[Any] | None = None
        self.started = 0.0  # loop time
        self.started_at: datetime | None = None
        self.deadline = 0.0  # loop time
        self.leased = False
        self.reported = False
        self.stop: Stop | None = None
        self.stop_at = 0.0  # loop time
        self.progress_at = 0.0  # loop time of the last written progress
        self._progress: deque[tuple[float, str | None]] = deque(maxlen=1)  # written from any thread
        self._on_log = on_log

    def begin(self, loop_time: float) -> None:
        """Note that the handler starts now."""
        self.started = loop_time
        self.started_at = datetime.now(UTC)
        self.deadline = loop_time + self.timeout_seconds

    @property
    def cancelled(self) -> bool:
        return self.stop is not None

    def raise_if_cancelled(self) -> None:
        if self.stop is not None:
            raise JobCancelled(f"the job must stop: {self.stop.value}")

    def log(self, message: str, *, level: str = "info", **metadata: object) -> None:
        if level not in LOG_LEVELS:
            raise InvalidArgument(
                "the log level is unknown",
                field="level",
                received=repr(level),
                fix="Use debug, info, warning or error.",
            )
        encoded = orjson.dumps(payload.clean(metadata)).decode() if metadata else None
        if encoded is not None and len(encoded) > MAX_METADATA_BYTES:
            encoded = orjson.dumps({"left_out": f"metadata of {len(encoded)} bytes"}).decode()
        self._on_log(LogLine(self, level, payload.clean_text(str(message), 10_000), encoded))

    def progress(self, fraction: float, message: str | None = None) -> None:
        if not 0 <= fraction <= 1:
            raise InvalidArgument(
                "progress is out of range", field="fraction", received=repr(fraction), fix="Use 0 to 1."
            )
        self._progress.append(
            (float(fraction), None if message is None else payload.clean_text(str(message), 500))
        )

    def take_progress(self) -> tuple[float, str | None] | None:
        """The progress noted since the last call; None when there is nothing new."""
        try:
            return self._progress.pop()
        except IndexError:
            return None
