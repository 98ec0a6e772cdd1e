"""The catalogue in PostgreSQL: what is saved, what is not written twice, who may read it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import psycopg
import pytest
from tests.support.databases import Database

from streamvibe.creators.catalog import Catalog
from streamvibe.creators.model import Content, Creator

CREATOR = Creator(platform="youtube", platform_account_id="UC1", title="One", subscriber_count=7)
VIDEO = Content(
    platform="youtube",
    platform_content_id="v1",
    title="First",
    description="Words",
    published_at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    duration_seconds=61,
    view_count=2**40,
    like_count=None,
    comment_count=0,
    thumbnail_url="https://i.ytimg.com/vi/v1/hqdefault.jpg",
)

Rows = list[tuple[object, ...]]


def rows(database: Database, table: str) -> Rows:
    """Every row with the transaction that wrote it: equal rows were not written again."""
    query = f"SELECT xmin::text, t.* FROM creators.{table} t ORDER BY 2, 3, 4".encode()
    return database.connect().execute(query).fetchall()


async def test_a_saved_row_holds_what_was_given(database: Database, catalog: Catalog) -> None:
    """Every field arrives as it was given, unknown numbers as NULL, and the content is available."""
    await catalog.save_creator(CREATOR)
    assert await catalog.save_contents(CREATOR, [VIDEO]) == 1
    creator = database.connect().execute(
        "SELECT title, handle, subscriber_count, view_count, description FROM creators.creator"
    )
    assert creator.fetchall() == [("One", None, 7, None, "")]
    content = database.connect().execute(
        "SELECT platform_account_id, title, description, published_at, duration_seconds, view_count, like_count, "
        "comment_count, thumbnail_url, available FROM creators.content"
    )
    given = (VIDEO.title, VIDEO.description, VIDEO.published_at, 61, 2**40, None, 0, VIDEO.thumbnail_url)
    assert content.fetchall() == [("UC1", *given, True)]


async def test_saving_again_writes_nothing_but_the_time_of_asking(
    database: Database, catalog: Catalog
) -> None:
    """Unchanged contents are not written at all; of the creator only fetched_at moves on."""
    await catalog.save_creator(CREATOR)
    await catalog.save_contents(CREATOR, [VIDEO])
    contents = rows(database, "content")
    before = database.fetch_value("SELECT to_jsonb(c) FROM creators.creator c")
    await catalog.save_creator(CREATOR)
    assert await catalog.save_contents(CREATOR, [VIDEO, VIDEO]) == 0
    assert await catalog.save_contents(CREATOR, []) == 0
    after = database.fetch_value("SELECT to_jsonb(c) FROM creators.creator c")
    assert rows(database, "content") == contents
    assert after.pop("fetched_at") > before.pop("fetched_at")
    assert after == before


@pytest.mark.parametrize(
    "change",
    [
        {"title": "New"},
        {"description": ""},
        {"published_at": None},
        {"duration_seconds": None},
        {"view_count": 1},
        {"like_count": 5},
        {"comment_count": None},
        {"thumbnail_url": None},
    ],
)
async def test_any_changed_value_is_written(
    database: Database, catalog: Catalog, change: dict[str, Any]
) -> None:
    """A new value, to NULL or from it, replaces the old one and moves updated_at; nothing else is touched."""
    await catalog.save_creator(CREATOR)
    other = replace(VIDEO, platform_content_id="v2")
    await catalog.save_contents(CREATOR, [VIDEO, other])
    (kept,) = [row for row in rows(database, "content") if row[2] == "v2"]
    assert await catalog.save_contents(CREATOR, [replace(VIDEO, **change), other]) == 1
    assert kept in rows(database, "content")
    (name, value), *_ = change.items()
    stored = database.connect().execute(
        f"SELECT {name}, updated_at > created_at FROM creators.content WHERE platform_content_id = 'v1'".encode()
    )
    assert stored.fetchall() == [(value, True)]


async def test_a_changed_creator_moves_updated_at(database: Database, catalog: Catalog) -> None:
    """updated_at of a creator says when a value changed, not when somebody asked."""
    await catalog.save_creator(CREATOR)
    await catalog.save_creator(replace(CREATOR, subscriber_count=None))
    stored = "SELECT subscriber_count IS NULL AND updated_at > created_at FROM creators.creator"
    assert database.fetch_value(stored) is True


async def test_hidden_contents_stay_and_may_come_back(database: Database, catalog: Catalog) -> None:
    """Hiding keeps the row and its values; it counts once; saving the content again makes it available."""
    await catalog.save_creator(CREATOR)
    await catalog.save_contents(CREATOR, [VIDEO, replace(VIDEO, platform_content_id="v2")])
    assert await catalog.hide_contents("youtube", ["v1", "unknown"]) == 1
    assert await catalog.hide_contents("youtube", ["v1"]) == 0
    assert await catalog.hide_contents("tiktok", ["v2"]) == 0
    assert await catalog.known_contents(CREATOR) == {"v1": False, "v2": True}
    assert database.fetch_value("SELECT title FROM creators.content WHERE NOT available") == "First"
    assert await catalog.save_contents(CREATOR, [VIDEO]) == 1
    assert await catalog.known_contents(CREATOR) == {"v1": True, "v2": True}


def wait_for_lock_waits(database: Database, count: int) -> None:
    """Return once so many sessions of the database wait for a lock."""
    waiting = """
        SELECT count(*) FROM pg_stat_activity, pg_sleep(0.01)
        WHERE datname = current_database() AND wait_event_type = 'Lock'
    """
    deadline = monotonic() + 60
    while database.fetch_value(waiting) < count:
        assert monotonic() < deadline, "the writers do not wait for each other"


async def test_writers_in_opposite_order_do_not_deadlock(database: Database, catalog: Catalog) -> None:
    """Writers that save and hide the same contents, listed in opposite orders, only wait for each other.

    A session that holds the row in the middle makes them meet: it lets go when all are waiting for a row.
    """
    await catalog.save_creator(CREATOR)
    videos = [replace(VIDEO, platform_content_id=f"v{n:03}") for n in range(101)]
    await catalog.save_contents(CREATOR, videos)
    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM creators.content WHERE platform_content_id = 'v050' FOR UPDATE")
    changed = [replace(video, view_count=3) for video in videos]
    writers = [
        asyncio.create_task(catalog.save_contents(CREATOR, changed)),
        asyncio.create_task(catalog.save_contents(CREATOR, changed[::-1])),
        asyncio.create_task(catalog.hide_contents("youtube", [v.platform_content_id for v in videos[::-1]])),
    ]
    await asyncio.to_thread(wait_for_lock_waits, database, len(writers))
    holder.rollback()
    await asyncio.gather(*writers)
    assert database.fetch_value("SELECT count(*) FROM creators.content WHERE view_count = 3") == 101


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize("table", ["creator", "content"])
def test_api_roles_cannot_touch_the_catalogue(database18: Database, role: str, table: str) -> None:
    """Neither anon nor authenticated may even read the tables."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database18.connect(role).execute(f"SELECT FROM creators.{table}".encode())


async def test_service_role_reads_and_does_not_write(database: Database, catalog: Catalog) -> None:
    """service_role sees every row, through row security, and cannot change one."""
    await catalog.save_creator(CREATOR)
    await catalog.save_contents(CREATOR, [VIDEO])
    service = database.as_service()
    for table in ("creator", "content"):
        assert len(service.execute(f"SELECT FROM creators.{table}".encode()).fetchall()) == 1
        for write in (f"DELETE FROM creators.{table}", f"UPDATE creators.{table} SET title = ''"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(write.encode())


def test_the_platforms_job_type_is_registered(database: Database) -> None:
    """The migration registers sync_youtube, so that SQL clients can request it before any worker runs."""
    registered = "SELECT count(*) FROM streamvibe.job_type WHERE name = 'sync_youtube'"
    assert database.fetch_value(registered) == 1
