"""When a duty is due."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from streamvibe.errors import InvalidArgument
from streamvibe.maintenance.duties import DUTIES
from streamvibe.maintenance.schedule import parse_schedule

AT = datetime(2026, 2, 27, 23, 59, 30, 500_000, UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every 30 seconds", AT + timedelta(seconds=30)),
        ("every 0.5 seconds", AT + timedelta(seconds=0.5)),
        ("every 2 minutes", AT + timedelta(minutes=2)),
        ("every 1 hours", AT + timedelta(hours=1)),
        ("* * * * *", datetime(2026, 2, 28, tzinfo=UTC)),
        ("30 3 * * *", datetime(2026, 2, 28, 3, 30, tzinfo=UTC)),
        ("0 0 1 * *", datetime(2026, 3, 1, tzinfo=UTC)),
        ("0 4 * * MON", datetime(2026, 3, 2, 4, tzinfo=UTC)),
        ("*/15 * * * * *", datetime(2026, 2, 27, 23, 59, 45, tzinfo=UTC)),
    ],
)
def test_the_next_moment(text: str, expected: datetime) -> None:
    """Cron with and without seconds, and every so often."""
    assert parse_schedule(text)(AT) == expected


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_schedules_are_in_utc(zone: str) -> None:
    """Whatever time zone a session of the database speaks in."""
    here = AT.astimezone(ZoneInfo(zone))
    assert parse_schedule("30 3 * * *")(here) == datetime(2026, 2, 28, 3, 30, tzinfo=UTC)


def test_a_pause_is_as_long_where_clocks_change() -> None:
    """An hour before they are put back, two hours later is two hours later."""
    moment = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    passed = parse_schedule("every 2 hours")(moment.astimezone(ZoneInfo("Europe/Berlin"))) - moment
    assert passed == timedelta(hours=2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "often",
        "61 * * * *",
        "0 0 30 2 *",
        "every 0 seconds",
        "every -1 seconds",
        "every 3 days",
        "@daily",
        "every 100000000 hours",
        "every 99999999999999999 hours",
        "every 0.0000001 seconds",
    ],
)
def test_what_cannot_be_read(text: str) -> None:
    """Refused by name, with the value and the fix; also what never comes."""
    with pytest.raises(InvalidArgument) as caught:
        parse_schedule(text)
    assert caught.value.field == "schedule" and caught.value.fix
    assert caught.value.received == repr(text)


def test_usual_schedules_can_be_read() -> None:
    """Those of every duty."""
    for duty in DUTIES:
        assert parse_schedule(duty.schedule)(AT) > AT
