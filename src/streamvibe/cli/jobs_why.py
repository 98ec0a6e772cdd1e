"""``streamvibe jobs why``: why a job is not running."""

from typing import Annotated

import typer

from streamvibe.cli.output import AsJson, database_dsn, print_json, print_rows
from streamvibe.client import SyncClient


def why_command(
    job_id: Annotated[str, typer.Argument(metavar="JOB_ID", help="The job.")],
    user: Annotated[str | None, typer.Option("--user", help="Only this user's job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a job is not running, what must happen first at the top: asked of what workers claim with.

    JSON: items (reason, message, ready_at, jobs_ahead, job_ids).
    """
    with SyncClient(database_dsn(), max_size=1) as client:
        reasons = client.explain_wait(job_id, user_id=user)
    if as_json:
        print_json({"items": reasons})
        return
    print_rows(
        ("reason", "message", "ready_at", "jobs in its way"),
        (
            (
                reason.reason,
                reason.message,
                reason.ready_at,
                ", ".join(map(str, reason.job_ids)) if reason.job_ids else None,
            )
            for reason in reasons
        ),
    )
