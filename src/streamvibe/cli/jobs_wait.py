"""Watching a job while a command waits for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamvibe.cli.output import error_console
from streamvibe.model import Job


@contextmanager
def watching(*, quiet: bool) -> Iterator[Callable[[Job], None]]:
    """Gives a function that shows a job as it stands, on standard error.

    A progress bar on a terminal, elsewhere a line whenever something changed; nothing when ``quiet``.
    """
    screen = error_console()
    if quiet:
        yield lambda job: None
    elif screen.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task("pending", total=1.0)
            yield lambda job: bar.update(task, completed=job.progress or 0.0, description=_state(job))
    else:
        shown = ""

        def show(job: Job) -> None:
            nonlocal shown
            line = _state(job) + (f" {job.progress:.0%}" if job.progress is not None else "")
            if line != shown:
                screen.print(line, markup=False)
                shown = line

        yield show


def _state(job: Job) -> str:
    return f"{job.status} {job.progress_message}" if job.progress_message else str(job.status)
