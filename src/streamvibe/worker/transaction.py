"""Runs the jobs of one claim after another, in one transaction with their ends.

BEGIN, hold the claim ─▶ savepoint 1 ─▶ handler ─▶ savepoint 2 ─▶ handler ─▶ … ─▶ lines, ends ─▶ COMMIT

The savepoints of handlers that succeeded stay open until their completion is accepted: if one is refused (its job was
cancelled), the transaction goes back to before that handler, keeps what came before and runs again what came after.
Whatever goes wrong with several jobs goes back to the start, and each has a transaction of its own: so it meets the one
whose fault it was.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import psycopg

from streamvibe.errors import InvalidArgument, PayloadTooLarge, StreamVibeError, translated
from streamvibe.eventlog import event_logger
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, LogLine
from streamvibe.worker.execute import describe
from streamvibe.worker.flush import MAX_ITEMS, End, failure
from streamvibe.worker.holding import STOP_PATIENCE_SECONDS, Holding
from streamvibe.worker.job_connection import JobConnection

log = event_logger("streamvibe.worker")

#: After so long no further handler is started in the transaction: those that are done wait for its commit. Where
#: beginning and committing take longer than that, as on a busy machine, waiting for others costs less than they do.
FULL_SECONDS = 0.015
LONGEST_FULL_SECONDS = 0.1

_IN_TRANSACTION, _IN_ERROR = psycopg.pq.TransactionStatus.INTRANS, psycopg.pq.TransactionStatus.INERROR


class Lost(Exception):  # noqa: N818 - what happened
    """The connection or the claim is gone, and with it whatever was not committed."""


class Spoiled(Exception):  # noqa: N818 - what happened
    """A handler ended the transaction, or did not let go of it: what the others did is rolled back."""

    def __init__(self, end: End) -> None:
        super().__init__(describe(RuntimeError(end.payload)))
        self.end = end


class ClaimRunner:
    """Runs claims on a connection of its own. Not for concurrent use."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[JobConnection]],
        worker_id: str,
        holding: Holding,
        is_stopping: Callable[[], bool],
        on_left: Callable[[End], None],
    ) -> None:
        """``on_left``: takes ends whose rows others have locked; their jobs are then held like ordinary ones."""
        self._connect = connect
        self._worker_id = worker_id
        self._quoted_id = "E'" + worker_id.replace("\\", "\\\\").replace("'", "''") + "'"
        self._holding = holding
        self._is_stopping = is_stopping
        self._on_left = on_left
        self._connection: JobConnection | None = None
        #: Seconds that the handlers of the last claim took, and how many were started.
        self.seconds, self.started = 0.0, 0
        self._overhead = 0.0  # seconds that the last claim's transactions took beside its handlers
        # Of the claim that is being run:
        self._token = 0
        self._waiting: dict[ClaimedJob, None] = {}  # has not ended yet, in order
        self._decided: dict[ClaimedJob, End] = {}  # how some of them end, without being run
        self._busy: list[End] = []  # others have these jobs' rows locked

    async def run(self, jobs: Sequence[ClaimedJob]) -> None:
        """Run a claim's jobs to their ends. Jobs of what breaks are forgotten: they come back by themselves."""
        self._token = jobs[0].token
        self._waiting = dict.fromkeys(jobs)
        self._decided, self._busy = {}, []
        self.seconds, self.started = 0.0, 0
        began = asyncio.get_running_loop().time()
        together = True
        try:
            while self._waiting:
                if self._is_stopping():
                    for job in self._waiting:
                        self._decided.setdefault(job, End(job, "released", None))
                    together = True
                await self._transaction(list(islice(self._waiting, None if together else 1)))
                together = False
        except Lost as error:
            log.warning("transaction_lost", jobs=len(self._waiting) + len(self._busy), error=str(error))
            await self.close()
        except BaseException:
            await self.close()
            raise
        finally:
            self._overhead = asyncio.get_running_loop().time() - began - self.seconds
            left = {end.job for end in self._busy} if not self._waiting else set()
            for job in jobs:
                if job not in left:
                    self._holding.forget(job)
                    job.drop_outcome()

    async def hand_back(self, jobs: Sequence[ClaimedJob]) -> None:
        """End a claim without running its jobs."""
        for job in jobs:
            self._holding.report(job, End(job, "released", None))
        await self.run(jobs)

    @property
    def full_seconds(self) -> float:
        """How long handlers are started in one transaction."""
        return max(FULL_SECONDS, min(self._overhead, LONGEST_FULL_SECONDS))

    async def connection(self) -> JobConnection:
        """The open connection. Raises DatabaseUnreachable."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
        return self._connection

    async def close(self) -> None:
        """Close the connection; what is not committed is rolled back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.end()

    # One transaction

    async def _transaction(self, jobs: Sequence[ClaimedJob]) -> None:
        """Run these jobs and commit, or note who ends how in the next transaction. Raises Lost."""
        batch = _Batch()
        try:
            connection = await self._begin()
            try:
                await self._run_handlers(connection, jobs, batch)
                await self._write(connection, batch)
                batch.is_written = True
                await connection.send("RELEASE SAVEPOINT streamvibe_0; COMMIT")
            except (psycopg.Error, StreamVibeError) as error:
                if connection.closed:
                    raise Lost(str(error)) from error
                await connection.send("ROLLBACK")
                self._note_error(jobs, batch, error)
                self._undone(batch)
                return
            except Spoiled as spoiled:
                log.warning("transaction_spoiled", job_id=spoiled.end.job.key, others=len(jobs) - 1)
                self._decided[spoiled.end.job] = spoiled.end
                self._undone(batch)
                await self.close()
                return
        except psycopg.Error as error:  # the first or the last word on this connection
            raise Lost(str(error)) from error
        for end in batch.ended:
            self._waiting.pop(end.job, None)
        self._busy += batch.busy
        for end in batch.busy:
            self._waiting.pop(end.job, None)
        if not self._waiting:
            for end in self._busy:
                self._on_left(end)

    def _note_error(self, jobs: Sequence[ClaimedJob], batch: "_Batch", error: Exception) -> None:
        if len(jobs) > 1:
            log.info("transaction_run_again", jobs=len(jobs), error=str(error))
            return
        [job] = jobs
        if job in self._decided:
            raise Lost(f"its end cannot be written: {error}") from error
        log.warning(
            "handler_failed",
            job_id=job.key,
            job_type=job.job_type,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            error=str(error),
        )
        refused = InvalidArgument | PayloadTooLarge | psycopg.DataError
        if not batch.is_written and isinstance(error, refused):
            kind, message = "invalid_result", f"the database refused the result: {error}"
        else:
            kind, message = "error", describe(error)
        job.note_failure(message)
        self._decided[job] = End(job, "failed", failure(kind, message, retryable=kind == "error"))

    def _undone(self, batch: "_Batch") -> None:
        """What these jobs did was rolled back."""
        for job in batch.ran:
            if job.stop is not None:  # nothing else would become of it
                end = job.outcome.result() if job.outcome is not None and job.outcome.done() else None
                self._decided.setdefault(job, end or End(job, "released", None))
            if job not in self._decided:
                job.run_again()
            elif lines := batch.lines.get(job):
                job.lines.put_back(lines)

    async def _begin(self) -> JobConnection:
        begin = (
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
            f"SELECT hold_claim({self._quoted_id}, {self._token}); SAVEPOINT streamvibe_0; SAVEPOINT streamvibe_1"
        )
        connection = await self.connection()
        try:
            row = await connection.send(begin)
        except psycopg.Error:
            if not connection.closed:
                raise
            # It broke while it was idle: nothing has run yet.
            connection = await self.connection()
            row = await connection.send(begin)
        if row != (True,):
            await connection.send("ROLLBACK")
            raise Lost("the claim is gone")
        return connection

    async def _run_handlers(
        self, connection: JobConnection, jobs: Sequence[ClaimedJob], batch: "_Batch"
    ) -> None:
        loop = asyncio.get_running_loop()
        began, full_seconds = loop.time(), self.full_seconds
        for job in jobs:
            decided = self._decided.get(job)
            if decided is not None:
                batch.others.append(decided)
                continue
            is_full = batch.ran and loop.time() - began > full_seconds
            # Reported: told to stop before it was started.
            if is_full or job.reported or self._is_stopping():
                batch.others.append(End(job, "released", None))
                continue
            batch.ran.append(job)
            await self._run_handler(connection, job, batch)
            self.started += 1
        self.seconds += loop.time() - began

    async def _run_handler(self, connection: JobConnection, job: ClaimedJob, batch: "_Batch") -> None:
        assert job.outcome is not None
        job.lend(connection)
        self._holding.start([job])
        try:
            end = await asyncio.shield(job.outcome)
            assert job.task is not None
            if not job.task.done():
                await asyncio.wait([job.task], timeout=STOP_PATIENCE_SECONDS)
        finally:
            job.lend(None)
        if end is None or connection.closed:
            raise Lost("the connection or the lease is lost")
        status = connection.pgconn.transaction_status
        if not job.task.done() or status not in (_IN_TRANSACTION, _IN_ERROR) or connection._pipeline:
            is_told = job.stop is not None or not job.task.done()
            raise Spoiled(end if is_told else _ended_itself(job))
        here = len(batch.kept) + 1
        if end.kind == "completed" and status != _IN_ERROR:
            batch.kept.append(end)
            await connection.clean(then=f"SAVEPOINT streamvibe_{here + 1}")
            return
        await connection.clean(first=f"ROLLBACK TO SAVEPOINT streamvibe_{here};")
        if batch.kept and job.stop is None and (end.is_of_database or status == _IN_ERROR):
            # Such as a deadlock, which is the whole transaction's: it is this job's if it meets it alone.
            job.run_again()
            return
        if end.kind == "completed":
            message = "the handler returned after an error of the database that had ended its transaction"
            end = End(job, "failed", failure("error", message, retryable=True))
        batch.others.append(end)

    # Their ends

    async def _write(self, connection: JobConnection, batch: "_Batch") -> None:
        batch.lines = {end.job: _lines_of(end.job) for end in batch.ended}
        while True:
            lines = [line for lines in batch.lines.values() for line in lines]
            for start in range(0, len(lines), MAX_ITEMS):
                await self._write_lines(connection, lines[start : start + MAX_ITEMS])
            refused = await self._complete(connection, batch.kept)
            if not refused:
                break
            first = min(batch.kept.index(end) for end in refused)
            await connection.send(f"ROLLBACK TO SAVEPOINT streamvibe_{first + 1}")
            for end in batch.kept[first:]:
                if end in refused:  # cancelled, or somebody is about to
                    batch.others.append(End(end.job, "released", None))
                else:
                    del batch.lines[end.job]
                    end.job.run_again()
            del batch.kept[first:]
        for kind in ("failed", "released"):
            await self._write_others(connection, batch, [end for end in batch.others if end.kind == kind])
        left = self._waiting.keys() - {end.job for end in batch.ended}
        if left or batch.busy or self._busy:
            busy = {end.job for end in batch.busy}
            values = (self._worker_id, self._token, bool(left - busy))
            await connection.fetch(statements.KEEP_CLAIM, values)

    async def _complete(self, connection: JobConnection, ends: Sequence[End]) -> list[End]:
        if not ends:
            return []
        values = (
            *self._columns(ends),
            statements.documents([end.payload for end in ends]),
            statements.moments([end.job.started_epoch for end in ends]),
        )
        with translated():
            rows = await connection.fetch(statements.COMPLETE, values)
        refused = {row[0] for row in rows}
        return [end for end in ends if end.job.key in refused]

    async def _write_others(self, connection: JobConnection, batch: "_Batch", ends: Sequence[End]) -> None:
        if not ends:
            return
        columns = self._columns(ends)
        with translated():
            if ends[0].kind == "failed":
                documents = statements.documents([end.payload for end in ends])
                moments = statements.moments([end.job.started_epoch for end in ends])
                rows = await connection.fetch(statements.FAIL, (*columns, documents, moments))
                busy = {row[0] for row in rows if row[2] == "busy"}
            else:
                rows = await connection.fetch(statements.RELEASE, columns)
                busy = {row[0] for row in rows if row[1] == "busy"}
        batch.busy += [end for end in ends if end.job.key in busy]
        batch.others = [end for end in batch.others if end.job.key not in busy]

    def _columns(self, ends: Sequence[End]) -> tuple[str, str, str]:
        tokens = statements.array(end.job.token for end in ends)
        return self._worker_id, tokens, statements.array(end.job.key for end in ends)

    async def _write_lines(self, connection: JobConnection, lines: Sequence[LogLine]) -> None:
        """Write the lines; those that the database refuses are left out, as an ordinary job's are."""
        await connection.send("SAVEPOINT streamvibe_lines")
        try:
            await connection.fetch(
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
        except psycopg.Error as error:
            if connection.closed:
                raise
            await connection.send("ROLLBACK TO SAVEPOINT streamvibe_lines")
            if len(lines) == 1:
                log.error("log_line_refused", job_id=lines[0].job.key, error=str(error))
                return
            middle = len(lines) // 2
            await self._write_lines(connection, lines[:middle])
            await self._write_lines(connection, lines[middle:])
        else:
            await connection.send("RELEASE SAVEPOINT streamvibe_lines")


class _Batch:
    """What one transaction has done so far."""

    def __init__(self) -> None:
        self.ran: list[ClaimedJob] = []
        self.kept: list[End] = []  # completed; the n-th one's writes are behind savepoint n
        self.others: list[End] = []  # failed or released; nothing of theirs is left
        self.busy: list[End] = []
        self.lines: dict[ClaimedJob, list[LogLine]] = {}
        self.is_written = False

    @property
    def ended(self) -> list[End]:
        return self.kept + self.others


def _ended_itself(job: ClaimedJob) -> End:
    message = (
        "the handler ended the transaction, or was still using its connection when it returned: both are the "
        "worker's. Do not COMMIT or ROLLBACK; await everything; connection.transaction() makes a savepoint."
    )
    return End(job, "failed", failure("permanent", message, retryable=False))


def _lines_of(job: ClaimedJob) -> list[LogLine]:
    lines: list[LogLine] = []
    while job.has_lines:
        lines += job.lines.take(job, MAX_ITEMS)
    return lines
