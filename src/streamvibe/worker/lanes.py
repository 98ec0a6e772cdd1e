"""Two flushers side by side: while one waits for its commit to reach the disk, the other's statement runs.

A claim's jobs all go the same way, because writing ends locks their claims: two statements for one claim would wait
for each other.
"""

import asyncio
from collections.abc import Sequence

from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.flush import End, Flusher


class Lanes:
    """What a Flusher is, over several. Belongs to one event loop."""

    def __init__(self, flushers: Sequence[Flusher]) -> None:
        self._flushers = flushers

    def _lane(self, job: ClaimedJob) -> Flusher:
        return self._flushers[job.token % len(self._flushers)]

    @property
    def waiting(self) -> int:
        """How many ends wait to be written, without those that wait for others' locks."""
        return sum(flusher.waiting for flusher in self._flushers)

    def add_end(self, end: End) -> None:
        """Write this end soon, after the lines of its job."""
        self._lane(end.job).add_end(end)

    def add_lines(self, job: ClaimedJob) -> None:
        """Write the lines of this job soon."""
        self._lane(job).add_lines(job)

    async def drained(self) -> None:
        """Wait until everything added so far is written."""
        await asyncio.gather(*(flusher.drained() for flusher in self._flushers))

    async def at_most(self, ends: int) -> None:
        """Wait until no lane has more ends to write than its share of these."""
        share = ends // len(self._flushers)
        await asyncio.gather(*(flusher.at_most(share) for flusher in self._flushers))

    async def run(self) -> None:
        """Write until cancelled, or until one of them cannot go on."""
        await asyncio.gather(*(flusher.run() for flusher in self._flushers))
