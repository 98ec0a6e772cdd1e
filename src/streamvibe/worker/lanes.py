"""Two flushers side by side: while one waits for its commit to reach the disk, the other's statement runs.

A claim's jobs all go the same way, because writing ends locks their claims: two statements for one claim would wait
for each other.
"""

import asyncio
from collections.abc import Sequence

from streamvibe.worker.context import ClaimedJob
from streamvibe.worker.flush import End, Flusher

#: So many claims are told apart.
MOST_CLAIMS = 10_000


class Lanes:
    """What a Flusher is, over several. Belongs to one event loop."""

    def __init__(self, flushers: Sequence[Flusher]) -> None:
        self._flushers = flushers
        self._chosen: dict[
            int, Flusher
        ] = {}  # by token; not by its parity, of which other workers may get one each

    def _lane(self, job: ClaimedJob) -> Flusher:
        chosen = self._chosen.get(job.token)
        if chosen is None:
            if (
                len(self._chosen) >= MOST_CLAIMS
            ):  # the oldest is over, or else its statements wait for each other
                del self._chosen[next(iter(self._chosen))]
            # A statement may wait for a lock; what comes meanwhile goes the other way.
            chosen = self._chosen[job.token] = min(self._flushers, key=lambda flusher: flusher.load)
        return chosen

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
        """Wait until no more ends than this wait to be written, in whichever lane."""
        while self.waiting > ends:
            # Begun before anything is awaited: a round that ends meanwhile counts.
            rounds = [flusher.next_round() for flusher in self._flushers]
            await asyncio.wait(rounds, return_when=asyncio.FIRST_COMPLETED)

    async def run(self) -> None:
        """Write until cancelled, or until one of them cannot go on."""
        tasks = [asyncio.create_task(flusher.run()) for flusher in self._flushers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
