"""Requests that one process makes at the same time are sent together: a transaction and a commit for several.

What is asked for in one turn of the event loop goes at once, in two transactions when it is much. While those are under
way, what is asked for gathers, and the next takes it: the more there is to do, the less each costs. No request waits
for another user's lock: what finds its user's taken is asked for again, alone. Nor does it wait for a transaction that
does not come back: after ten milliseconds one more begins.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from streamvibe.db.statements import jobs
from streamvibe.db.statements.statement import Statement
from streamvibe.errors import DatabaseUnreachable, NotAllowed, PartitionMissing

T = TypeVar("T")

#: How many transactions are under way before requests gather: while one waits for the disk, the other works.
LANES = 2
#: What one transaction takes at most. Each request is a subtransaction, of which PostgreSQL keeps 64 at hand.
MOST_REQUESTS = 50
MOST_CHARACTERS = 1_000_000
#: How long a request waits for a transaction to come back before another begins.
PATIENCE_SECONDS = 0.01

Execute = Callable[[Statement[Any]], Awaitable[Any]]


class _Waiting(NamedTuple):
    request: Statement[Any]
    answered: asyncio.Future[Any]
    since: float  # loop time


class Together:
    """Sends requests. Belongs to one event loop."""

    def __init__(self, execute: Execute) -> None:
        """``execute`` runs one statement in a transaction of its own."""
        self._execute = execute
        self._lanes = 0
        self._waiting: list[_Waiting] = []
        self._watch: asyncio.TimerHandle | None = None  # set while somebody waits
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_starting = False
        self._is_service = True  # until the database says otherwise

    async def ask(self, request: Statement[T]) -> T:
        """Make this request, and return what became of it. Cancelled meanwhile: it may have been made."""
        if not self._is_service:
            return await self._execute(request)  # type: ignore[no-any-return]
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Waiting(request, answered, loop.time()))
        if self._watch is None:
            self._watch = loop.call_later(PATIENCE_SECONDS, self._look)
        if self._lanes < LANES and not self._is_starting:
            # Not before everybody who is about to ask has asked.
            self._is_starting = True
            loop.call_soon(self._start)
        return await answered

    def _start(self) -> None:
        self._is_starting = False
        while self._waiting and self._lanes < LANES:
            self._begin_lane(len(self._waiting) // (LANES - self._lanes) if len(self._waiting) > 3 else 3)

    def _look(self) -> None:
        self._watch = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            if self._waiting[0].since + PATIENCE_SECONDS <= loop.time():
                self._begin_lane(MOST_REQUESTS)
            self._watch = loop.call_later(PATIENCE_SECONDS, self._look)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_lane(self, most: int) -> None:
        self._lanes += 1
        self._begin(self._lane(self._taken(most)))

    async def _lane(self, these: list[_Waiting]) -> None:
        _cancel_when_nobody_waits(these)
        try:
            await self._send(these)
        finally:
            self._lanes -= 1
            if self._waiting and self._lanes < LANES and not self._is_starting:
                self._is_starting = True
                asyncio.get_running_loop().call_soon(self._start)

    def _taken(self, most: int) -> list[_Waiting]:
        characters = 0
        for count, waiting in enumerate(self._waiting):
            characters += jobs.characters(waiting.request)
            if count and (count >= min(most, MOST_REQUESTS) or characters > MOST_CHARACTERS):
                break
        else:
            count = len(self._waiting)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return [waiting for waiting in taken if not waiting.answered.done()]

    async def _send(self, these: list[_Waiting]) -> None:
        if len(these) <= 1:
            for waiting in these:
                await self._alone(waiting)
            return
        try:
            rows = await self._execute(jobs.request_jobs([waiting.request for waiting in these]))
        except asyncio.CancelledError:
            for waiting in these:
                waiting.answered.cancel()
            raise
        except DatabaseUnreachable as error:
            # Whether they were made is not known: it is for those who asked to ask again.
            for waiting in these:
                _settle(waiting, error)
            return
        except Exception as error:
            self._is_service = not isinstance(error, NotAllowed)
            # Nothing was done. What spoilt it for all meets its own error alone.
            rows = [None] * len(these)
        for waiting, row in zip(these, rows, strict=True):
            try:
                found = jobs.answer(waiting.request, row) if row is not None else None
            except PartitionMissing:
                found = None
            except Exception as error:
                _settle(waiting, error)
                continue
            if found is None:
                self._begin(self._again(waiting))
            elif not waiting.answered.done():
                waiting.answered.set_result(found)

    async def _again(self, waiting: _Waiting) -> None:
        _cancel_when_nobody_waits([waiting])
        await self._alone(waiting)

    async def _alone(self, waiting: _Waiting) -> None:
        try:
            found = await self._execute(waiting.request)
        except asyncio.CancelledError:
            waiting.answered.cancel()
            raise
        except Exception as error:
            _settle(waiting, error)
        else:
            if not waiting.answered.done():
                waiting.answered.set_result(found)


def _cancel_when_nobody_waits(these: list[_Waiting]) -> None:
    """Stop this task once everybody it works for has given up: its statement may wait for a lock for ever."""
    task = asyncio.current_task()
    left = len(these)

    def answered(future: asyncio.Future[Any]) -> None:
        nonlocal left
        left -= future.cancelled()
        if not left and task is not None:
            task.cancel()

    for waiting in these:
        waiting.answered.add_done_callback(answered)


def _settle(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(error)
