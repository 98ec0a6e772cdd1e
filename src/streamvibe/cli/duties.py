"""What maintenance does here: its own duties, and those that other parts bring along."""

from collections.abc import Sequence
from functools import partial

from streamvibe.archive import archive_duty
from streamvibe.maintenance import DUTIES, Duty


def duties(dsn: str) -> Sequence[Duty]:
    """All of them; what is archived at 27 past is dropped at 17 past the next hour."""
    return (*DUTIES, Duty("archive", "27 * * * *", run=partial(archive_duty, dsn)))
