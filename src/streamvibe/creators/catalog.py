"""The catalogue of creators and contents: schema `creators` (sql/migrations/0010_creators.sql)."""

from collections.abc import Collection, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from streamvibe.creators.model import Content, Creator

# Unchanged rows are not written again: a second sync of an unchanged channel leaves one new row version, the
# creator's. Rows are locked in key order, here and in _HIDE, so that two syncs of a channel never deadlock.
_SAVE_CREATOR = """
INSERT INTO creators.creator AS c (
    platform, platform_account_id, title, handle, description, thumbnail_url, published_at,
    subscriber_count, video_count, view_count)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (platform, platform_account_id) DO UPDATE SET
    title = excluded.title, handle = excluded.handle, description = excluded.description,
    thumbnail_url = excluded.thumbnail_url, published_at = excluded.published_at,
    subscriber_count = excluded.subscriber_count, video_count = excluded.video_count,
    view_count = excluded.view_count, fetched_at = greatest(c.fetched_at, excluded.fetched_at),
    updated_at = CASE WHEN
        (c.title, c.handle, c.description, c.thumbnail_url, c.published_at,
         c.subscriber_count, c.video_count, c.view_count)
        IS DISTINCT FROM
        (excluded.title, excluded.handle, excluded.description, excluded.thumbnail_url, excluded.published_at,
         excluded.subscriber_count, excluded.video_count, excluded.view_count)
        THEN excluded.updated_at ELSE c.updated_at END
"""

_SAVE_CONTENTS = """
INSERT INTO creators.content AS c (
    platform, platform_account_id, platform_content_id, title, description, thumbnail_url, published_at,
    duration_seconds, view_count, like_count, comment_count)
SELECT %s, %s, new.*
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[],
            %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[])
     AS new (id, title, description, thumbnail_url, published_at, duration, views, likes, comments)
ORDER BY new.id COLLATE "C"
ON CONFLICT (platform, platform_content_id) DO UPDATE SET
    platform_account_id = excluded.platform_account_id, title = excluded.title,
    description = excluded.description, thumbnail_url = excluded.thumbnail_url,
    published_at = excluded.published_at, duration_seconds = excluded.duration_seconds,
    view_count = excluded.view_count, like_count = excluded.like_count,
    comment_count = excluded.comment_count, available = true, updated_at = excluded.updated_at
WHERE NOT c.available
   OR (c.platform_account_id, c.title, c.description, c.thumbnail_url, c.published_at,
       c.duration_seconds, c.view_count, c.like_count, c.comment_count)
      IS DISTINCT FROM
      (excluded.platform_account_id, excluded.title, excluded.description, excluded.thumbnail_url,
       excluded.published_at, excluded.duration_seconds, excluded.view_count, excluded.like_count,
       excluded.comment_count)
"""

_HIDE = """
WITH gone AS (
    SELECT c.platform, c.platform_content_id
    FROM creators.content c
    JOIN unnest(%s::text[]) AS asked (id) ON asked.id = c.platform_content_id
    WHERE c.platform = %s AND c.available
    ORDER BY c.platform, c.platform_content_id
    FOR NO KEY UPDATE OF c
)
UPDATE creators.content c SET available = false, updated_at = pg_catalog.now()
FROM gone
WHERE c.platform = gone.platform AND c.platform_content_id = gone.platform_content_id
"""

_KNOWN = """
SELECT platform_content_id, available FROM creators.content WHERE platform = %s AND platform_account_id = %s
"""


class Catalog:
    """Reads and writes the catalogue through a psycopg pool that the caller opens and closes.

    The pool's role must own the tables or be granted writing on them. Every method is one transaction of its
    own and may be repeated: what is saved already stays as it is.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool

    async def save_creator(self, creator: Creator) -> None:
        """Insert or update one creator. `fetched_at` is set even if nothing else changed."""
        row = (
            creator.platform,
            creator.platform_account_id,
            creator.title,
            creator.handle,
            creator.description,
            creator.thumbnail_url,
            creator.published_at,
            creator.subscriber_count,
            creator.video_count,
            creator.view_count,
        )
        async with self._pool.connection() as connection:
            await connection.execute(_SAVE_CREATOR, row)

    async def save_contents(self, creator: Creator, contents: Sequence[Content]) -> int:
        """Insert or update contents of a saved creator, available (again). Returns the rows written."""
        by_id = {content.platform_content_id: content for content in contents}
        if not by_id:
            return 0
        rows = by_id.values()
        columns = (
            list(by_id),
            [row.title for row in rows],
            [row.description for row in rows],
            [row.thumbnail_url for row in rows],
            [row.published_at for row in rows],
            [row.duration_seconds for row in rows],
            [row.view_count for row in rows],
            [row.like_count for row in rows],
            [row.comment_count for row in rows],
        )
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _SAVE_CONTENTS, (creator.platform, creator.platform_account_id, *columns)
            )
            return cursor.rowcount

    async def hide_contents(self, platform: str, content_ids: Collection[str]) -> int:
        """Mark contents as no longer available. Returns how many were available until now."""
        if not content_ids:
            return 0
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_HIDE, (list(content_ids), platform))
            return cursor.rowcount

    async def known_contents(self, creator: Creator) -> dict[str, bool]:
        """The creator's saved contents: platform id → available."""
        key = (creator.platform, creator.platform_account_id)
        async with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_KNOWN, key)
            return dict(await cursor.fetchall())
