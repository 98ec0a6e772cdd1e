"""``streamvibe jobs erase``: nothing of a user is kept."""

import sys
from typing import Annotated
from uuid import UUID

import typer

from streamvibe.archive import erase_user
from streamvibe.archive.control import Stopped
from streamvibe.cli.leaving import until_stopped
from streamvibe.cli.output import AsJson, database_dsn, print_hint, print_json, print_remark
from streamvibe.db.statements import arguments
from streamvibe.errors import InvalidArgument

_STOPPED = "Stopped: not all is erased. What was begun is done again when it is run again."
_LEFT = (
    "Not reached: backups and WAL archives of the database, replicas until they have caught up, the server's log,"
    " copies, old versions and unfinished uploads of objects in a bucket, and what handlers wrote elsewhere."
)


def erase_command(
    user: Annotated[str, typer.Option(help="The user's id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, help="For how many seconds workers may go on with jobs of the user.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Erase a user: jobs with params and results, log lines, keys and limit, in the queue and in the archive.

    Live jobs are cancelled; workers that run one are waited for. Run again, it goes on where it ended. What the user
    asks for meanwhile is not refused, and stays. Statistics, in which nobody is named, count what is left.

    JSON: user_id, jobs, lines, archive (whether there was one to search).
    """
    user_id = arguments.uuid(user, "user_id")
    if not yes and not _confirmed(user_id):
        print_hint("Nothing was erased.", as_json=as_json)
        raise typer.Exit(1)

    def report(step: str, what: str) -> None:
        print_hint(f"{step}: {what}", as_json=as_json)

    dsn = database_dsn()
    try:
        done = until_stopped(
            lambda stopping: erase_user(dsn, user_id, patience=patience, report=report, stopping=stopping),
            _STOPPED,
            as_json=as_json,
        )
    except Stopped:
        print_hint(_STOPPED, as_json=as_json)
        raise typer.Abort from None
    if as_json:
        print_json({"user_id": user_id, "jobs": done.jobs, "lines": done.lines, "archive": done.archive})
    else:
        print_remark(
            f"Erased {done.jobs} jobs and {done.lines} log lines of user {user_id} from the queue"
            + (", and the user from the archive." if done.archive else ". Nothing was ever archived.")
        )
    print_hint(_LEFT, as_json=as_json)


def _confirmed(user_id: UUID) -> bool:
    try:
        answer = typer.confirm(f"Erase everything of user {user_id}? It cannot be taken back", err=True)
        if not sys.stdin.isatty():
            typer.echo(err=True)  # nobody's return key has ended the question's line
        return answer
    except typer.Abort:
        if sys.stdin.isatty():  # it was interrupted
            raise
        typer.echo(err=True)  # the question's line ends
        raise InvalidArgument(
            "there is nobody to ask",
            field="--yes",
            received="the end of the input instead of an answer",
            fix="Add --yes to erase without being asked",
        ) from None
