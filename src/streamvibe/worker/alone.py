"""Who runs alone: a job that may kill its process has it for itself, so that the crash can be laid at its door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.holding import Holding

#: How long a job that must run alone waits for the others to end before it is handed back; nothing is claimed then.
ALONE_SECONDS = 5.0
#: How long no such job is taken after that, unless what was in its way has ended.
NOT_ALONE_SECONDS = 60.0


class Alone:
    """Lets those that claim and start jobs work beside each other, or one of them without the others."""

    def __init__(
        self,
        holding: Holding,
        is_stopping: Callable[[], bool],
        is_written: Callable[[], bool],
        until_written: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Whether all ends are written, and a wait for it; those that wait for others' locks do not count."""
        self._holding = holding
        self._is_stopping = is_stopping
        self._is_written = is_written
        self._until_written = until_written
        self._reserved = asyncio.Lock()
        self._inside = 0  # how many claim or start jobs at the moment
        self._in_the_way: set[ClaimedJob] = set()  # ran on while a job waited to run alone
        self._not_alone_until = float("-inf")  # loop time

    def could_run(self) -> bool | None:
        """Whether a job could run alone here soon. None: no, not even one that has waited for long elsewhere."""
        running = self._holding.running
        now = asyncio.get_running_loop().time()
        self._in_the_way &= running if now < self._not_alone_until else set()
        if self._in_the_way or any(job.reported for job in running):
            return None
        return not any(job.leased for job in running)

    def is_free(self) -> bool:
        """Whether nothing is running, claimed or written, but by who asks from inside."""
        is_used = self._inside > 1 or self._holding.running or self._reserved.locked()
        return not is_used and self._is_written()

    @contextlib.asynccontextmanager
    async def beside_others(self) -> AsyncIterator[None]:
        """Claim and start jobs in this block; it is entered when nobody is alone."""
        async with self._reserved:
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextlib.asynccontextmanager
    async def reserved(self) -> AsyncIterator[bool]:
        """Inside ``beside_others``: nobody else claims or starts anything in this block.

        Yields whether nothing runs any more; false after ALONE_SECONDS, or when the worker stops.
        """
        self._leave()
        try:
            async with self._reserved:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ALONE_SECONDS):
                        await self.until(lambda: not (self._inside or self._holding.unfinished))
                        # What is not written yet would be held beside it; what waits for others' locks may take hours.
                        await self._until_written()
                is_free = not (self._inside or self._holding.running or self._is_stopping())
                if self._holding.running and not self._is_stopping():
                    # They run for long, or do not stop: no worker waits for hours, and another may take the job.
                    self._in_the_way = set(self._holding.running)
                    self._not_alone_until = asyncio.get_running_loop().time() + NOT_ALONE_SECONDS
                yield is_free
        finally:
            self._inside += 1

    def _leave(self) -> None:
        self._inside -= 1
        if self._reserved.locked():  # somebody waits for it; those who wait for handlers must not be woken
            self._holding.changed.set()

    async def until_nothing_runs(self) -> None:
        """Wait until every running job is reported, or the worker stops."""
        await self.until(lambda: not self._holding.unfinished)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this is true of what runs, or the worker stops."""
        while not (condition() or self._is_stopping()):
            self._holding.changed.clear()
            await self._holding.changed.wait()
