"""``streamvibe maintain``: what keeps the queue healthy by itself; ``pause`` and ``resume``."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from streamvibe.cli.duties import duties
from streamvibe.cli.group import Commands
from streamvibe.cli.leaving import Leaving
from streamvibe.cli.metrics import MetricsPort, metrics_served
from streamvibe.cli.output import (
    AsJson,
    database_dsn,
    print_hint,
    print_if_empty,
    print_json,
    print_remark,
    print_rows,
    text,
)
from streamvibe.client import SyncClient
from streamvibe.errors import InvalidArgument
from streamvibe.maintenance import Maintenance, check_schedule
from streamvibe.model import DutyState

maintain_app = typer.Typer(cls=Commands, no_args_is_help=True, help="What keeps the queue healthy by itself.")

Duty = Annotated[str | None, typer.Argument(metavar="DUTY", help="Only this one.")]
JobType = Annotated[str | None, typer.Option("--type", help="Jobs of this type.")]
User = Annotated[str | None, typer.Option("--user", help="Jobs of this user (UUID).")]
Everything = Annotated[bool, typer.Option("--all", help="Every job.")]


@maintain_app.command("run")
def run_command(metrics_port: MetricsPort = None) -> None:
    """Do maintenance until Ctrl-C, without running jobs. `streamvibe up` does it, too; of many one leads at a time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    dsn = database_dsn()

    leaving = Leaving()

    async def run() -> None:
        maintenance = Maintenance(dsn, duties=duties(dsn))

        def stop() -> None:
            leaving.begin(0, "Stopped. What was under way is done again by whoever leads next.")
            maintenance.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        print_remark("Maintenance runs while this process leads. Ctrl-C stops it.")
        await maintenance.run()

    try:
        with metrics_served(dsn, metrics_port):
            asyncio.run(run())
    finally:
        leaving.done()
    print_remark("Stopped.")


@maintain_app.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Show every duty: when it runs, and how its last run ended. Ends with 1 when nobody leads, or one has failed.

    JSON: leader_id, led_since, leader_is_alive; duties (duty, state, schedule, enabled, running_since, last_started_at,
    last_ended_at, last_done, last_error).
    """
    with SyncClient(database_dsn(), max_size=1) as client:
        duties = client.maintenance()
    leader = duties[0] if duties and duties[0].leader_is_alive else None
    if as_json:
        shown = [
            {name: getattr(duty, name) for name in DutyState.__slots__ if name not in _LEADER}
            for duty in duties
        ]
        print_json(
            {
                "leader_id": leader and leader.leader_id,
                "led_since": leader and leader.led_since,
                "leader_is_alive": leader is not None,
                "duties": shown,
            }
        )
    else:
        print_rows(
            ("duty", "state", "schedule", "last run", "done", "error"),
            (
                (duty.duty, duty.state, duty.schedule, duty.last_started_at, duty.last_done, duty.last_error)
                for duty in duties
            ),
        )
        if leader is not None:
            print_hint(f"{leader.leader_id} leads since {text(leader.led_since)}.")
        else:
            print_hint("Nobody does maintenance: run `streamvibe up` or `streamvibe maintain run`.")
    if leader is None or any(duty.enabled and duty.last_error for duty in duties):
        raise typer.Exit(1)


_LEADER = ("leader_id", "led_since", "leader_is_alive")


@maintain_app.command("runs")
def runs_command(
    duty: Duty = None,
    limit: Annotated[int, typer.Option(help="How many lines, 1 to 1000.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what maintenance did, newest first. Runs in a row that had nothing to do are one line.

    JSON: items (duty, started_at, ended_at, runs, done, error, leader_id, fence).
    """
    with SyncClient(database_dsn(), max_size=1) as client:
        runs = client.maintenance_runs(duty, limit=limit)
        if not runs and duty is not None:
            _check_duty(duty, client.maintenance())
    if as_json:
        print_json({"items": runs})
        return
    print_rows(
        ("started_at", "ended_at", "duty", "runs", "done", "error"),
        ((run.started_at, run.ended_at, run.duty, run.runs, run.done, run.error) for run in runs),
    )
    print_if_empty(runs, "runs: start maintenance with `streamvibe up`")


def _check_duty(duty: str, known: Sequence[DutyState]) -> None:
    names = sorted(state.duty for state in known)
    if duty not in names:
        raise InvalidArgument(
            "there is no such duty",
            field="DUTY",
            received=duty,
            fix=f"Use one of {', '.join(names)}"
            if names
            else "They become known when maintenance first runs",
        )


@maintain_app.command("set")
def set_command(
    duty: Annotated[str, typer.Argument(metavar="DUTY", help="As in `streamvibe maintain status`.")],
    schedule: Annotated[
        str | None,
        typer.Option(help="Cron in UTC, such as '30 3 * * *', or 'every 30 seconds'; '' as usual."),
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it runs at all.")
    ] = None,
) -> None:
    """Change when a duty runs, or whether. The leader knows within ten seconds."""
    if schedule is None and enabled is None:
        raise InvalidArgument(
            "nothing is to be changed",
            field="--schedule",
            fix="Give --schedule, --enable or --disable",
        )
    if schedule:
        check_schedule(schedule)
    with SyncClient(database_dsn(), max_size=1) as client:
        client.set_maintenance_duty(duty, schedule=schedule, enabled=enabled)
        [now] = [state for state in client.maintenance() if state.duty == duty]
    print_remark(f"{duty} runs {now.schedule}." if now.enabled else f"{duty} is disabled.")


def pause_command(
    job_type: JobType = None,
    user: User = None,
    everything: Everything = False,
    reason: Annotated[str | None, typer.Option(help="Shown by `jobs why` and `pauses`.")] = None,
) -> None:
    """Let no job of a type (--type), of a user (--user), or no job at all (--all) be started. What runs goes on."""
    whom = _whom(job_type, user, everything)
    with SyncClient(database_dsn(), max_size=1) as client:
        is_new = client.pause(job_type=job_type, user_id=user, reason=reason)
    print_remark(f"Paused: {whom}." if is_new else f"It was paused before: {whom}.")


def resume_command(job_type: JobType = None, user: User = None, everything: Everything = False) -> None:
    """Take back `streamvibe pause` with the same options."""
    whom = _whom(job_type, user, everything)
    with SyncClient(database_dsn(), max_size=1) as client:
        was_paused = client.resume(job_type=job_type, user_id=user)
        others = client.pauses()
    print_remark(f"Resumed: {whom}." if was_paused else f"It was not paused: {whom}.")
    if others:
        print_hint("Something else is still paused: see `streamvibe pauses`.")


def pauses_command(as_json: AsJson = False) -> None:
    """List what is paused.

    JSON: items (job_type, user_id, paused_at, reason; both null: everything).
    """
    with SyncClient(database_dsn(), max_size=1) as client:
        pauses = client.pauses()
    if as_json:
        print_json({"items": pauses})
        return
    print_rows(
        ("paused", "paused_at", "reason"),
        (
            (
                "everything"
                if pause.job_type is None and pause.user_id is None
                else f"type {pause.job_type}"
                if pause.job_type is not None
                else f"user {pause.user_id}",
                pause.paused_at,
                pause.reason,
            )
            for pause in pauses
        ),
    )
    print_if_empty(pauses, "pauses")


def _whom(job_type: str | None, user: str | None, everything: bool) -> str:
    given = [job_type is not None, user is not None, everything]
    if sum(given) != 1:
        raise InvalidArgument(
            "it is not clear what is meant",
            field="--type",
            received=f"{sum(given)} of --type, --user and --all",
            fix="Give one of --type TYPE, --user USER and --all",
        )
    if everything:
        return "every job"
    return f"jobs of type {job_type}" if job_type is not None else f"jobs of user {user}"
