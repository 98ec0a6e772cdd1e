"""``streamvibe archive``: what has left the queue."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import psycopg
import typer

from streamvibe.archive import require_packages
from streamvibe.archive.control import Stopped
from streamvibe.cli.group import Commands
from streamvibe.cli.leaving import until_stopped
from streamvibe.cli.output import (
    AsJson,
    console,
    database_dsn,
    print_fields,
    print_hint,
    print_if_empty,
    print_json,
    print_remark,
    print_rows,
)
from streamvibe.errors import ArchiveFailed, InvalidArgument, translated
from streamvibe.masking import mask_url

if TYPE_CHECKING:
    from streamvibe.archive.run import Done

archive_app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Keep what leaves the queue as Parquet, and ask it.",
    rich_markup_mode=None,
)

_STOPPED = "Stopped: what was begun is done again by the next run."
_NO_ARCHIVE = "No archive is set: what leaves the queue is gone. See `streamvibe archive set --help`."
_NOTHING_DUE = "Nothing was due: a finished job leaves when its type's retention (7 days unless set) is over."
_NOT_SET = "Stopped: the archive is where it was."
_STATUS = """
SELECT url, archiver, files, jobs, lines, bytes, first_day, last_day, last_written_at, leaves_waiting,
       jobs_waiting, erasures, is_copy
FROM public.get_archive()
"""
_NAMES = (
    *("url", "archiver", "files", "jobs", "lines", "bytes", "first_day", "last_day", "last_written_at"),
    *("partitions_waiting", "jobs_waiting", "erasures", "is_copy"),
)


@archive_app.command("set")
def set_command(
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="file:///folder, s3://bucket/prefix, or off."),
    ],
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="With off: lose the jobs that have left the queue and are not archived."
        ),
    ] = False,
    moved: Annotated[
        bool,
        typer.Option("--moved", help="In a copy that is instead of the original: take its archive over."),
    ] = False,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="In a copy beside the original: have nothing to do with its archive."),
    ] = False,
) -> None:
    """Say where what leaves the queue is kept from now on. The place is tried first: an object is written and deleted.

    From then on nothing is dropped or deleted before it is there. Credentials and endpoint of an S3-compatible store
    come from the environment, also from that of maintenance: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
    AWS_ENDPOINT_URL. What is in the archive stays in it, wherever it is set.

    A restored dump knows the archive of the database that it is a copy of, and is refused until --moved or --copy says
    what it is.
    """
    if moved and copy:
        raise InvalidArgument(
            "a copy is either instead of the original or beside it",
            field="--moved",
            received="--moved with --copy",
            fix="Use --moved when nothing runs on the other database any more, else --copy",
        )
    this_is = "moved" if moved else "copy" if copy else None
    dsn = database_dsn()
    if url == "off":
        with _connected(dsn) as conn:
            [[lost]] = conn.execute(
                "SELECT public.set_archive(NULL, NULL, %s, %s)", [discard, this_is]
            ).fetchall()
        print_remark("The archive is off: from now on what leaves the queue is gone.")
        if lost:
            print_remark(f"{lost} jobs that waited to be archived are lost.")
        return
    if discard:
        raise InvalidArgument(
            "--discard is for off",
            field="--discard",
            received=url,
            fix="Leave --discard out: nothing is lost",
        )
    require_packages()
    from streamvibe.archive.store import Store

    def claim(stopping: threading.Event) -> UUID:
        try:
            found = Store(url).claim(None if copy else known)
        except ArchiveFailed as error:
            error.fix = error.fix and error.fix.replace("run `streamvibe archive run`", "set it again")
            raise
        if stopping.is_set():
            print_hint(_NOT_SET)
            raise typer.Abort
        return found

    with _connected(dsn) as conn:
        [[known, is_copy]] = conn.execute("SELECT archive_id, is_copy FROM public.get_archive()").fetchall()
        if is_copy or this_is is not None:
            # What is refused is refused before anything is written there.
            with conn.transaction(force_rollback=True):
                conn.execute("SELECT public.set_archive(%s, %s, false, %s)", [url, uuid4(), this_is])
        # A place that does not answer keeps nobody from stopping this.
        archive_id = until_stopped(claim, _NOT_SET)
        conn.execute("SELECT public.set_archive(%s, %s, false, %s)", [url, archive_id, this_is])
    print_remark(f"What leaves the queue is kept in {url} from now on.")
    print_hint("Maintenance archives every hour (streamvibe maintain status); now: streamvibe archive run.")


@archive_app.command("run")
def run_command(as_json: AsJson = False) -> None:
    """Archive what is due now, and erase from the archive who is to be erased. Waits while another process does.

    JSON: rows, files, erased, sources (partitions, and batches of jobs that were deleted one by one), url (null: no
    archive is set), busy (partitions that somebody held).
    """
    dsn = database_dsn()
    require_packages()
    from streamvibe.archive.run import Archiver

    def report(step: str, what: str) -> None:
        print_hint(f"{step}: {what}", as_json=as_json)

    def run(stopping: threading.Event) -> "Done":
        with Archiver(dsn, report=report, stopping=stopping) as archiver:
            return archiver.run(wait=True)

    try:
        done = until_stopped(run, _STOPPED, as_json=as_json)
    except Stopped:
        print_hint(_STOPPED, as_json=as_json)
        raise typer.Abort from None
    if as_json:
        print_json(done)
    else:
        print_remark(
            f"Archived {done.rows} rows in {done.files} files."
            + (f" Erased {done.erased} users." if done.erased else "")
        )
    if done.url is None:
        print_hint(_NO_ARCHIVE, as_json=as_json)
    elif not (done.rows or done.erased or done.busy):
        print_hint(_NOTHING_DUE, as_json=as_json)


@archive_app.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Show where the archive is, what is in it, and what waits. Ends with 1 when something waits and no archive is set.

    Also when it is the archive of the database that this one is a copy of.

    JSON: url, archiver (the process that writes now), files, jobs, lines, bytes, first_day, last_day, last_written_at,
    partitions_waiting, jobs_waiting, erasures, is_copy.
    """
    with _connected(database_dsn()) as conn:
        [row] = conn.execute(_STATUS).fetchall()
    status = dict(zip(_NAMES, row, strict=True))
    if as_json:
        print_json(status | {name: status[name] and str(status[name]) for name in ("first_day", "last_day")})
    else:
        print_fields(status.items())
        if status["url"] is None:
            print_hint(_NO_ARCHIVE)
        if status["is_copy"]:
            print_hint(
                "It is the archive of the database that this one is a copy of: nothing is written to it, and nothing"
                " leaves the queue. See `streamvibe archive set --help`."
            )
    if status["is_copy"] or (status["url"] is None and status["jobs_waiting"]):
        raise typer.Exit(1)


@archive_app.command("query")
def query_command(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, as DuckDB has it.")],
    as_json: AsJson = False,
) -> None:
    """Ask the archive: the tables are jobs and logs, with the columns of job_queue and job_log, and day.

    Ids are text; params, result and metadata are JSON (params->>'$.channel'). A question by user_id and job_type, or by
    day, reads little. Nothing can be written, and nothing else be read.

    JSON: columns; items (an object each).
    """
    dsn = database_dsn()
    require_packages()
    from streamvibe.archive.query import Archive

    with Archive(dsn) as archive:
        answer = archive.ask(sql)
        if as_json:
            print_json(
                {
                    "columns": answer.columns,
                    "items": [dict(zip(answer.columns, row, strict=True)) for row in answer],
                }
            )
        else:
            rows = list(answer) if console().is_terminal else answer
            print_rows(answer.columns, rows, named=True)
            if isinstance(rows, list):
                print_if_empty(rows, "rows")
        if archive.is_empty:
            print_hint("Nothing is in the archive yet: see `streamvibe archive status`.", as_json=as_json)


@contextlib.contextmanager
def _connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with translated(mask_url(dsn)), psycopg.connect(dsn, autocommit=True) as conn:
        yield conn
