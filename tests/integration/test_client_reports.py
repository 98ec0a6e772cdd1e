"""client.reports and client.slow_statements: what the SQL says, as types; bad input is refused by name."""

from datetime import timedelta

import pytest
from tests.sql import kit
from tests.support.databases import Database

from streamvibe import Client
from streamvibe.errors import InvalidArgument


async def test_reports(client: Client, database: Database) -> None:
    """The latest, or as many as are asked for, newest first; none of a kind that was not made."""
    assert await client.reports() == []
    conn = database.connect()
    for _ in range(2):
        database.advance_clock(timedelta(days=7))
        kit.call(conn, "make_report", p_kind="weekly")
    [latest] = await client.reports()
    both = await client.reports("weekly", limit=5)
    assert both[0] == latest and len(both) == 2
    assert latest.kind == "weekly" and latest.period_start.utcoffset() == timedelta(0)
    assert latest.period_end - latest.period_start == timedelta(days=7)
    assert both[1].period_end == latest.period_start < latest.made_at
    assert latest.content["jobs"]["completed"] == 0
    assert await client.reports("monthly") == []


async def test_slow_statements(client: Client) -> None:
    """Where pg_stat_statements is not there: no items, and why."""
    found = await client.slow_statements()
    assert found.items == []
    assert found.problem and "pg_stat_statements" in found.problem and "CREATE EXTENSION" in (found.fix or "")


async def test_bad_input(client: Client) -> None:
    """An unknown kind, and limits out of range."""
    for call, field in (
        (client.reports("yearly"), "kind"),
        (client.reports(limit=0), "limit"),
        (client.slow_statements(limit=1001), "limit"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.field == field
