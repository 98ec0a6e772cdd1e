"""How far jobs are, written to their rows: while they run by the ticker, and before their end by the flusher."""

from collections.abc import Iterable, Sequence

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import event_logger
from streamvibe.worker import statements
from streamvibe.worker.context import ClaimedJob, Progress

log = event_logger("streamvibe.worker")


async def write_progress(
    session: Session, worker_id: str, noted: Sequence[tuple[ClaimedJob, Progress]]
) -> set[str]:
    """Write these notes. Returns the ids of jobs whose rows somebody else has locked; their notes stay new."""
    later: set[str] = set()
    for job, _ in noted:
        job.is_noting = True
    try:
        rows = await session.fetch(
            statements.PROGRESS,
            (
                worker_id,
                statements.array(job.token for job, _ in noted),
                statements.array(job.key for job, _ in noted),
                [progress.fraction for _, progress in noted],
                [progress.message for _, progress in noted],
            ),
        )
        later.update(row[0] for row in rows)
    except DatabaseUnreachable:
        later.update(job.key for job, _ in noted)
        raise
    finally:
        # What another error refused is not tried again: one note must not hold up the others for ever.
        for job, progress in noted:
            job.is_noting = False
            if job.key not in later:
                job.progress_written(progress)
    return later


async def write_last_progress(session: Session, worker_id: str, jobs: Iterable[ClaimedJob]) -> set[str]:
    """Write what is still to be said of jobs that are about to be completed; the rows of short ones say nothing.

    Returns the ids of those to complete a moment later: their rows are locked, or an older note is being written.
    """
    lasting = [job for job in jobs if job.leased]
    later = {job.key for job in lasting if job.is_noting}
    noted = [
        (job, progress)
        for job in lasting
        if not job.is_noting and (progress := job.new_progress()) is not None
    ]
    if noted:
        try:
            later |= await write_progress(session, worker_id, noted)
        except DatabaseUnreachable:
            raise
        except (StreamVibeError, psycopg.Error) as error:  # a result counts for more than how far it was
            log.error("progress_refused", jobs=len(noted), error=str(error))
    return later
