"""The maintenance loop: of many processes one leads, and does each duty when it is time."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, InvalidArgument, NotLeader, StreamVibeError
from streamvibe.eventlog import Outage, event_logger
from streamvibe.maintenance.duties import DUTIES, Duty
from streamvibe.maintenance.leader import Leadership
from streamvibe.maintenance.schedule import Schedule, parse_schedule

log = event_logger("streamvibe.maintenance")

#: A duty that met somebody's lock, or has far too much to do, lets the others have their turn. The server rolls it back
#: when its process was stopped in the middle of it.
LIMITS = (
    "SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '60s', true),"
    " set_config('idle_in_transaction_session_timeout', '10s', true)"
)
#: For a step that reads all of a leaf, which keeps nobody waiting.
LONG_LIMITS = LIMITS.replace("'60s'", "'2h'")
#: How soon what an operator changed in the schedules is known.
RELOAD_SECONDS = 10.0

_REGISTER = "SELECT * FROM streamvibe.register_duties(%s, %s, %s)"
_BEGIN = "SELECT streamvibe.begin_duty(%s, %s)"
_END = "SELECT streamvibe.end_duty(%s, %s, %s, %s, %s, %s)"


class Maintenance:
    """Runs the duties while it leads, until stopped. A failing duty is logged and tried again at its next turn.

    ``settle``: for how long no worker is taken for dead after the start, after the database was away or slow, and
    after this machine slept: live workers could not renew their leases then, and need a moment to do so.
    ``lease``: after how long without a sign of the leader another process takes over.
    """

    def __init__(
        self,
        dsn: str,
        *,
        duties: Sequence[Duty] = DUTIES,
        settle: timedelta = timedelta(seconds=10),
        lease: timedelta = timedelta(seconds=10),
        prepare_threshold: int | None = None,
    ) -> None:
        self._session, self._slow_session = (
            Session(
                dsn,
                application_name="streamvibe maintenance",
                prepare_threshold=prepare_threshold,
                limits=LIMITS,
            )
            for _ in range(2)
        )
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._leadership = Leadership(dsn, name, lease=lease, prepare_threshold=prepare_threshold)
        self._duties = {duty.name: duty for duty in duties}
        self._settle = settle
        self._settled_at = float("inf")
        self._outage = Outage(log, "maintenance")
        #: The database's clock and the loop's when it was last read; None: not since an outage.
        self._read: tuple[datetime, float] | None = None
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[int] | None = None
        #: One that takes long, beside the others: recovery does not wait for it.
        self._slow: asyncio.Task[None] | None = None
        #: Under which fence the schedules were read, and when (loop time).
        self._fence: int | None = None
        self._loaded: tuple[datetime, float] = datetime.now(UTC), 0.0
        self._reload_at = 0.0
        self._schedules: dict[str, tuple[str, Schedule]] = {}
        #: Of each duty that is to run: when (loop time).
        self._due: dict[str, float] = {}

    def stop(self) -> None:
        """Stop now; the duty that is running is cancelled and rolled back. From the event loop's thread."""
        self._stopping.set()
        self._leadership.changed.set()
        for task in (self._running, self._slow):
            if task is not None:
                task.cancel()

    async def run(self) -> None:
        """While this process leads, run every duty that is late now, then each when it is due, until ``stop()``.

        Raises only what nobody foresaw, after logging it.
        """
        keeping = asyncio.create_task(self._leadership.keep())
        # What nobody foresaw there ends this as well.
        keeping.add_done_callback(lambda _: self.stop())
        try:
            while not self._stopping.is_set():
                self._leadership.changed.clear()
                until = await self._turn()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._leadership.changed.wait()
            for task in (keeping, self._slow):
                if task is not None and task.done() and not task.cancelled():
                    task.result()
        except Exception as error:
            log.critical("maintenance_broke", exc_info=error)
            raise
        finally:
            tasks = {keeping} if self._slow is None else {keeping, self._slow}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._leadership.resign()
            await self._session.close()
            await self._slow_session.close()

    async def _turn(self) -> float:
        """Do what is due; until when nothing is (loop time)."""
        loop = asyncio.get_running_loop()
        fence = self._leadership.fence
        if fence is None:
            return loop.time() + 1.0
        if fence != self._fence or loop.time() >= self._reload_at:
            await self._try_to_load(fence)
            if fence != self._fence:
                return loop.time() + 1.0
        if not self._due:
            return self._reload_at
        name = min(self._due, key=self._due.__getitem__)
        if self._due[name] > loop.time():
            return min(self._due[name], self._reload_at)
        duty = self._duties[name]
        if duty.is_slow:
            if self._slow is not None and not self._slow.done():
                self._due[name] = loop.time() + 1.0
                return loop.time()
            self._due[name] = float("inf")
            self._slow = asyncio.create_task(self._run_slowly(duty, fence))
            return loop.time()
        done = await self._cancellable(duty, fence)
        is_full = duty.batch is not None and done >= duty.batch
        self._due[name] = loop.time() + (0.0 if is_full else self._pause(name))
        return loop.time()

    async def _run_slowly(self, duty: Duty, fence: int) -> None:
        try:
            await self._run_duty(duty, fence, self._slow_session)
        except asyncio.CancelledError:
            raise
        except Exception:
            self.stop()  # and run() raises it
            raise
        if duty.name in self._schedules:
            self._due[duty.name] = asyncio.get_running_loop().time() + self._pause(duty.name)
            self._leadership.changed.set()

    def _pause(self, name: str) -> float:
        now = self._clock()
        return (self._schedules[name][1](now) - now).total_seconds()

    def _clock(self) -> datetime:
        """What time the database has, as far as this process knows."""
        at, read_at = self._loaded
        return at + timedelta(seconds=asyncio.get_running_loop().time() - read_at)

    async def _try_to_load(self, fence: int) -> None:
        """Known schedules go on to apply while they cannot be read again."""
        self._reload_at = asyncio.get_running_loop().time() + RELOAD_SECONDS
        try:
            await self._load(fence)
        except NotLeader:
            self._leadership.lost()
            self._fence = None
        except DatabaseUnreachable as error:
            self._read = self._fence = None
            self._outage.goes_on("duty_waits_for_database", error, duty="register_duties")
        except (StreamVibeError, psycopg.Error) as error:
            log.error("duty_failed", duty="register_duties", error=str(error))

    async def _load(self, fence: int) -> None:
        """Read the schedules; a duty that is late, or never ran, is due now."""
        loop = asyncio.get_running_loop()
        usual = [duty.schedule for duty in self._duties.values()]
        rows = await self._session.fetch(_REGISTER, (fence, list(self._duties), usual), limits=None)
        self._outage.ends()
        is_new = fence != self._fence
        if is_new:
            self._due, self._schedules, self._read, self._settled_at = {}, {}, None, float("inf")
        for name, schedule, enabled, last_started_at, now in rows:
            # In UTC: in the session's time zone an hour could be added where its clocks change.
            self._loaded = now.astimezone(UTC), loop.time()
            if not enabled:
                self._due.pop(name, None)
                self._schedules.pop(name, None)
            elif name not in self._schedules or self._schedules[name][0] != schedule:
                first = name not in self._schedules
                self._schedules[name] = schedule, self._readable(name, schedule)
                late = last_started_at is None or self._schedules[name][1](last_started_at) <= now
                self._due[name] = loop.time() + (0.0 if first and late else self._pause(name))
        self._fence = fence

    def _readable(self, name: str, schedule: str) -> Schedule:
        try:
            return parse_schedule(schedule)
        except InvalidArgument as error:
            log.error("schedule_unreadable", duty=name, schedule=schedule, error=error.message)
            return parse_schedule(self._duties[name].schedule)

    async def _cancellable(self, duty: Duty, fence: int) -> int:
        self._running = task = asyncio.create_task(self._run_duty(duty, fence, self._session))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # run() itself is cancelled
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            self._running = None
        return 0 if task.cancelled() else task.result()

    async def _run_duty(self, duty: Duty, fence: int, session: Session) -> int:
        """How much it did. What it met is recorded, as far as the database can be reached."""
        done: int | None = None
        failure: Exception | None = None
        try:
            [[started_at]] = await session.fetch(_BEGIN, (fence, duty.name), limits=None)
            try:
                done = await self._do(duty, fence, session)
            except (StreamVibeError, psycopg.Error) as error:
                failure = error
            said = None if failure is None else str(failure)
            ended = (fence, self._leadership.leader_id, duty.name, started_at, done, said)
            await session.fetch(_END, ended, limits=None)
        except NotLeader:
            self._leadership.lost()
        except (StreamVibeError, psycopg.Error) as error:
            failure = failure or error
        if isinstance(failure, DatabaseUnreachable):
            self._read = None
            self._outage.goes_on("duty_waits_for_database", failure, duty=duty.name)
        elif failure is not None:
            log.error("duty_failed", duty=duty.name, error=str(failure))
        else:
            self._outage.ends()
        if done:
            log.info("duty_done", duty=duty.name, count=done)
        return done or 0

    async def _do(self, duty: Duty, fence: int, session: Session) -> int:
        if duty.judges_workers:
            return int((await self._judge(duty))[0][0])
        if duty.run is not None:
            return await duty.run()
        if duty.steps or duty.commands:
            return await self._one_by_one(duty, fence, session)
        return int((await session.fetch(duty.sql))[0][0])

    async def _one_by_one(self, duty: Duty, fence: int, session: Session) -> int:
        """For how many rows of the duty's statement everything was done. What one of them meets keeps no other from
        its turn, but for a lock that a command waits for in vain; the first such error is raised in the end.
        """
        done = 0
        failure: Exception | None = None
        for row in await session.fetch(duty.sql, limits=LONG_LIMITS):
            try:
                if duty.commands:
                    self._require_lead(fence)
                    log.info("duty_command", duty=duty.name, command=row[0])
                    done += await self._command(row[0], session)
                else:
                    done += await self._step_by_step(duty, fence, session, row)
            except (NotLeader, DatabaseUnreachable):
                raise
            except (StreamVibeError, psycopg.Error) as error:
                failure = failure or error
                if duty.commands and isinstance(error, psycopg.errors.LockNotAvailable):
                    # Whoever is in the way of one rebuild is in the way of all, and each would leave its remains.
                    break
        if failure is not None:
            raise failure
        return done

    async def _command(self, command: str, session: Session) -> bool:
        """Whether it was done. A vacuum waits for nobody: whoever has the table, or what is stored beside it, keeps it
        from its turn, as does a partition that was dropped since the list was read.
        """
        is_vacuum = command.startswith("VACUUM")
        try:
            await session.run_alone(command, lock_timeout="100ms" if is_vacuum else "5s")
        except (StreamVibeError, psycopg.Error) as error:
            met = error.__cause__ or error
            if not is_vacuum or not isinstance(
                met, psycopg.errors.LockNotAvailable | psycopg.errors.UndefinedTable
            ):
                raise
            log.info("duty_command_left_out", command=command, error=str(error))
            return False
        return True

    async def _step_by_step(self, duty: Duty, fence: int, session: Session, row: tuple[Any, ...]) -> bool:
        for step in duty.steps:
            self._require_lead(fence)
            if (await session.fetch(step, row, limits=LONG_LIMITS))[0][0] is False:
                return False
        return True

    def _require_lead(self, fence: int) -> None:
        """What was begun under an old fence ends here. Raises NotLeader."""
        if self._leadership.fence != fence:
            raise NotLeader("Another process may do the maintenance now")

    async def _judge(self, duty: Duty) -> list[tuple[Any, ...]]:
        """Run the duty, which judges nobody unless live workers had the time to renew their leases, as far as this
        process can tell.

        The loop's clock stands still while the machine sleeps, the database's goes on; a call that is late may come
        from, or to, a machine on which every heartbeat was late. So the statement itself compares the database's
        clock, in the reading that it judges by, with what it should be.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        in_time: datetime | None = None
        if self._read is not None:
            clock, read_at = self._read
            in_time = clock + timedelta(seconds=asked_at - read_at) + self._settle / 5
        may_judge = in_time is not None and asked_at >= self._settled_at
        # Without a time to settle nothing is too late.
        not_after = ("infinity" if not self._settle else in_time) if may_judge else "-infinity"
        rows = await self._session.fetch(duty.sql, (not_after,))
        clock = rows[0][1].astimezone(UTC)
        if in_time is None or clock > in_time:
            self._settled_at = loop.time() + self._settle.total_seconds()
        self._read = clock, loop.time()
        return rows
