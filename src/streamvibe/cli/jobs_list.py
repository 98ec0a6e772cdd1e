"""What the commands that list share: a client, what they refuse before they ask, and what they say below a page."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, timedelta

from streamvibe.cli.output import database_dsn, print_hint
from streamvibe.client import SyncClient
from streamvibe.errors import InvalidArgument, NotAllowed, OffsetTooLarge
from streamvibe.model import Job, LogLine, Page

#: How far get_user_jobs goes by number; only said here, SQL decides.
MOST_OFFSET = 1000


@contextmanager
def open_client() -> Iterator[SyncClient]:
    """A client of the database that this command is for.

    What its pool would say of a database that goes away, connection by connection, the command says in its own words.
    """
    log = logging.getLogger("psycopg.pool")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with SyncClient(database_dsn(), max_size=1, application_name="streamvibe cli") as client:
            yield client
    finally:
        log.setLevel(before)


def check_list_options(
    *, page: int | None, cursor: str | None, bucket: str | None, time_zone: str | None, ordered: bool
) -> None:
    """Refuse options that contradict each other. Raises InvalidArgument."""
    if page is not None and page < 1:
        raise InvalidArgument(
            "--page is out of range", field="--page", received=str(page), fix="Pages count from 1"
        )
    if bucket is None and time_zone is not None:
        raise InvalidArgument(
            "--time-zone says whose hours and days --bucket means",
            field="--time-zone",
            received=time_zone,
            fix="Add --bucket day, or leave --time-zone out",
        )
    if bucket is not None and ordered:
        raise InvalidArgument(
            "--bucket cannot be combined with --order-by or --order-dir",
            field="--bucket",
            received=bucket,
            fix="Buckets show the newest first: leave the others out",
        )
    if bucket is None and cursor is not None and (page is not None or ordered):
        raise InvalidArgument(
            "--cursor cannot be combined with --page, --order-by or --order-dir",
            field="--cursor",
            received=cursor,
            fix="Cursors go through the newest first: leave the others out",
        )


@contextmanager
def saying_which_page(number: int, limit: int) -> Iterator[None]:
    """An offset past the limit is a page too far on: OffsetTooLarge says which is the last."""
    try:
        yield
    except OffsetTooLarge as error:
        raise OffsetTooLarge(
            f"--page is too far on, where pages get slow and shift: with {limit} jobs a page numbers end at"
            f" {MOST_OFFSET // limit + 1}",
            field="offset",
            received=f"page {number} of {limit} jobs each",
        ) from error


def check_job_type(client: SyncClient, job_type: str | None, found: Page[Job]) -> None:
    """Whoever spelled a type wrongly would take an empty list for an answer. Raises UnknownJobType."""
    if job_type is not None and not found.items:
        with suppress(NotAllowed):  # Which types there are is only the service's to ask.
            client.stats(job_type=job_type)


def of_how_many(page: Page[Job], bucket: str | None, number: int, limit: int) -> str:
    """The line below a page whose list was counted."""
    total = page.total_count or 0
    jobs = "1 job" if total == 1 else f"{total} jobs"
    if page.total_age:
        jobs += f" (counted {page.total_age // timedelta(seconds=1)} s ago)"
    if page.start is None:
        return f"Page {number} of {max(1, -(-total // limit))}, {jobs} in all."
    return f"The {bucket} from {page.start.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {jobs}."


def print_more(page: Page[Job] | Page[LogLine]) -> None:
    """How to go on, where there is more."""
    if page.next_cursor is not None:
        print_hint(f"More: --cursor {page.next_cursor}")


def log_row(line: LogLine) -> tuple[object, ...]:
    """A line of a log as a row of a table."""
    at = line.created_at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S.%f}Z", line.log_level, line.message, line.metadata
