"""Requests that one process makes at the same time are sent together: a transaction and a commit for several.

What is asked for in one turn of the event loop goes at once, in two transactions when it is much. While those are under
way, what is asked for gathers, and the next takes it: the more there is to do, the less each costs. Who asks for one
thing after the other pays for none of that.

No request waits for another user's lock. A transaction for several takes locks that are free; who finds their user's
taken asks again a little later. A request that goes alone may wait for its user's lock on its connection: few may do
that at once, and after ten milliseconds it keeps nobody else from beginning.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from streamvibe.db.statements import jobs
from streamvibe.db.statements.statement import Statement
from streamvibe.errors import DatabaseUnreachable, NotAllowed, PartitionMissing

T = TypeVar("T")

#: How many transactions are under way before requests gather: while one waits for the disk, the other works.
LANES = 2
#: How many connections may wait for users' locks.
MOST_ALONE = 2
#: What one transaction takes at most. Each request is a subtransaction, of a new user two; PostgreSQL keeps 64 at hand.
MOST_REQUESTS = 30
MOST_CHARACTERS = 1_000_000
#: After so many requests during none of which another was asked for, the next goes without waiting for company.
ALONE_IN_A_ROW = 3
#: How long a request waits for a transaction to come back before another begins.
PATIENCE_SECONDS = 0.01
#: How long who found their user's lock taken waits before the next try, at first and at most.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.005, 0.1

Execute = Callable[[Statement[Any]], Awaitable[Any]]


class _Waiting:
    pause = FIRST_PAUSE_SECONDS
    #: Nobody else is to suffer from what it may do to a transaction.
    apart = False

    since = 0.0  # loop time

    def __init__(self, request: Statement[Any], answered: asyncio.Future[Any]) -> None:
        self.request = request
        self.answered = answered


class Together:
    """Sends requests. Belongs to one event loop."""

    def __init__(self, execute: Execute) -> None:
        """``execute`` runs one statement in a transaction of its own."""
        self._execute = execute
        self._lanes = 0  # without those that have been waiting alone for too long
        self._alone = 0
        self._waiting: list[_Waiting] = []
        self._watch: asyncio.TimerHandle | None = None  # set while somebody waits
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_starting = False
        self._in_a_row = 0  # requests that nobody else asked beside
        self._is_service = True  # until the database says otherwise

    async def ask(self, request: Statement[T]) -> T:
        """Make this request, and return what became of it. Cancelled meanwhile: it may have been made."""
        if not self._is_service:
            return await self._execute(request)  # type: ignore[no-any-return]
        if self._lanes or self._waiting:
            self._in_a_row = 0
        elif self._in_a_row >= ALONE_IN_A_ROW and self._alone < MOST_ALONE:
            return await self._go_at_once(request)
        else:
            self._in_a_row += 1
        answered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue(_Waiting(request, answered))
        return await answered

    async def _go_at_once(self, request: Statement[T]) -> T:
        """Without a task and timers: a fifth of the processor time that a request costs here."""
        self._lanes += 1
        self._alone += 1
        try:
            return await self._execute(request)  # type: ignore[no-any-return]
        finally:
            self._alone -= 1
            self._lanes -= 1
            self._start_soon()

    def _queue(self, waiting: _Waiting) -> None:
        if waiting.answered.done():
            return
        loop = asyncio.get_running_loop()
        waiting.since = loop.time()
        self._waiting.append(waiting)
        if self._watch is None:
            self._watch = loop.call_later(PATIENCE_SECONDS, self._look)
        self._start_soon()

    def _start_soon(self) -> None:
        if self._waiting and self._lanes < LANES and not self._is_starting:
            # Not before everybody who is about to ask has asked.
            self._is_starting = True
            asyncio.get_running_loop().call_soon(self._start)

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

    def _begin_lane(self, most: int) -> None:
        these = self._taken(most)
        if these:
            self._lanes += 1
            task = asyncio.get_running_loop().create_task(self._lane(these))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _lane(self, these: list[_Waiting]) -> None:
        _cancel_when_nobody_waits(these)
        counts = True

        def too_long() -> None:
            nonlocal counts
            counts = False
            self._lanes -= 1
            self._start_soon()

        try:
            if len(these) == 1 and (these[0].apart or self._alone < MOST_ALONE):
                self._alone += 1
                timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, too_long)
                try:
                    await self._send_alone(these[0])
                finally:
                    timer.cancel()
                    self._alone -= 1
            else:
                await self._send(these)
        finally:
            self._lanes -= counts
            self._start_soon()

    def _taken(self, most: int) -> list[_Waiting]:
        """Those who go next: the first, and others that may go with it."""
        characters = 0
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        for waiting in self._waiting:
            if waiting.answered.done():
                continue
            characters += jobs.characters(waiting.request)
            fits = len(taken) < min(most, MOST_REQUESTS) and characters <= MOST_CHARACTERS
            if not taken or (fits and not waiting.apart and not taken[0].apart):
                taken.append(waiting)
            else:
                left.append(waiting)
        self._waiting = left
        return taken

    async def _send(self, these: list[_Waiting]) -> None:
        try:
            rows = await self._execute(jobs.request_jobs([waiting.request for waiting in these]))
        except DatabaseUnreachable as error:
            # Whether they were made is not known: it is for those who asked to ask again.
            for waiting in these:
                own = copy.copy(error)  # who catches it may change it
                own.__cause__ = error.__cause__
                _fail(waiting, own)
        except Exception as error:
            if isinstance(error, NotAllowed):
                self._is_service = False
            # Nothing was done. What spoilt it for all meets its own error alone.
            for waiting in these:
                waiting.apart = True
                self._queue(waiting)
        else:
            for waiting, row in zip(these, rows, strict=True):
                self._answer(waiting, row)

    def _answer(self, waiting: _Waiting, row: Any) -> None:
        try:
            found = jobs.answer(waiting.request, row)
        except PartitionMissing:
            # Made by whoever asks alone.
            waiting.apart = True
            self._queue(waiting)
        except Exception as error:
            _fail(waiting, error)
        else:
            if found is not None:
                _settle(waiting, found)
            else:
                asyncio.get_running_loop().call_later(waiting.pause, self._queue, waiting)
                waiting.pause = min(waiting.pause * 2, LONGEST_PAUSE_SECONDS)

    async def _send_alone(self, waiting: _Waiting) -> None:
        try:
            _settle(waiting, await self._execute(waiting.request))
        except Exception as error:
            _fail(waiting, error)


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


def _settle(waiting: _Waiting, found: Any) -> None:
    if not waiting.answered.done():
        waiting.answered.set_result(found)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(error)
