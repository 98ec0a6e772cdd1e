"""``streamvibe logs search``."""

from typing import Annotated

import typer

from streamvibe.cli.group import Commands
from streamvibe.cli.jobs_input import read_params, read_time
from streamvibe.cli.jobs_list import log_row, open_client, print_more
from streamvibe.cli.output import AsJson, console, print_if_empty, print_json, print_lines
from streamvibe.db.statements.arguments import uuid

logs_app = typer.Typer(
    cls=Commands, help="Search the logs of all jobs.", no_args_is_help=True, rich_markup_mode=None
)


@logs_app.callback()
def logs() -> None:
    """Search the logs of all jobs."""


@logs_app.command("search")
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help='English words in any form, a "phrase", or; left out: every line. After --: also -not.'
        ),
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only this job's lines.")] = None,
    user: Annotated[str | None, typer.Option(help="Only lines of this user's jobs.")] = None,
    level: Annotated[str | None, typer.Option(help="Only debug, info, warning or error lines.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on, as in 2030-01-31T18:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    metadata: Annotated[str | None, typer.Option(help="JSON that a line's metadata contain.")] = None,
    limit: Annotated[int, typer.Option(help="Lines a page, 1 to 1000.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Go on after the page that printed this cursor.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print lines of any job's log, newest first, a page at a time; of long messages the parts with the words.

    Words that begin with "-" come after the options and "--": logs search --level error -- quota -daily.
    JSON: items (the lines, with the parts as snippet), next_cursor, has_more.
    """
    job_id = None if job is None else uuid(job, "--job")
    with open_client() as client:
        page = client.search_logs(
            " ".join(words) if words else None,
            job_id=job_id,
            user_id=user,
            level=level,
            since=read_time(since, "--since"),
            until=read_time(until, "--until"),
            metadata=None if metadata is None else read_params(metadata, "--metadata"),
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json(page)
        return
    rows = []
    for line in page.items:
        at, level_of_it, message, its_metadata = log_row(line)
        rows.append((at, line.job_id, level_of_it, line.snippet or message, its_metadata))
    if rows or not console().is_terminal:
        print_lines(("at", "job", "level", "message", "metadata"), rows, whole=("at", "job", "level"))
    print_if_empty(page.items, "lines")
    print_more(page)
