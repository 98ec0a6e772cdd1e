"""``Client``: the queue for asynchronous code."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout
from typing_extensions import TypeVar

from streamvibe import tracing
from streamvibe.client import shared
from streamvibe.client.together import Together
from streamvibe.db.pool import APPLICATION_NAME, PREPARE_THRESHOLD, AsyncPool
from streamvibe.db.statements import bulk, jobs, lists, operations, settings
from streamvibe.db.statements.statement import Statement
from streamvibe.errors import DatabaseUnreachable, NotAllowed, PartitionMissing, translated
from streamvibe.jobtype import JobType, listed
from streamvibe.masking import mask_url
from streamvibe.model import (
    BulkOutcome,
    DutyRun,
    DutyState,
    Job,
    JobChange,
    JobResult,
    LogLine,
    NewJob,
    Page,
    Pause,
    QueueStats,
    Recounted,
    Report,
    Requested,
    SlowStatements,
    WaitReason,
    WorkerState,
)

T = TypeVar("T")
P = TypeVar("P", default=Any)
R = TypeVar("R", default=Any)

Connection = AsyncConnection[Any]
Id = UUID | str
Ids = UUID | str | Iterable[UUID | str]
JobChanges = list[JobChange]  # inside the class, list is a method
Workers = list[WorkerState]
JobsRecounted = list[Recounted]
WaitReasons = list[WaitReason]
Pauses = list[Pause]
DutyStates = list[DutyState]
DutyRuns = list[DutyRun]
Reports = list[Report]


class Client:
    """Requests, reads and changes jobs. ``SyncClient`` has the same methods for code without an event loop.

        async with Client() as client:
            params = {"social_account_id": "@name"}
            asked = await client.request("sync_youtube", params, user_id=user_id)
            done = await client.wait(asked, timeout=60)

    ``dsn`` None: in a handler the database of its worker, elsewhere that of STREAMVIBE_DATABASE_URL, else the
    embedded one, which is started if need be.
    Connections are made when first needed, at most ``max_size``; a call waits ``pool_timeout`` seconds for a
    free one. ``prepare_threshold=None`` behind a pooler in transaction mode. ``close()`` gives all of them back.

    Each call is one transaction. With ``connection=``, a call is instead part of that connection's own
    transaction: it never commits and is never repeated, and an error aborts the transaction, as that of any
    statement does (nest ``connection.transaction()`` to go on after one). Without it, a call that finds a
    partition missing makes it in a transaction of its own and is tried once more.

    ``user_id`` on reads: only that user's jobs are found; None: everybody's, for the service.

    Every method raises the errors of ``streamvibe.errors``; DatabaseUnreachable where there is no database.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        min_size: int = 0,
        max_size: int = 10,
        pool_timeout: float = 10,
        prepare_threshold: int | None = PREPARE_THRESHOLD,
        application_name: str = APPLICATION_NAME,
    ) -> None:
        self._dsn = dsn
        self._pool: AsyncPool | None = None
        self._opening = asyncio.Lock()
        self._together = Together(partial(self._fetch, connection=None))
        self._pool_options: dict[str, Any] = {
            "min_size": min_size,
            "max_size": max_size,
            "timeout": pool_timeout,
            "prepare_threshold": prepare_threshold,
            "application_name": application_name,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({mask_url(self._dsn) if self._dsn else None!r})"

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. The next call opens new ones."""
        pool, self._pool = self._pool, None
        self._together = Together(partial(self._fetch, connection=None))
        if pool is not None:
            await pool.close()

    async def request(
        self,
        job_type: JobType[P, R] | str,
        params: P | Mapping[str, object] | None = None,
        *,
        user_id: Id,
        force: bool = False,
        priority: int | None = None,
        scheduled_for: datetime | None = None,
        idempotency_key: str | None = None,
        dedupe_window: timedelta | None = None,
        cache_ttl: timedelta | None = None,
        enforce_limit: bool = True,
        connection: Connection | None = None,
    ) -> Requested[R]:
        """Ask for a job: the cached result of an identical one, the identical live one, or a new one.

        ``params``: an instance of the job type's params model or a mapping (validated before it is sent); with
        a type known by name only, any mapping, pydantic model or dataclass. None leaves a setting to the job
        type. A live job that is due later than ``scheduled_for`` (None: now) is not joined.
        ``force`` passes the cache; ``priority`` is 0 to 9, higher first; ``scheduled_for`` is
        timezone-aware; ``dedupe_window`` or ``cache_ttl`` of 0 switches that off; the same
        ``idempotency_key`` (1 to 255 characters) means the same job of this user as long as that is kept.
        Given up while it is under way, it may have been made all the same.

        Raises InvalidArgument, UnknownJobType, PayloadTooLarge, LimitReached, IdempotencyConflict,
        IsolationNotSupported.
        """
        with tracing.asking(job_type) as asking:
            statement: Statement[Requested[R]] = jobs.request_job(
                job_type,
                params,
                user_id=user_id,
                force=force,
                priority=priority,
                scheduled_for=scheduled_for,
                idempotency_key=idempotency_key,
                dedupe_window=dedupe_window,
                cache_ttl=cache_ttl,
                enforce_limit=enforce_limit,
                traceparent=asking.traceparent,
            )
            if connection is None:
                requested = await self._together.ask(statement)
            else:
                requested = await self._fetch(statement, connection)
            asking.answered(requested.outcome, requested.job_id, requested.traceparent)
            return requested

    async def create_many(
        self,
        new_jobs: Iterable[NewJob | Mapping[str, Any]],
        *,
        dedupe: bool = False,
        enforce_limit: bool = False,
        chunk_size: int | None = 10_000,
        connection: Connection | None = None,
    ) -> list[BulkOutcome]:
        """Create many jobs, for any users, by COPY; for the service. Returns what became of each, in order.

        Takes NewJob objects or mappings with their fields. The cache is not asked; ``dedupe`` joins live twins
        (also within a chunk), ``enforce_limit`` refuses what is over a user's limit.
        Each ``chunk_size`` jobs are one transaction; None makes it one for all. An error undoes its own chunk
        only and carries a note about the ones before; its ``field`` names the element, counted from 1.
        Of a list or tuple the next chunk is validated while the database makes the jobs of the last one; from
        anything else, jobs are taken when the chunk before them is committed.
        """
        outcomes: list[BulkOutcome] = []
        with (
            tracing.asking(None) as asking,
            shared.noting_created(outcomes, committed=connection is None),
        ):
            batches = bulk.Batches(
                new_jobs,
                chunk_size=chunk_size,
                dedupe=dedupe,
                enforce_limit=enforce_limit,
                traceparent=asking.traceparent,
            )
            for batch in batches:
                create = partial(_create, batch)
                if connection is None:
                    create = partial(_create_alone, batch, batches)
                outcomes += await self._run(create, connection)
            asking.created(len(outcomes))
        return outcomes

    async def wait(
        self,
        job: Id | Requested[R],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it raises our own error, which says what goes on
        job_type: JobType[Any, R] | None = None,
        user_id: Id | None = None,
        on_look: Callable[[Job], object] | None = None,
        on_away: Callable[[DatabaseUnreachable], object] | None = None,
    ) -> JobResult[R]:
        """Wait until the job is completed and return its result.

        ``job``: an id, or what ``request`` returned (whose result type is then known). ``timeout`` in seconds;
        None waits as long as it takes. A failed job that will be retried by itself is waited for.
        The job is looked at after 20 ms, then less and less often, down to once a second; ``on_look`` gets it
        each time. A database that was reached before, and is away, is waited for like the job, until ``timeout``;
        ``on_away`` gets the error of each look that it costs.

        Raises JobFailed (``.job``) when it ended without a result, WaitTimeout, JobNotFound; DatabaseUnreachable when
        the database is not there at first, or is still away at the end.
        """
        waiting = shared.Waiting(job, job_type, timeout, self._pool_options["timeout"])
        look = partial(_execute, jobs.get_job(waiting.job_id, user_id))
        await self._opened()
        while True:
            try:
                found = await self._run_on_pool(look, shared.LOOK_SECONDS)
            except DatabaseUnreachable as error:
                if waiting.miss(error) and on_away is not None:
                    on_away(error)
            else:
                if on_look is not None:
                    on_look(found)
                result = waiting.look(found)
                if result is not None:
                    return result
            await asyncio.sleep(waiting.pause())

    async def get(
        self, job_id: Id, *, user_id: Id | None = None, connection: Connection | None = None
    ) -> Job:
        """One job. Raises JobNotFound."""
        return await self._fetch(jobs.get_job(job_id, user_id), connection)

    async def result(
        self,
        job_id: Id,
        *,
        user_id: Id | None = None,
        job_type: JobType[Any, R] | None = None,
        connection: Connection | None = None,
    ) -> JobResult[R]:
        """How a job ended so far; ``job_type`` makes its result an object of that type. Raises JobNotFound."""
        return await self._fetch(jobs.get_job_result(job_id, user_id, job_type), connection)

    async def list(
        self,
        user_id: Id,
        *,
        status: str | None = None,
        job_type: JobType[Any, Any] | str | None = None,
        limit: int = 50,
        offset: int = 0,
        order_by: str = "created_at",
        order_dir: str = "DESC",
        connection: Connection | None = None,
    ) -> Page[Job]:
        """A page of a user's jobs, with their total count.

        ``limit`` 1 to 1000; ``offset`` at most 1000; ``order_by``: created_at, completed_at or job_priority (the last
        two for lists of up to 10,000 jobs); ``order_dir``: ASC or DESC. Raises InvalidArgument, OffsetTooLarge (use
        ``list_by_cursor``).
        """
        statement = lists.get_user_jobs(
            user_id,
            status=status,
            job_type=job_type,
            limit=limit,
            offset=offset,
            order_by=order_by,
            order_dir=order_dir,
        )
        return await self._fetch(statement, connection)

    async def list_by_cursor(
        self,
        user_id: Id,
        *,
        cursor: str | None = None,
        status: str | None = None,
        job_type: JobType[Any, Any] | str | None = None,
        limit: int = 50,
        connection: Connection | None = None,
    ) -> Page[Job]:
        """A page of a user's jobs, newest first, after ``cursor`` (the page before's ``next_cursor``).

        Costs the same at any depth. Raises InvalidArgument, InvalidCursor.
        """
        statement = lists.get_user_jobs_by_cursor(
            user_id, cursor=cursor, status=status, job_type=job_type, limit=limit
        )
        return await self._fetch(statement, connection)

    async def list_by_bucket(
        self,
        user_id: Id,
        bucket: str = "day",
        page: int = 1,
        *,
        status: str | None = None,
        job_type: JobType[Any, Any] | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        time_zone: str = "UTC",
        connection: Connection | None = None,
    ) -> Page[Job]:
        """The jobs that a user created in one ``hour``, ``day``, ``week`` or ``month``, with their total count.

        ``page`` 1 is the present one, N the one N - 1 before it, at most 1000; newest first. Of more than ``limit``
        jobs the next part comes with ``cursor`` (and the same page). ``time_zone``: whose hours and days.
        Raises InvalidArgument, InvalidCursor.
        """
        statement = lists.get_user_jobs_by_bucket(
            user_id,
            bucket=bucket,
            page=page,
            status=status,
            job_type=job_type,
            limit=limit,
            cursor=cursor,
            time_zone=time_zone,
        )
        return await self._fetch(statement, connection)

    async def iter_jobs(
        self,
        user_id: Id,
        *,
        status: str | None = None,
        job_type: JobType[Any, Any] | str | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[Job]:
        """All of a user's jobs, newest first, fetched page by page."""
        cursor, more = None, True
        while more:
            page = await self.list_by_cursor(
                user_id, cursor=cursor, status=status, job_type=job_type, limit=page_size
            )
            for job in page.items:
                yield job
            cursor, more = page.next_cursor, page.has_more

    async def search(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        result: object = None,
        user_id: Id | None = None,
        status: str | None = None,
        job_type: JobType[Any, Any] | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[Job]:
        """A page of jobs whose params and result contain these JSON values, newest first.

        Contained is what PostgreSQL's ``@>`` calls so: {"tags": ["a"]} is in {"tags": ["a", "b"], "n": 1}.
        Without ``user_id`` those of every user, for the service.
        Raises InvalidArgument, PayloadTooLarge, InvalidCursor.
        """
        statement = lists.search_jobs(
            params=params,
            result=result,
            user_id=user_id,
            status=status,
            job_type=job_type,
            limit=limit,
            cursor=cursor,
        )
        return await self._fetch(statement, connection)

    async def search_logs(
        self,
        search: str | None = None,
        *,
        job_id: Id | None = None,
        user_id: Id | None = None,
        level: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 100,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[LogLine]:
        """A page of log lines, newest first: of one job, of one user, or of all, for the service.

        ``search``: English words in any form, a "phrase", ``or``, ``-not``; ``metadata``: what the line's contain;
        ``since`` is in, ``until`` is not. Raises InvalidArgument, PayloadTooLarge, InvalidCursor.
        """
        statement = lists.search_logs(
            search,
            job_id=job_id,
            user_id=user_id,
            level=level,
            since=since,
            until=until,
            metadata=metadata,
            limit=limit,
            cursor=cursor,
        )
        return await self._fetch(statement, connection)

    async def logs(
        self,
        job_id: Id,
        *,
        user_id: Id | None = None,
        level: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[LogLine]:
        """A page of a job's log, newest first; empty for a job that is not there.

        ``level``: only debug, info, warning or error lines. Raises InvalidArgument, InvalidCursor.
        """
        statement = lists.get_job_logs(job_id, user_id=user_id, level=level, limit=limit, cursor=cursor)
        return await self._fetch(statement, connection)

    async def iter_logs(
        self, job_id: Id, *, user_id: Id | None = None, level: str | None = None, page_size: int = 100
    ) -> AsyncIterator[LogLine]:
        """A job's whole log, newest first, fetched page by page."""
        cursor, more = None, True
        while more:
            page = await self.logs(job_id, user_id=user_id, level=level, limit=page_size, cursor=cursor)
            for line in page.items:
                yield line
            cursor, more = page.next_cursor, page.has_more

    async def cancel(self, job_ids: Ids, *, user_id: Id, connection: Connection | None = None) -> JobChanges:
        """Cancel a user's jobs, 1 to 10000: live ones, and failed ones that wait for a retry.

        A running one is told, and never waited for.
        """
        return await self._fetch(jobs.cancel_jobs(job_ids, user_id), connection)

    async def retry(self, job_ids: Ids, *, user_id: Id, connection: Connection | None = None) -> JobChanges:
        """Retry a user's failed jobs now, 1 to 10000, where attempts remain and the failure allows it."""
        return await self._fetch(jobs.retry_jobs(job_ids, user_id), connection)

    async def stats(
        self,
        *,
        since: datetime | None = None,
        job_type: JobType[Any, Any] | str | None = None,
        connection: Connection | None = None,
    ) -> QueueStats:
        """The queue in numbers, exact, without reading the jobs; for the service.

        ``since``: only jobs that ended since that minute, or were asked for since when they have not ended;
        percentiles are of whole hours then. Raises InvalidArgument, UnknownJobType.
        """
        return await self._fetch(settings.get_job_queue_stats(since, job_type), connection)

    async def recount_stats(self, *, connection: Connection | None = None) -> JobsRecounted:
        """Count every job anew, and return what the statistics had wrong: rows were changed past the functions.

        Reads the whole queue; for the service.
        """
        return await self._fetch(settings.recount_stats(), connection)

    async def workers(self, *, connection: Connection | None = None) -> Workers:
        """The workers there are, dead ones until their jobs were taken back; for the service."""
        return await self._fetch(settings.get_workers(), connection)

    async def explain_wait(
        self, job_id: Id, *, user_id: Id | None = None, connection: Connection | None = None
    ) -> WaitReasons:
        """Why a job is not running, what must happen first at the top. Raises JobNotFound."""
        return await self._fetch(operations.explain_job_wait(job_id, user_id), connection)

    async def pause(
        self,
        *,
        job_type: JobType[Any, Any] | str | None = None,
        user_id: Id | None = None,
        reason: str | None = None,
        connection: Connection | None = None,
    ) -> bool:
        """Let no job of a type, or of a user, or no job at all, be started from now on; what runs goes on.

        Returns whether it was not paused before. For the service. Raises UnknownJobType, InvalidArgument.
        """
        return await self._fetch(operations.pause_jobs(job_type, user_id, reason), connection)

    async def resume(
        self,
        *,
        job_type: JobType[Any, Any] | str | None = None,
        user_id: Id | None = None,
        connection: Connection | None = None,
    ) -> bool:
        """Take back ``pause()`` with the same arguments; returns whether it was paused. For the service."""
        return await self._fetch(operations.resume_jobs(job_type, user_id), connection)

    async def pauses(self, *, connection: Connection | None = None) -> Pauses:
        """What is paused; for the service."""
        return await self._fetch(operations.get_pauses(), connection)

    async def maintenance(self, *, connection: Connection | None = None) -> DutyStates:
        """Every duty of maintenance, how its last run ended, and which process leads; for the service."""
        return await self._fetch(operations.get_maintenance(), connection)

    async def maintenance_runs(
        self, duty: str | None = None, *, limit: int = 50, connection: Connection | None = None
    ) -> DutyRuns:
        """What maintenance did, newest first; for the service."""
        return await self._fetch(operations.get_maintenance_runs(duty, limit), connection)

    async def set_maintenance_duty(
        self,
        duty: str,
        *,
        schedule: str | None = None,
        enabled: bool | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Change when a duty runs (cron in UTC, or ``every 30 seconds``; "": as usual), or whether. For the service."""
        await self._fetch(operations.set_maintenance_duty(duty, schedule, enabled), connection)

    async def reports(
        self, kind: str = "weekly", *, limit: int = 1, connection: Connection | None = None
    ) -> Reports:
        """The ``weekly`` or ``monthly`` reports that maintenance made, newest first; for the service."""
        return await self._fetch(operations.get_reports(kind, limit), connection)

    async def slow_statements(
        self, *, limit: int = 20, connection: Connection | None = None
    ) -> SlowStatements:
        """The statements on the queue that took the most time, by pg_stat_statements; for the service."""
        return await self._fetch(operations.get_slow_statements(limit), connection)

    async def register(self, *job_types: JobType[Any, Any], connection: Connection | None = None) -> None:
        """Register job types, or change their settings; for the service. A worker does it when it starts."""
        for job_type in listed(job_types):
            await self._fetch(settings.register_job_type(job_type), connection)

    async def set_user_limit(
        self, user_id: Id, max_live_jobs: int | None, *, connection: Connection | None = None
    ) -> None:
        """Set how many live jobs a user may have; None goes back to the default (10). For the service."""
        await self._fetch(settings.set_user_limit(user_id, max_live_jobs), connection)

    async def _fetch(self, statement: Statement[T], connection: Connection | None) -> T:
        return await self._run(partial(_execute, statement), connection)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], connection: Connection | None) -> T:
        if connection is not None:
            with translated():
                return await work(connection)
        try:
            return await self._run_on_pool(work)
        except PartitionMissing as missing:
            try:
                await self._run_on_pool(partial(_execute, settings.ensure_partitions()))
            except NotAllowed:
                raise missing from None
            return await self._run_on_pool(work)

    async def _run_on_pool(
        self, work: Callable[[Connection], Awaitable[T]], patience: float | None = None
    ) -> T:
        """``patience``: seconds to wait for a connection, in place of pool_timeout."""
        pool = self._pool or await self._opened()
        with translated(pool.url):
            # Not pool.connection(): a call is one statement, or has a transaction of its own, so there is nothing
            # to commit. putconn() rolls back what was left open.
            connection = await self._connection(pool, patience)
            try:
                return await work(connection)
            finally:
                await pool.putconn(connection)

    async def _connection(self, pool: AsyncPool, patience: float | None) -> Connection:
        """One of the pool's. Raises DatabaseUnreachable, which says why there is none."""
        seconds = pool.timeout if patience is None else patience
        try:
            return await pool.getconn(seconds)
        except PoolTimeout:
            if pool.is_full:
                raise shared.all_in_use(pool.max_size, seconds) from None
        await pool.probe()
        # It is back: so will the pool's connection be in a moment.
        try:
            return await pool.getconn(seconds)
        except PoolTimeout:
            raise shared.none_made(pool.url, seconds) from None

    async def _opened(self) -> AsyncPool:
        async with self._opening:
            if self._pool is None:
                if self._dsn is None:
                    self._dsn = await asyncio.to_thread(shared.find_dsn)
                pool = AsyncPool(self._dsn, **self._pool_options)
                await pool.probe()
                await pool.open()
                self._pool = pool
            return self._pool


async def _execute(statement: Statement[T], connection: Connection) -> T:
    cursor = connection.cursor(row_factory=tuple_row, binary=shared.reads_binary(connection))
    await cursor.execute(statement.text, statement.params)
    return statement.decode(await cursor.fetchall())


async def _create(batch: bulk.Batch, connection: Connection) -> list[BulkOutcome]:
    if shared.needs_transaction(connection):
        async with connection.transaction():
            return await _create(batch, connection)
    await _copy(batch, connection)
    return await _execute(batch.create, connection)


async def _create_alone(
    batch: bulk.Batch, batches: bulk.Batches, connection: Connection
) -> list[BulkOutcome]:
    """In a transaction of its own. While the server makes the jobs, the next batch is prepared.

    COMMIT is sent along, so that no transaction waits for the validators of anybody's params.
    """
    await connection.execute("BEGIN", prepare=False)
    await _copy(batch, connection)
    cursor = connection.cursor(row_factory=tuple_row, binary=True)
    async with connection.pipeline():
        await cursor.execute(batch.create.text, batch.create.params)
        await connection.execute("COMMIT", prepare=False)
        batches.prepare()
        return batch.create.decode(await cursor.fetchall())


async def _copy(batch: bulk.Batch, connection: Connection) -> None:
    async with connection.cursor() as cursor, cursor.copy(bulk.COPY) as copy:
        for row in batch.rows:
            await copy.write_row(row)
