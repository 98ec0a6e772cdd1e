"""Watching a job while a command waits for it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamvibe.cli.output import error_console, print_hint, text
from streamvibe.client import SyncClient
from streamvibe.errors import DatabaseUnreachable, NotAllowed
from streamvibe.model import Job, JobStatus

#: A worker that lives takes a due job within a second or two, unless it is busy.
NO_WORKER_SECONDS = 3.0


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C within is raised by the function that this gives, between two looks; the second time, at once.

    Raised in the middle of a statement it can be lost, or leave a connection that says so.
    """
    interrupted = False

    def note(number: int, frame: object) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if (
        before is not signal.default_int_handler
    ):  # ignored, as in the background of a script, or somebody else's
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


class Watch:
    """Shows a job as it stands; says once that the database is away, and once that it is back."""

    def __init__(
        self, missed: "_MissingWorker", show: Callable[[Job], None], *, as_json: bool = False
    ) -> None:
        self._missed = missed
        self._show = show
        self._as_json = as_json
        self._is_away = False

    def look(self, job: Job) -> None:
        """This is how it stands."""
        if self._is_away:
            self._is_away = False
            print_hint("The database is back.", as_json=self._as_json)
        self._show(job)
        self._missed.look(job)

    def away(self) -> None:
        """The database could not be asked."""
        if not self._is_away:
            self._is_away = True
            print_hint("The database is away; waiting.", as_json=self._as_json)


@contextmanager
def watching(client: SyncClient, *, as_json: bool) -> Iterator[Watch]:
    """Gives what shows a job as it stands, on standard error.

    A progress bar on a terminal, elsewhere a line whenever something changed, nothing with --json; and once, whether
    nobody is there who would run it, and that the database is away.
    """
    missed = _MissingWorker(client, as_json=as_json)
    screen = error_console()
    if as_json:
        yield Watch(missed, lambda job: None, as_json=True)
    elif screen.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task("pending", total=1.0)

            def move(job: Job) -> None:
                bar.update(task, completed=job.progress or 0.0, description=state(job))

            yield Watch(missed, move)
    else:
        shown = ""

        def show(job: Job) -> None:
            nonlocal shown
            line = state(job) + (f" {job.progress:.0%}" if job.progress is not None else "")
            if line != shown:
                screen.print(line, markup=False)
                shown = line

        yield Watch(missed, show)


class _MissingWorker:
    """Says, once, that a due job stays pending because no live worker takes its type."""

    def __init__(self, client: SyncClient, *, as_json: bool) -> None:
        self._client = client
        self._as_json = as_json
        self._ask_at: float | None = time.monotonic() + NO_WORKER_SECONDS

    def look(self, job: Job) -> None:
        if self._ask_at is None or time.monotonic() < self._ask_at or not _is_due(job):
            return
        try:
            workers = self._client.workers()
        except DatabaseUnreachable:  # which the next look finds out
            return
        except NotAllowed:  # only the service may know
            self._ask_at = None
            return
        self._ask_at = None
        if not any(worker.takes(job.job_type) for worker in workers):
            print_hint(
                f"No live worker takes {job.job_type}: start one with `streamvibe up`, or for job types of your own "
                "`streamvibe up --app yourapp.jobs`",
                as_json=self._as_json,
            )


def _is_due(job: Job) -> bool:
    return job.status == JobStatus.PENDING and job.scheduled_for <= datetime.now(UTC)


def state(job: Job) -> str:
    """The job's status, with what it waits for or does."""
    if job.retry_at is not None:
        return f"{job.status}, will be retried after {text(job.retry_at)}"
    if job.status == JobStatus.PENDING and job.scheduled_for > datetime.now(UTC):
        verb = "will be retried at" if job.retry_count else "due at"
        return f"{job.status}, {verb} {text(job.scheduled_for)}"
    if job.progress_message and not job.is_over:
        return f"{job.status}: {job.progress_message}"
    return str(job.status)
