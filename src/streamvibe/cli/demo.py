"""``streamvibe demo``: a real job all the way through, each step checked."""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamvibe.cli.platform import platform
from streamvibe.client import Client
from streamvibe.config import Settings
from streamvibe.db.embedded import database_url
from streamvibe.db.migrate import migrate
from streamvibe.errors import JobNotFound, LimitReached, NotAllowed
from streamvibe.jobtype import JobType
from streamvibe.masking import mask_url
from streamvibe.model import Job, Outcome
from streamvibe.worker import Worker

LOCAL_CHANNEL = "@harbourlanekitchen"
GOOGLE_CHANNEL = "@GoogleDevelopers"
#: Against Google the demo stays small: every 50 videos cost two units of the day's quota.
GOOGLE_VIDEOS = 200
#: The local YouTube answers this slowly, so that there is a progress bar to watch.
LOCAL_DELAY_SECONDS = 0.2


EXAMPLE_USER = "018f0000-0000-7000-8000-000000000001"


class StepError(Exception):
    """A step did not do what it says."""


def demo_command() -> None:
    """Watch a real job being requested, joined, run, cached, limited, logged and kept private; under a minute."""
    started = time.monotonic()
    screen = Console(highlight=False)
    settings = Settings()
    try:
        asyncio.run(_Demo(screen, settings).run())
    except StepError as failure:
        screen.print(f"\n[bold red]The demo failed:[/] {failure}")
        raise typer.Exit(1) from None
    screen.print(f"\n[bold green]Every step did what it says[/], in {time.monotonic() - started:.1f} s.")
    program = escape(_program())
    screen.print(
        f"Next: [bold]{program} up[/] in one terminal, and in another, with any id for a user:\n"
        f"[bold]{program} jobs request sync_youtube --user {EXAMPLE_USER} --params"
        """ '{"social_account_id": "@harbourlanekitchen"}' --wait[/]""",
        soft_wrap=True,
    )
    if settings.database_url is None:
        screen.print(f"PostgreSQL keeps running; [bold]{program} db stop[/] ends it.", soft_wrap=True)


def _program() -> str:
    """What to type for ``streamvibe`` in this terminal: where it is not on PATH, its path."""
    if shutil.which("streamvibe") is not None:
        return "streamvibe"
    path = Path(sys.executable).with_name("streamvibe")
    if not path.exists():
        return f"{sys.executable} -m streamvibe"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class _Demo:
    def __init__(self, screen: Console, settings: Settings) -> None:
        self._screen = screen
        self._settings = settings
        # New users each time, so that nothing of an earlier run is joined or cached.
        self._alice, self._bob = uuid4(), uuid4()
        self._step_number = 0

    async def run(self) -> None:
        self._step("A PostgreSQL of its own, and the schema in it")
        dsn = await asyncio.to_thread(database_url, self._settings)
        report = await asyncio.to_thread(migrate, dsn)
        self._say(f"PostgreSQL {report.server_version} at {mask_url(dsn)}")
        self._say(
            f"{len(report.applied)} files applied, {len(report.partitions)} partitions made"
            if report.applied
            else "the schema is up to date"
        )
        async with (
            platform(dsn, self._settings, delay_seconds=LOCAL_DELAY_SECONDS) as ours,
            Client(dsn) as client,
        ):
            self._client = client
            self._dsn = dsn
            sync = ours.job_types[0]
            params = (
                {"social_account_id": LOCAL_CHANNEL}
                if ours.is_local
                else {"social_account_id": GOOGLE_CHANNEL, "max_videos": GOOGLE_VIDEOS}
            )
            self._say(
                f"YouTube: a local one with packaged channels at {ours.youtube_url} (no STREAMVIBE_YOUTUBE_API_KEY)"
                if ours.is_local
                else f"YouTube: {ours.youtube_url}"
            )
            job_id = await self._request(sync, params)
            await self._join(sync, params, job_id)
            await self._work(sync, job_id)
            await self._cached(sync, params, job_id)
            await self._limit(sync)
            await self._logs(job_id)
            await self._other_user(job_id)
            await self._stats()

    async def _request(self, sync: JobType[Any, Any], params: dict[str, Any]) -> UUID:
        self._step(f"Alice asks for {sync.name} of {params['social_account_id']}")
        self._say(f"her user id  {self._alice}")
        asked = await self._client.request(sync, params, user_id=self._alice)
        self._say(f"[bold]{asked.outcome}[/]  job {asked.job_id}  {asked.status}")
        self._check(asked.outcome is Outcome.CREATED, f"a new request was {asked.outcome}, not created")
        return asked.job_id

    async def _join(self, sync: JobType[Any, Any], params: dict[str, Any], job_id: UUID) -> None:
        self._step("She clicks again: the same work is not done twice")
        asked = await self._client.request(sync, params, user_id=self._alice)
        self._say(f"[bold]{asked.outcome}[/]   job {asked.job_id}  {asked.status}")
        self._check(asked.outcome is Outcome.JOINED, f"a second request was {asked.outcome}, not joined")
        self._check(asked.job_id == job_id, "the second request joined another job")

    async def _work(self, sync: JobType[Any, Any], job_id: UUID) -> None:
        self._step("A worker runs it")
        async with self._worker(sync):
            job = await self._watch(job_id)
        self._check(job.status == "completed", f"the job is {job.status}: {job.error_message}")
        result = job.result
        self._check(result["videos_synced"] > 0, "no video was synced")
        self._say(
            f"{result['videos_synced']} videos of {result['title']!r} in {result['pages']} pages, "
            f"{result['quota_units']} quota units, attempt {job.retry_count + 1}"
        )
        if job.started_at is not None and job.completed_at is not None:
            waited = (job.started_at - job.scheduled_for).total_seconds()
            ran = (job.completed_at - job.started_at).total_seconds()
            self._say(f"waited {waited:.2f} s, ran {ran:.2f} s on {job.worker_id}")

    @asynccontextmanager
    async def _worker(self, sync: JobType[Any, Any]) -> AsyncIterator[None]:
        worker = Worker(self._dsn, [sync])
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.stop()
            await running

    async def _watch(self, job_id: UUID) -> Job:
        columns = (TextColumn("   {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._screen, disable=not self._screen.is_terminal) as progress:
            bar = progress.add_task("waiting", total=1.0)
            while True:
                job = await self._client.get(job_id, user_id=self._alice)
                shown = str(job.status) if job.is_over else job.progress_message or str(job.status)
                progress.update(bar, completed=1.0 if job.is_over else job.progress or 0.0, description=shown)
                if job.is_over:
                    if not self._screen.is_terminal:
                        self._say(shown)
                    return job
                await asyncio.sleep(0.1)

    async def _cached(self, sync: JobType[Any, Any], params: dict[str, Any], job_id: UUID) -> None:
        self._step("She asks once more: the answer is there already")
        started = time.monotonic()
        asked = await self._client.request(sync, params, user_id=self._alice)
        took = (time.monotonic() - started) * 1000
        age = asked.result_age.total_seconds() if asked.result_age is not None else 0.0
        self._say(
            f"[bold]{asked.outcome}[/]   job {asked.job_id}  {age:.2f} s old, in {took:.1f} ms, no quota spent"
        )
        self._check(asked.outcome is Outcome.CACHED, f"a third request was {asked.outcome}, not cached")
        self._check(asked.job_id == job_id and asked.result is not None, "the cached result is another job's")

    async def _limit(self, sync: JobType[Any, Any]) -> None:
        self._step("Ten live jobs are her limit")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        made = [
            await self._client.request(
                sync, {"social_account_id": f"@channel{number}"}, user_id=self._alice, scheduled_for=tomorrow
            )
            for number in range(1, 11)
        ]
        self._check(
            all(asked.outcome is Outcome.CREATED for asked in made), "one of ten jobs was not created"
        )
        self._say(f"10 more created for tomorrow, the last is {made[-1].job_id}")
        try:
            eleventh = await self._client.request(
                sync, {"social_account_id": "@channel11"}, user_id=self._alice
            )
        except LimitReached as refusal:
            self._say(f"the eleventh: [bold]refused[/] ({refusal.sqlstate}) {refusal.message}")
            self._say(f"[dim]{escape(str(refusal.fix))}[/]")
        else:
            raise StepError(f"an eleventh live job was {eleventh.outcome}")
        cancelled = await self._client.cancel([asked.job_id for asked in made], user_id=self._alice)
        self._check(
            all(change.outcome == "cancelled" for change in cancelled), "a pending job was not cancelled"
        )
        self._say("10 cancelled again")

    async def _logs(self, job_id: UUID) -> None:
        self._step("The job's log, newest first, in pages of five")
        cursor: str | None = None
        lines = pages = 0
        while True:
            page = await self._client.logs(job_id, user_id=self._alice, limit=5, cursor=cursor)
            pages += 1
            for line in page.items:
                self._say(f"[dim]{line.created_at:%H:%M:%S.%f}[/] {line.log_level:7} {escape(line.message)}")
            lines += len(page.items)
            if not page.has_more:
                break
            cursor = page.next_cursor
            self._say(f"[dim]next page: {cursor}[/]")
        self._check(lines > 5 and pages == -(-lines // 5), f"{lines} lines came in {pages} pages")

    async def _other_user(self, job_id: UUID) -> None:
        self._step("Bob, signed in with a token of his own, sees none of it")
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            await connection.execute("SET ROLE authenticated")
            claims = orjson.dumps({"sub": str(self._bob), "role": "authenticated"}).decode()
            await connection.execute("SELECT set_config('request.jwt.claims', %s, false)", (claims,))
            cursor = await connection.execute(
                "SELECT (SELECT count(*) FROM job_queue), (SELECT count(*) FROM job_log),"
                " (SELECT count(*) FROM get_user_jobs(auth.uid()))"
            )
            seen = await cursor.fetchone()
            self._say(f"rows in job_queue, job_log and his own list: {seen}")
            self._check(seen == (0, 0, 0), "Bob sees rows that are not his")
            try:
                await self._client.get(job_id, connection=connection)
            except JobNotFound as error:
                self._say(f"Alice's job: [bold]{error.message}[/]")
            else:
                raise StepError("Bob can read Alice's job")
            try:
                await self._client.list(self._alice, connection=connection)
            except NotAllowed as error:
                self._say(f"Alice's list: [bold]{error.message}[/] ({error.sqlstate})")
            else:
                raise StepError("Bob can read Alice's list")

    async def _stats(self) -> None:
        self._step("The queue in one row")
        stats = await self._client.stats()
        self._say(
            f"{stats.total_jobs} jobs: {stats.pending_jobs} pending, {stats.processing_jobs} processing, "
            f"{stats.completed_jobs} completed, {stats.failed_jobs} failed, {stats.cancelled_jobs} cancelled"
        )
        self._check(
            stats.completed_jobs >= 1 and stats.cancelled_jobs >= 10, "the statistics miss what happened"
        )

    def _step(self, title: str) -> None:
        self._step_number += 1
        self._screen.print(f"\n[bold cyan]{self._step_number}. {title}[/]")

    def _say(self, text: str) -> None:
        self._screen.print(f"   {text}", soft_wrap=True)

    @staticmethod
    def _check(holds: bool, otherwise: str) -> None:
        if not holds:
            raise StepError(otherwise)
