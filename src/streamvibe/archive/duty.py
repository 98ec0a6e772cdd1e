"""Archiving as a duty of maintenance: in a thread of its own, ended when the duty is."""

import asyncio
import contextlib
import threading

import psycopg

from streamvibe.archive.control import Control, Stopped
from streamvibe.archive.extra import require_packages
from streamvibe.errors import NotLeader, StreamVibeError


async def archive_duty(dsn: str) -> int:
    """Archive what is due, and erase who is to be erased; how many rows and users.

    Nothing when no archive is set, or another process writes to it. Raises the error tree. Cancelled, it ends within
    moments, and what it had begun is done again later.
    """
    stopping = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_work, dsn, stopping))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stopping.set()
        # Its own errors are those of what was cut off.
        with contextlib.suppress(Stopped, StreamVibeError, psycopg.Error):
            await work
        raise


def _work(dsn: str, stopping: threading.Event) -> int:
    with contextlib.closing(Control(dsn)) as control:
        [[is_needed]] = control.call(
            "SELECT url IS NOT NULL OR EXISTS (SELECT FROM streamvibe.erasures())"
            " OR EXISTS (SELECT FROM streamvibe.unfinished_archive_files()) FROM public.get_archive()"
        )
    if not is_needed:
        return 0
    require_packages()
    from streamvibe.archive.run import Archiver

    with Archiver(dsn, stopping=stopping) as archiver:
        try:
            done = archiver.run(wait=False)
        except NotLeader:
            return 0
        return done.rows + done.erased
