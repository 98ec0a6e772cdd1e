"""Which of many processes does the maintenance: a row in the database that is renewed, and a number that grows.

    follower --lead_maintenance()--> leader, under a new fence
    leader   --lead_maintenance()--> leader, under the same fence, every third of the lease
    leader   --not renewed for the length of the lease--> follower; whoever asks next leads
    leader   --resign()--> follower; whoever asks next leads

Every call is one statement without a transaction around it: a process that is stopped between two would keep the row.
A process that was stopped, or cut off, does not know that it leads no longer. By its own clock it stops in time; where
that is wrong, the database refuses what it begins under the old fence.
"""

import asyncio
import contextlib
from datetime import timedelta

import psycopg

from streamvibe.db.session import Session
from streamvibe.errors import DatabaseUnreachable, StreamVibeError
from streamvibe.eventlog import Outage, event_logger

log = event_logger("streamvibe.maintenance")

_LEAD = "SELECT streamvibe.lead_maintenance(%s, %s)"
_RESIGN = "SELECT streamvibe.resign_maintenance(%s)"


class Leadership:
    """Leads when it can. ``keep()`` runs beside whatever asks for ``fence``."""

    def __init__(
        self, dsn: str, leader_id: str, *, lease: timedelta, prepare_threshold: int | None = None
    ) -> None:
        self.leader_id = leader_id
        self._lease = lease
        self._session = Session(
            dsn,
            application_name="streamvibe leadership",
            prepare_threshold=prepare_threshold,
        )
        self._fence: int | None = None
        self._until = 0.0  # loop time
        self._outage = Outage(log, "leadership")
        self._has_asked = False
        self.changed = asyncio.Event()

    @property
    def fence(self) -> int | None:
        """Under which this process may begin duties now; None: it does not lead."""
        return self._fence if asyncio.get_running_loop().time() < self._until else None

    async def keep(self) -> None:
        """Ask to lead, again and again, until cancelled."""
        pause = self._lease.total_seconds() / 3
        while True:
            await self._ask()
            await asyncio.sleep(pause)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            # A connection that hangs must not keep this process from asking over another one.
            async with asyncio.timeout(self._lease.total_seconds() / 2):
                [[fence]] = await self._session.fetch(_LEAD, (self.leader_id, self._lease))
        except (DatabaseUnreachable, TimeoutError) as error:
            self._outage.goes_on("leadership_waits_for_database", error)
            if isinstance(error, TimeoutError):
                await self._session.close()
            return
        except (StreamVibeError, psycopg.Error) as error:
            log.error("leadership_failed", error=str(error))
            return
        self._outage.ends()
        if fence is None and not self._has_asked:
            log.info("another_process_leads", waits_as=self.leader_id)
        self._has_asked = True
        if fence != self._fence:
            if fence is not None:
                log.info("maintenance_led", fence=fence, leader_id=self.leader_id)
            elif self._fence is not None:
                log.warning("maintenance_lost", fence=self._fence, leader_id=self.leader_id)
            self.changed.set()
        self._fence = fence
        self._until = asked_at + self._lease.total_seconds()

    def lost(self) -> None:
        """The database says that another process leads."""
        self._fence = None

    async def resign(self) -> None:
        """Let another process lead at once; where that cannot be said, it waits for the lease to end."""
        if self._fence is not None:
            with contextlib.suppress(StreamVibeError, psycopg.Error, TimeoutError):
                async with asyncio.timeout(2):
                    await self._session.fetch(_RESIGN, (self.leader_id,))
        self._fence = None
        await self._session.close()
