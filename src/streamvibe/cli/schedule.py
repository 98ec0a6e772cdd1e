"""``streamvibe maintain schedule``: the schedule of maintenance, and the same in pg_cron."""

from typing import Annotated

import psycopg
import typer

from streamvibe.cli.duties import duties
from streamvibe.cli.output import AsJson, database_dsn, print_hint, print_json, print_rows
from streamvibe.client import SyncClient
from streamvibe.errors import InvalidArgument, translated
from streamvibe.maintenance.pg_cron import (
    CronJob,
    LeftOut,
    find_pg_cron,
    plan,
    usable_version,
    write_schedule,
)
from streamvibe.masking import mask_url


def schedule_command(
    pg_cron: Annotated[
        bool, typer.Option("--pg-cron", help="Let pg_cron run what it can, in this database.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="With --pg-cron: take all of it away again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print when each duty runs; with --pg-cron write that into cron.job, for the duties that are one statement.

    Run it again after `streamvibe maintain set`. The other duties need a process: `streamvibe maintain run`. Both may
    run beside each other.

    JSON: items (duty, schedule; null: disabled); with --pg-cron items (duty, schedule, command, outcome: created,
    changed, unchanged or removed) and left_out (duty, reason).
    """
    if remove and not pg_cron:
        raise InvalidArgument(
            "it is not clear what is to be removed",
            field="--remove",
            received="--remove without --pg-cron",
            fix="Add --pg-cron; a duty of a process is disabled with `streamvibe maintain set DUTY --disable`",
        )
    dsn = database_dsn()
    all_duties = duties(dsn)
    with SyncClient(dsn, max_size=1) as client:
        states = client.maintenance()
    schedules: dict[str, str | None] = {duty.name: duty.schedule for duty in all_duties}
    schedules |= {state.duty: state.schedule if state.enabled else None for state in states}
    if not pg_cron:
        _print_schedules(schedules, as_json)
        return
    left_out: list[LeftOut] = []
    jobs: list[CronJob] = []
    with translated(mask_url(dsn)), psycopg.connect(dsn, autocommit=True) as conn:
        version = usable_version(find_pg_cron(conn))
        if not remove:
            jobs, left_out = plan(all_duties, schedules, version)
        written = write_schedule(conn, jobs)
    if as_json:
        print_json({"items": written, "left_out": left_out})
        return
    print_rows(
        ("duty", "in pg_cron", "schedule"),
        ((one.duty, one.outcome, one.schedule) for one in written),
    )
    for one in left_out:
        print_hint(f"{one.duty} is not for pg_cron: {one.reason}.")
    if left_out:
        print_hint("What pg_cron cannot run needs a process: `streamvibe up` or `streamvibe maintain run`.")
    elif not written:
        print_hint("There was nothing of ours in pg_cron.")


def _print_schedules(schedules: dict[str, str | None], as_json: bool) -> None:
    if as_json:
        print_json({"items": [{"duty": name, "schedule": schedule} for name, schedule in schedules.items()]})
        return
    print_rows(("duty", "schedule"), ((name, schedule or "disabled") for name, schedule in schedules.items()))
