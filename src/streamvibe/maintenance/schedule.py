"""When something is to be done: cron, or every so often."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from streamvibe.errors import InvalidArgument

#: The first moment after this one at which it is time, in UTC. Moments have a time zone, that of a session often.
Schedule = Callable[[datetime], datetime]

LONGEST_SECONDS = 366 * 86400
_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
_EVERY = re.compile(r"every (\d+(?:\.\d+)?) (seconds|minutes|hours)")


def parse_schedule(text: str) -> Schedule:
    """``every 30 seconds`` (0.01 seconds to a year), or cron: five fields, or six with seconds before them.

    Raises InvalidArgument naming ``schedule``.
    """
    seconds = every_seconds(text)
    if seconds is not None:
        pause = timedelta(seconds=seconds)
        return lambda moment: moment.astimezone(UTC) + pause
    try:
        # Also one that never comes, such as the 30th of February.
        next(CronSim(text, datetime(2000, 1, 1)))  # noqa: DTZ001 - only whether it comes at all
    except (CronSimError, StopIteration) as error:
        raise InvalidArgument(
            f"the schedule cannot be read: {str(error) or 'it never comes'}",
            field="schedule",
            received=repr(text)[:200],
            fix="Use minute hour day month weekday, such as '30 3 * * *' (UTC), or 'every 30 seconds'",
        ) from None
    return lambda moment: next(CronSim(text, moment.astimezone(UTC)))


def every_seconds(text: str) -> float | None:
    """Of ``every 30 seconds`` the seconds; None: it is no schedule of that kind."""
    match = _EVERY.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    return seconds if 0.01 <= seconds <= LONGEST_SECONDS else None


def check_schedule(text: str) -> None:
    """Raises InvalidArgument naming ``schedule`` where it cannot be read."""
    parse_schedule(text)
