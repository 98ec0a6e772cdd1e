"""``streamvibe jobs request|list|show|result|logs|cancel|retry``."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from streamvibe.cli.group import Commands
from streamvibe.cli.jobs_input import read_params, read_time
from streamvibe.cli.jobs_list import (
    check_job_type,
    check_list_options,
    log_row,
    of_how_many,
    open_client,
    print_more,
    saying_which_page,
)
from streamvibe.cli.jobs_wait import interruptible, state, watching
from streamvibe.cli.output import (
    AsJson,
    console,
    plain,
    print_fields,
    print_hint,
    print_if_empty,
    print_json,
    print_lines,
    print_list,
    print_rows,
    text,
)
from streamvibe.client import SyncClient
from streamvibe.errors import DatabaseUnreachable, InvalidArgument, JobFailed, WaitTimeout
from streamvibe.model import Job, JobChange, JobResult, JobStatus, Outcome, Requested

jobs_app = typer.Typer(
    cls=Commands,
    help="Request, list, inspect, cancel and retry jobs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

User = Annotated[str, typer.Option(help="The user's id.")]
AnyUser = Annotated[str | None, typer.Option(help="Only if the job is this user's.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]
JobIds = Annotated[list[str], typer.Argument(help="The jobs' ids, 1 to 10000.")]

_JOB_HEADINGS: tuple[str, ...] = (
    "id",
    "job_type",
    "status",
    "priority",
    "created_at",
    "progress",
    "what happened",
)
#: What a narrow terminal goes without, the first first.
_LESS_IMPORTANT = ("priority", "progress", "created_at")

_NEXT_STEPS = {
    "unchanged": "it was finished for good before, and stays as it is",
    "not_found": "this user has no such job: check the id and --user",
    "not_failed": "only a failed job can be retried",
    "not_retryable": "trying again would fail again: mend the cause, then request it again",
    "attempts_exhausted": "no attempts are left: request it again",
    "at_limit": "the user has as many live jobs as they may: retry when one is finished, or cancel one",
    "has_twin": "an identical job is live already: nothing is left to do",
}


@jobs_app.command("request")
def request(
    job_type: Annotated[str, typer.Argument(help="The job type's name.")],
    user: User,
    params: Annotated[
        str, typer.Option(help="A JSON object; @FILE reads it from a file, - from standard input.")
    ] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Needs --wait: give up after so many seconds.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Do not answer from the cache. An identical live job is still joined."),
    ] = False,
    dedupe_window: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Join an identical live job not older than so many seconds; 0: none; default: the job type's.",
        ),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="0 to 9, higher first; default: the job type's.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="When to run, as in 2030-01-31T18:00Z; default: now.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="The same key means the same job of this user, as long as that is kept."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a job: created, joined (an identical one is live) or cached (its result is there).

    An identical live job that is due later than this one is not joined.

    JSON: outcome, job_id, status, result, result_age (seconds), scheduled_for (null when cached); with --wait in
    place of scheduled_for failure_kind, error_message and completed_at. With --wait, exit status 1 when the job ends
    without a result, or not in time; the JSON says how it stands, and standard error why.
    """
    if timeout is not None and not wait:
        raise InvalidArgument(
            "--timeout needs --wait",
            field="--timeout",
            received=f"{timeout:g}",
            fix="Add --wait, or leave --timeout out",
        )
    given, when = read_params(params), read_time(at, "--at")
    with open_client() as client:
        asked = client.request(
            job_type,
            given,
            user_id=user,
            force=force,
            priority=priority,
            scheduled_for=when,
            idempotency_key=idempotency_key,
            dedupe_window=None if dedupe_window is None else timedelta(seconds=dedupe_window),
        )
        if not wait:
            due = None if asked.outcome == Outcome.CACHED else client.get(asked.job_id).scheduled_for
            if as_json:
                print_json({**plain(asked), "scheduled_for": due})
            else:
                print_fields([("outcome", asked.outcome), ("job_id", asked.job_id), ("status", asked.status)])
                if due is not None and due > datetime.now(UTC):
                    print_fields([("scheduled_for", due)])
                if asked.result is not None:
                    print_fields([("result_age", asked.result_age), ("result", asked.result)])
            return
        with interruptible() as check_interrupt:
            if not as_json:
                print_hint(f"{asked.outcome} {asked.job_id}")
            _wait(client, asked, timeout, check_interrupt, as_json=as_json)


def _wait(
    client: SyncClient,
    asked: Requested[Any],
    timeout: float | None,
    check_interrupt: Callable[[], None],
    *,
    as_json: bool,
) -> None:
    latest: Job | None = None
    with watching(client, as_json=as_json) as watch:

        def look(job: Job) -> None:
            nonlocal latest
            latest = job
            watch.look(job)
            check_interrupt()

        def away(error: DatabaseUnreachable) -> None:
            watch.away()
            check_interrupt()

        try:
            done = client.wait(asked, timeout=timeout, on_look=look, on_away=away)
        except (JobFailed, WaitTimeout) as error:
            if as_json and latest is not None:
                print_json(_waited(asked, latest))
            if isinstance(error, WaitTimeout):
                error.fix = f"The job goes on; `streamvibe jobs result {asked.job_id}` shows how it ended"
                if latest is not None and latest.status == JobStatus.PENDING:
                    error.fix = f"`streamvibe jobs why {asked.job_id}` says what it waits for. {error.fix}"
            elif error.job.status == JobStatus.FAILED:
                error.fix, has_lines = "Mend the cause, then request it again", False
                with suppress(DatabaseUnreachable):  # how the job ended is what matters
                    has_lines = bool(client.logs(asked.job_id, limit=1).items)
                if has_lines:
                    error.fix = f"`streamvibe jobs logs {asked.job_id}` says more. {error.fix}"
            raise
        except KeyboardInterrupt:
            print_hint(
                f"The job goes on; `streamvibe jobs result {asked.job_id}` shows how it ended.",
                as_json=as_json,
            )
            raise
    if as_json:
        print_json(_waited(asked, done))
    else:
        print_json(done.result)


def _waited(asked: Requested[Any], job: JobResult[Any] | Job) -> dict[str, object]:
    return {
        "outcome": asked.outcome,
        "result_age": asked.result_age,
        "job_id": asked.job_id,
        **{name: getattr(job, name) for name in JobResult.__slots__ if name != "job_id"},
    }


@jobs_app.command("list")
def list_jobs(
    user: User,
    status: Annotated[str | None, typer.Option(help=f"One of {', '.join(JobStatus)}.")] = None,
    job_type: Annotated[str | None, typer.Option("--type", help="Only jobs of this type.")] = None,
    limit: Annotated[int, typer.Option(help="Jobs a page, 1 to 1000.")] = 50,
    page: Annotated[
        int | None, typer.Option(help="The page's number, from 1; the total is counted too.")
    ] = None,
    cursor: Annotated[str | None, typer.Option(help="Go on after the page that printed this cursor.")] = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            help="Only jobs of one hour, day, week or month: --page 1 is the present one, 2 the one before."
        ),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Whose hours and days --bucket means, like Europe/Berlin; else UTC.")
    ] = None,
    order_by: Annotated[
        str | None, typer.Option(help="created_at, completed_at or job_priority; pages by number.")
    ] = None,
    order_dir: Annotated[str | None, typer.Option(help="ASC or DESC; pages by number.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a user's jobs, newest first: by cursor; by page number, with --page or an order; or by --bucket of time.

    JSON: items (the jobs), next_cursor, has_more, total_count and total_age (of all pages or the bucket; null by
    cursor), start and end (of the bucket; else null).
    """
    ordered = order_by is not None or order_dir is not None
    check_list_options(page=page, cursor=cursor, bucket=bucket, time_zone=time_zone, ordered=ordered)
    number = 1 if page is None else page
    with open_client() as client:
        if bucket is not None:
            found = client.list_by_bucket(
                user,
                bucket,
                number,
                status=status,
                job_type=job_type,
                limit=limit,
                cursor=cursor,
                time_zone=time_zone or "UTC",
            )
        elif page is not None or ordered:
            with saying_which_page(number, limit):
                found = client.list(
                    user,
                    status=status,
                    job_type=job_type,
                    limit=limit,
                    offset=min((number - 1) * limit, 2**31 - 1),
                    order_by=order_by or "created_at",
                    order_dir=order_dir or "DESC",
                )
        else:
            found = client.list_by_cursor(user, cursor=cursor, status=status, job_type=job_type, limit=limit)
        check_job_type(client, job_type, found)
    if as_json:
        print_json(found)
        return
    if found.items or not console().is_terminal:
        print_list(_JOB_HEADINGS, map(_job_row, found.items), whole=("id", "status"), less=_LESS_IMPORTANT)
    if number > 1 and bucket is None and not found.items:
        print_hint(f"There is no page {number}: the list ends before it.")
    else:
        print_if_empty(found.items, "jobs")
    if found.total_count is not None:
        print_hint(of_how_many(found, bucket, number, limit))
    print_more(found)


@jobs_app.command("search")
def search(
    params: Annotated[str | None, typer.Option(help="JSON that the params contain.")] = None,
    result: Annotated[str | None, typer.Option(help="JSON that the result contains.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's jobs.")] = None,
    status: Annotated[str | None, typer.Option(help=f"One of {', '.join(JobStatus)}.")] = None,
    job_type: Annotated[str | None, typer.Option("--type", help="Only jobs of this type.")] = None,
    limit: Annotated[int, typer.Option(help="Jobs a page, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after the page that printed this cursor.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find jobs of any user by what their params and results contain, newest first. Needs --params, --result or both.

    `streamvibe jobs list` lists one user's jobs, whatever they contain.
    JSON: items (the jobs), next_cursor, has_more.
    """
    if params is None and result is None:
        raise InvalidArgument(
            "there is nothing to look for",
            field="--params",
            fix="""Give --params or --result, as in --params '{"channel": "UC1"}'; """
            "`streamvibe jobs list --user USER` lists a user's jobs",
        )
    with open_client() as client:
        found = client.search(
            params=None if params is None else read_params(params),
            result=None if result is None else read_params(result, "--result"),
            user_id=user,
            status=status,
            job_type=job_type,
            limit=limit,
            cursor=cursor,
        )
        check_job_type(client, job_type, found)
    if as_json:
        print_json(found)
        return
    if found.items or not console().is_terminal:
        headings, rows = _JOB_HEADINGS, [_job_row(job) for job in found.items]
        if user is None:
            headings = (headings[0], "user", *headings[1:])
            rows = [(row[0], job.user_id, *row[1:]) for job, row in zip(found.items, rows, strict=True)]
        print_list(headings, rows, whole=("id", "user", "status"), less=(*_LESS_IMPORTANT, "user"))
    print_if_empty(found.items, "jobs")
    print_more(found)


@jobs_app.command("show")
def show(job_id: JobId, user: AnyUser = None, as_json: AsJson = False) -> None:
    """Show everything about one job. JSON: the job, an object with a field per column."""
    with open_client() as client:
        job = client.get(job_id, user_id=user)
    if as_json:
        print_json(job)
    else:
        print_fields([(name, getattr(job, name)) for name in job.__slots__])


@jobs_app.command("result")
def result(job_id: JobId, user: AnyUser = None, as_json: AsJson = False) -> None:
    """Print a job's result, as JSON; exit status 1 while or when there is none.

    JSON (--json): job_id, status, result, failure_kind, error_message, completed_at, retry_at (when a failed job
    comes back by itself; null: it does not).
    """
    with open_client() as client:
        job = client.get(job_id, user_id=user)
    completed = job.status == JobStatus.COMPLETED
    if as_json:
        fields = (*JobResult.__slots__, "retry_at")
        print_json({name: job.id if name == "job_id" else getattr(job, name) for name in fields})
    elif completed:
        print_json(job.result)
    else:
        reason = f": {job.error_message}" if job.error_message else ""
        print_hint(f"No result{'' if job.is_over else ' yet'}: the job is {state(job)}{reason}")
    if not completed:
        raise typer.Exit(1)


@jobs_app.command("logs")
def logs(
    job_id: JobId,
    user: AnyUser = None,
    level: Annotated[str | None, typer.Option(help="Only debug, info, warning or error lines.")] = None,
    limit: Annotated[int, typer.Option(help="Lines a page, 1 to 1000.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Go on after the page that printed this cursor.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's log, newest first, a page at a time.

    JSON: items (the lines), next_cursor, has_more.
    """
    with open_client() as client:
        page = client.logs(job_id, user_id=user, level=level, limit=limit, cursor=cursor)
        if not page.items:
            client.get(job_id, user_id=user)
    if as_json:
        print_json(page)
        return
    print_lines(("at", "level", "message", "metadata"), map(log_row, page.items), whole=("at", "level"))
    print_more(page)


@jobs_app.command("cancel")
def cancel(job_ids: JobIds, user: User, as_json: AsJson = False) -> None:
    """Cancel a user's jobs, live or waiting for a retry; a finished one stays as it is.

    Exit status 1 if one was not found.

    Outcomes: cancelled, unchanged (it was finished for good), not_found (also another user's job).
    JSON: items (job_id, outcome, status; in the order given).
    """
    with open_client() as client:
        changes = client.cancel(job_ids, user_id=user)
    _print_changes(changes, as_json)
    raise typer.Exit(int(any(change.outcome == "not_found" for change in changes)))


@jobs_app.command("retry")
def retry(job_ids: JobIds, user: User, as_json: AsJson = False) -> None:
    """Retry a user's failed jobs now, where attempts remain. Exit status 1 if one was not retried.

    Outcomes: retried, not_failed, not_retryable (the failure is for good), attempts_exhausted, at_limit (the
    user has as many live jobs as they may), has_twin (an identical job is live), not_found.
    JSON: items (job_id, outcome, status; in the order given).
    """
    with open_client() as client:
        changes = client.retry(job_ids, user_id=user)
    _print_changes(changes, as_json)
    raise typer.Exit(int(any(change.outcome != "retried" for change in changes)))


def _print_changes(changes: list[JobChange], as_json: bool) -> None:
    if as_json:
        print_json({"items": changes})
    else:
        rows = [(change.job_id, change.outcome, change.status) for change in changes]
        print_rows(("id", "outcome", "status"), rows)
        for outcome in dict.fromkeys(change.outcome for change in changes):
            if outcome in _NEXT_STEPS:
                print_hint(f"{outcome}: {_NEXT_STEPS[outcome]}")


def _job_row(job: Job) -> tuple[object, ...]:
    progress = None if job.progress is None else f"{job.progress:.0%}"
    # What a completed job said last of its progress is no news.
    is_completed = job.status == JobStatus.COMPLETED
    happened = job.error_message or (None if is_completed else job.progress_message)
    if job.retry_at is not None:
        happened = f"retried after {text(job.retry_at)}; {happened}"
    elif job.status == JobStatus.PENDING and job.scheduled_for > datetime.now(UTC):
        happened = f"due at {text(job.scheduled_for)}" + (f"; {happened}" if happened else "")
    return job.id, job.job_type, job.status, job.job_priority, job.created_at, progress, happened
