"""Wake-ups: LISTEN on a connection of its own. Without it the worker still polls, only later."""

import asyncio
import contextlib
from collections.abc import Callable
from uuid import UUID

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import StreamVibeError
from streamvibe.eventlog import Outage, event_logger

log = event_logger("streamvibe.worker")


async def listen(session: Session, on_job: Callable[[], None], on_cancel: Callable[[UUID], None]) -> None:
    """Pass notifications on until cancelled, reconnecting as often as it takes.

    Every role may send any notification: they are hints, and nothing more may be made of them.
    """
    pause = 0.1
    outage = Outage(log, "listen")
    while True:
        try:
            connection = await session.connection()
            await connection.execute("LISTEN streamvibe_jobs")
            await connection.execute("LISTEN streamvibe_cancel")
            outage.ends()
            # What was sent while nobody listened is looked for once.
            on_job()
            pause = 0.1
            async for note in connection.notifies():
                if note.channel == "streamvibe_jobs":
                    on_job()
                else:
                    with contextlib.suppress(ValueError):  # not an id: none of ours
                        on_cancel(UUID(note.payload))
        except (StreamVibeError, psycopg.Error) as error:
            outage.goes_on("listen_reconnects", error)
        await session.close()
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)
