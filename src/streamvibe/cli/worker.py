"""``streamvibe worker`` and ``streamvibe up``: what runs until Ctrl-C."""

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Annotated, Any

import typer
from uvloop import new_event_loop

from streamvibe.cli.app_loader import load_job_types
from streamvibe.cli.duties import duties
from streamvibe.cli.leaving import Leaving
from streamvibe.cli.metrics import MetricsPort, metrics_served
from streamvibe.cli.output import database_dsn, print_remark
from streamvibe.cli.platform import platform
from streamvibe.client import Client
from streamvibe.config import Settings
from streamvibe.db.migrate import LedgerUnreadable, migrate
from streamvibe.jobtype import JobType
from streamvibe.maintenance import Maintenance
from streamvibe.masking import mask_url
from streamvibe.worker import Worker

App = Annotated[
    list[str] | None,
    typer.Option(
        "--app", help="Job types of your own: package.module or package.module:attribute. May be repeated."
    ),
]
Concurrency = Annotated[int, typer.Option(min=1, max=10_000, help="How many handlers run at once.")]
Grace = Annotated[
    float,
    typer.Option(min=0, help="Seconds that running jobs may go on after Ctrl-C before they are handed back."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Also log every job that succeeds.")]


def worker_command(
    app: App = None,
    concurrency: Concurrency = 20,
    grace: Grace = 10.0,
    metrics_port: MetricsPort = None,
    verbose: Verbose = False,
) -> None:
    """Run jobs until Ctrl-C (SIGINT or SIGTERM): your own (--app), or the platform's.

    Ends with 1 when handlers that do not stop have taken every place for 30 seconds: let a supervisor start it again.
    """
    job_types = _job_types(app)
    _log(verbose)
    _run_until_stopped(database_dsn(), job_types, concurrency, grace, metrics_port, maintain=False)


def up_command(
    app: App = None,
    concurrency: Concurrency = 20,
    grace: Grace = 10.0,
    metrics_port: MetricsPort = None,
    verbose: Verbose = False,
) -> None:
    """Keep everything running until Ctrl-C: the database, its schema, a worker, and maintenance.

    A role that is the service but may not migrate can run it too: the schema is then used as it is.
    Ends with 1 when one of them cannot go on: let a supervisor start it again.
    """
    job_types = _job_types(app)
    _log(verbose)
    dsn = database_dsn()
    print_remark(f"Database: {mask_url(dsn)}")
    try:
        migrate(dsn, report=print_remark)
    except LedgerUnreadable as error:
        print_remark(
            f"The role {error.received} may not migrate, nor see what is pending: the schema is used as it is. "
            "After an upgrade, run `streamvibe migrate` as its owner."
        )
    _run_until_stopped(dsn, job_types, concurrency, grace, metrics_port, maintain=True)


def _log(verbose: bool) -> None:
    # On standard error; an application that configured logging when it was imported has its way.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A line of a kilobyte for every page of videos is not news.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if verbose:
        logging.getLogger("streamvibe.worker").setLevel(logging.DEBUG)


def _job_types(apps: list[str] | None) -> list[JobType[Any, Any]]:
    # Before anything is started for them. A module may be named twice, or be imported by another one.
    return list(dict.fromkeys(job_type for name in apps or [] for job_type in load_job_types(name)))


def _run_until_stopped(
    dsn: str,
    job_types: list[JobType[Any, Any]],
    concurrency: int,
    grace: float,
    metrics_port: int | None,
    *,
    maintain: bool,
) -> None:
    leaving = Leaving()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run(dsn, job_types, concurrency, grace, metrics_port, leaving, maintain=maintain))
    finally:
        leaving.done()


async def _run(
    dsn: str,
    job_types: list[JobType[Any, Any]],
    concurrency: int,
    grace: float,
    metrics_port: int | None,
    leaving: Leaving,
    *,
    maintain: bool,
) -> None:
    async with AsyncExitStack() as stack:
        if not job_types:
            ours = await stack.enter_async_context(platform(dsn, Settings()))
            job_types = ours.job_types
            if ours.is_local:
                print_remark(
                    "Without STREAMVIBE_YOUTUBE_API_KEY a local YouTube with packaged channels answers."
                )
        worker = Worker(dsn, job_types, concurrency=concurrency, grace=timedelta(seconds=grace))
        maintenance = Maintenance(dsn, duties=duties(dsn))
        loop = asyncio.get_running_loop()
        asked_to_stop = False

        def stop() -> None:
            nonlocal asked_to_stop
            print_remark(
                "Handing running jobs back now."
                if asked_to_stop
                else f"Stopping. Running jobs may go on for {grace:g} s; once more, and they are handed back now."
            )
            asked_to_stop = True
            worker.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        # What the worker does first, too: a database that cannot be used is an error before anything is said to run.
        async with Client(dsn, max_size=1) as client:
            await client.register(*job_types)
        stack.enter_context(metrics_served(dsn, metrics_port, worker.handlers_running))
        names = ", ".join(sorted(job_type.name for job_type in job_types))
        print_remark(f"Worker {worker.worker_id} runs {names}. Ctrl-C stops it.")
        if not logging.getLogger("streamvibe.worker").isEnabledFor(logging.DEBUG):
            print_remark("Jobs that succeed are not logged; with --verbose they are.")
        if not maintain:
            print_remark(
                "It does no maintenance (dead workers' jobs, retries): keep `streamvibe up` running somewhere."
            )
        maintaining = asyncio.create_task(maintenance.run()) if maintain else None
        if maintaining is not None:
            # It never ends by itself: without it nothing is taken back, retried or cleaned up.
            # A worker that stops already keeps its grace: told again, it would hand back at once.
            maintaining.add_done_callback(lambda _: None if asked_to_stop else worker.stop())
        status = 1
        try:
            await worker.run()
            if maintaining is None or not maintaining.done():
                status = 0
        finally:
            leaving.begin(status)
            maintenance.stop()
            if maintaining is not None:
                await maintaining
    print_remark("Stopped.")
