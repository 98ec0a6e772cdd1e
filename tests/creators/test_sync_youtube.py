"""sync_youtube: a channel copied into the catalogue, page by page, over real HTTP into a real database."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg.rows import dict_row
from tests.creators.support import RecordingContext
from tests.support.databases import Database

from streamvibe import JobCancelled, PermanentError, RetryLater
from streamvibe.creators import jobs
from streamvibe.creators.catalog import Catalog
from streamvibe.creators.connectors.youtube_errors import NotThereError, YouTubeUnavailableError
from streamvibe.creators.jobs import SyncYouTubeParams, SyncYouTubeResult, sync_youtube_job
from streamvibe.creators.local_youtube import Answer, Call, LocalYouTube

BIG, HIDDEN, PARTLY, SMALL = "@harbourlanekitchen", "@nightskyalmanac", "@riverbendwoodworks", "@velodiaries"
EMPTY = "@justopenedstudio"


@pytest.fixture
def youtube() -> Iterator[LocalYouTube]:
    with LocalYouTube() as running:
        yield running


async def sync(
    youtube: LocalYouTube,
    catalog: Catalog,
    account: str,
    *,
    max_videos: int | None = None,
    ctx: RecordingContext | None = None,
) -> SyncYouTubeResult:
    job = sync_youtube_job(base_url=youtube.base_url, api_key=youtube.api_key, catalog=catalog)
    params = SyncYouTubeParams(social_account_id=account, max_videos=max_videos)
    result = job(ctx or RecordingContext(), params)
    assert not isinstance(result, SyncYouTubeResult)
    return await result


def table(database: Database, name: str) -> list[dict[str, Any]]:
    """Every row, with the transaction that wrote it."""
    cursor = database.connect().cursor(row_factory=dict_row)
    return cursor.execute(f"SELECT xmin::text, t.* FROM creators.{name} t ORDER BY 3, 4".encode()).fetchall()


def videos(database: Database) -> dict[str, bool]:
    """Video id to available."""
    return {row["platform_content_id"]: row["available"] for row in table(database, "content")}


async def test_a_channel_of_250_videos_is_copied_whole(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """Every video is in the catalogue as the API shows it; the result says what it took: 5 pages, 11 units."""
    ctx = RecordingContext()
    channel = youtube.dataset.channel(BIG)
    result = await sync(youtube, catalog, BIG, ctx=ctx)
    assert result == SyncYouTubeResult(
        channel_id=channel.id,
        title="Harbour Lane Kitchen",
        videos_synced=250,
        videos_unavailable=0,
        quota_units=11,
        pages=5,
    )
    (creator,) = table(database, "creator")
    assert (creator["platform_account_id"], creator["handle"], creator["video_count"]) == (
        channel.id,
        BIG,
        250,
    )
    stored = {row["platform_content_id"]: row for row in table(database, "content")}
    assert len(stored) == 250
    for video in channel.videos:
        row = stored[video.id]
        assert (row["title"], row["published_at"]) == (video.title, video.published_at)
        assert (row["duration_seconds"], row["view_count"]) == (video.seconds, video.views)
        assert (row["like_count"], row["comment_count"]) == (video.likes, video.comments)
        assert row["available"] and row["platform_account_id"] == channel.id


async def test_progress_and_logs_tell_the_way(youtube: LocalYouTube, catalog: Catalog) -> None:
    """Progress rises by page to 1, in words, too; start, each page and end are logged with their numbers."""
    ctx = RecordingContext()
    await sync(youtube, catalog, BIG, ctx=ctx)
    assert ctx.steps[:3] == [
        (0.2, "50 of 250 videos"),
        (0.4, "100 of 250 videos"),
        (0.6, "150 of 250 videos"),
    ]
    assert ctx.steps[-1] == (1.0, "250 videos")
    assert [message for _, message, _ in ctx.logs] == [
        "Sync of @harbourlanekitchen started",
        "Page 1: 50 of 250 videos",
        "Page 2: 100 of 250 videos",
        "Page 3: 150 of 250 videos",
        "Page 4: 200 of 250 videos",
        "Page 5: 250 of 250 videos",
        "Sync of @harbourlanekitchen finished",
    ]
    assert ctx.logs[3][2] == {"page": 3, "videos_shown": 150, "videos_hidden": 0, "quota_units": 7}
    assert ctx.logs[-1][2]["videos_synced"] == 250
    assert youtube.api_key not in str(ctx.logs)


async def test_a_second_sync_changes_nothing_but_the_time_of_asking(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """Same result, and not one row of contents written; only the creator's fetched_at differs."""
    first = await sync(youtube, catalog, PARTLY)
    before = table(database, "content"), table(database, "creator")
    assert await sync(youtube, catalog, PARTLY) == first
    after = table(database, "content"), table(database, "creator")
    assert after[0] == before[0]
    unlike = {name for name in after[1][0] if after[1][0][name] != before[1][0][name]}
    assert unlike == {"fetched_at", "xmin"}


async def test_private_and_deleted_videos_are_counted_and_not_invented(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """What the playlist lists but YouTube does not show is counted as unavailable, not stored as 'Private video'."""
    result = await sync(youtube, catalog, PARTLY)
    assert (result.videos_synced, result.videos_unavailable, result.pages) == (105, 7, 3)
    shown = {video.id for video in youtube.dataset.channel(PARTLY).public_videos}
    assert videos(database) == dict.fromkeys(shown, True)


async def test_hidden_numbers_stay_unknown(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """Hidden subscribers, likes and comments are NULL; a running stream lasts 0 seconds."""
    await sync(youtube, catalog, HIDDEN)
    (creator,) = table(database, "creator")
    rows = table(database, "content")
    assert creator["subscriber_count"] is None
    assert {row["like_count"] for row in rows} == {row["comment_count"] for row in rows} == {None}
    assert sum(row["duration_seconds"] == 0 for row in rows) == 2


async def test_vanished_videos_are_marked_and_come_back(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """A video made private, and one gone from the list, stay as unavailable rows; shown again, they are available."""
    await sync(youtube, catalog, SMALL)
    channel = youtube.dataset.channel(SMALL)
    private, removed = channel.videos[3], channel.videos.pop(7)
    private.visibility = "private"
    ctx = RecordingContext()
    gone = await sync(youtube, catalog, SMALL, ctx=ctx)
    assert (gone.videos_synced, gone.videos_unavailable) == (10, 2)
    assert [video for video, available in videos(database).items() if not available] == sorted(
        [private.id, removed.id]
    )
    assert ctx.warnings() == ["1 saved videos were not listed, 1 of them are gone"]
    # A later sync asks no more for what is known to be gone, and counts it all the same.
    again = await sync(youtube, catalog, SMALL)
    assert (again.videos_unavailable, again.quota_units) == (2, gone.quota_units - 1)
    private.visibility = "public"
    channel.videos.append(removed)
    assert (await sync(youtube, catalog, SMALL)).videos_unavailable == 0
    assert all(videos(database).values())


async def test_a_list_that_skips_videos_hides_none(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """A video that is missing from the list but still shown stays available: the list alone proves nothing."""
    await sync(youtube, catalog, SMALL)

    def skip(call: Call) -> Answer | None:
        if call.method != "playlistItems":
            return None
        return Answer.json({"kind": "youtube#playlistItemListResponse", "items": []})

    with LocalYouTube(intercept=skip) as forgetful:
        result = await sync(forgetful, catalog, SMALL)
    assert (result.videos_synced, result.videos_unavailable) == (12, 0)
    assert all(videos(database).values())


@pytest.mark.parametrize(("wanted", "pages", "units"), [(1, 1, 3), (50, 1, 3), (60, 2, 5), (500, 5, 11)])
async def test_max_videos_stops_early(
    youtube: LocalYouTube, database: Database, catalog: Catalog, wanted: int, pages: int, units: int
) -> None:
    """Only the newest so many are asked for and saved; progress counts to that number."""
    ctx = RecordingContext()
    result = await sync(youtube, catalog, BIG, max_videos=wanted, ctx=ctx)
    count = min(wanted, 250)
    assert (result.videos_synced, result.pages, result.quota_units) == (count, pages, units)
    newest = [video.id for video in youtube.dataset.channel(BIG).videos[:count]]
    assert set(videos(database)) == set(newest)
    assert ctx.steps[-2] == (1.0, f"{count} of {count} videos")


async def test_max_videos_hides_nothing(youtube: LocalYouTube, database: Database, catalog: Catalog) -> None:
    """A partial sync says nothing about the older videos."""
    await sync(youtube, catalog, SMALL)
    youtube.dataset.channel(SMALL).videos.pop()
    result = await sync(youtube, catalog, SMALL, max_videos=5)
    assert result.videos_unavailable == 0 and all(videos(database).values())


async def test_a_channel_without_videos_succeeds(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """YouTube has no playlist for it: the creator is saved, and the log says why there is nothing else."""
    ctx = RecordingContext()
    result = await sync(youtube, catalog, EMPTY, ctx=ctx)
    assert (result.videos_synced, result.pages, result.quota_units) == (0, 0, 2)
    assert ctx.warnings() == ["The channel has no public videos"]
    assert len(table(database, "creator")) == 1


async def test_a_channel_without_an_uploads_list_succeeds(database: Database, catalog: Catalog) -> None:
    """A channel that names no uploads playlist is saved, with a warning."""
    item = {"id": "UCx", "snippet": {"title": "No uploads"}, "contentDetails": {"relatedPlaylists": {}}}
    body = {"kind": "youtube#channelListResponse", "items": [item]}
    ctx = RecordingContext()
    with LocalYouTube(intercept=lambda call: Answer.json(body)) as odd:
        result = await sync(odd, catalog, "UCx", ctx=ctx)
    assert (result.title, result.videos_synced, result.quota_units) == ("No uploads", 0, 1)
    assert ctx.warnings() == ["The channel has no list of uploads"]


async def test_a_missing_playlist_of_a_channel_with_videos_is_an_error(catalog: Catalog) -> None:
    """Only a channel that says it has no videos may lack its playlist."""

    def without(call: Call) -> Answer | None:
        error = {"code": 404, "message": "", "errors": [{"reason": "playlistNotFound"}]}
        return Answer.json({"error": error}, status=404) if call.method == "playlistItems" else None

    with LocalYouTube(intercept=without) as odd, pytest.raises(NotThereError, match="playlistNotFound"):
        await sync(odd, catalog, BIG)


async def test_a_retry_keeps_what_the_failed_attempt_saved(database: Database, catalog: Catalog) -> None:
    """An attempt that runs out of quota on page 3 has saved two; the next one ends with the same rows as ever."""
    with LocalYouTube(quota_units=5) as youtube, pytest.raises(RetryLater) as caught:
        await sync(youtube, catalog, BIG)
    assert 0 < caught.value.after <= timedelta(hours=25, minutes=1).total_seconds()
    saved = videos(database)
    assert len(saved) == 100
    with LocalYouTube() as youtube:
        assert (await sync(youtube, catalog, BIG)).videos_synced == 250
    assert saved.items() <= videos(database).items() and len(videos(database)) == 250


async def test_trouble_on_the_way_is_worth_a_retry(catalog: Catalog) -> None:
    """A 503 fails the attempt with an error that is neither permanent nor bound to a time."""
    with LocalYouTube(fail_next=1) as youtube, pytest.raises(YouTubeUnavailableError) as caught:
        await sync(youtube, catalog, BIG)
    assert not isinstance(caught.value, PermanentError | RetryLater)


async def test_an_unknown_channel_writes_nothing(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """No such channel: a permanent error that names it, and an empty catalogue."""
    with pytest.raises(PermanentError, match="UCnone"):
        await sync(youtube, catalog, "UCnone")
    assert table(database, "creator") == table(database, "content") == []


async def test_cancelling_stops_at_the_next_page(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """A job cancelled after its second page asks for no video of a third and keeps what it saved."""
    ctx = RecordingContext(cancel_after=2)
    with pytest.raises(JobCancelled):
        await sync(youtube, catalog, BIG, ctx=ctx)
    assert len(videos(database)) == 100
    assert [call.method for call in youtube.calls].count("videos") == 2


async def test_more_videos_than_youtube_lists_are_a_warning(
    youtube: LocalYouTube, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the listing ends at its limit, the log says that older videos were left out."""
    monkeypatch.setattr(jobs, "MAX_VIDEOS", 100)
    ctx = RecordingContext()
    await sync(youtube, catalog, PARTLY, ctx=ctx)
    assert ctx.warnings() == ["Only the newest 100 videos are listed"]


async def test_syncs_of_one_channel_at_once_agree(
    youtube: LocalYouTube, database: Database, catalog: Catalog
) -> None:
    """Eight syncs at once, half of a channel that changed meanwhile: no deadlock, and the rows of a single sync."""
    await sync(youtube, catalog, PARTLY)
    changed = youtube.dataset.channel(PARTLY)
    for video in changed.videos[::2]:
        video.views += 1
    changed.videos.pop(60)
    changed.videos[20].visibility = "deleted"
    results = await asyncio.gather(*(sync(youtube, catalog, PARTLY) for _ in range(8)))
    assert {(r.videos_synced, r.videos_unavailable) for r in results} == {(103, 9)}
    together = [row | {"xmin": None, "updated_at": None} for row in table(database, "content")]
    database.connect().execute("TRUNCATE creators.content, creators.creator")
    await sync(youtube, catalog, PARTLY)
    alone = [row["platform_content_id"] for row in table(database, "content")]
    shown = {video.id: video.views for video in changed.public_videos}
    assert {row["platform_content_id"]: row["view_count"] for row in together if row["available"]} == shown
    assert sorted(alone) == sorted(shown) and len(together) == 105


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"social_account_id": ""},
        {"social_account_id": "UC1,UC2"},
        {"social_account_id": "a b"},
        {"social_account_id": "UC1\n"},
        {"social_account_id": "https://youtube.com/@x"},
        {"social_account_id": "x" * 101},
        {"social_account_id": "UC1", "max_videos": 0},
        {"social_account_id": "UC1", "max_videos": 20_001},
        {"social_account_id": "UC1", "extra": 1},
        {"social_account_id": 5},
    ],
)
def test_params_that_name_no_account_are_refused(params: dict[str, Any]) -> None:
    """Empty, several, or not an id or handle: refused when requested, before any call is made."""
    with pytest.raises(ValueError, match="validation error"):
        SyncYouTubeParams.model_validate(params)


@pytest.mark.parametrize(
    "account", ["UCrp5STkKMubSjmOgK2fQCOu", "@harbourlanekitchen", "@ジャズ.part-1·a", "abc123"]
)
def test_params_take_ids_and_handles(account: str) -> None:
    """Channel ids and handles of any script are accepted; max_videos may be left out."""
    assert SyncYouTubeParams.model_validate({"social_account_id": account}).max_videos is None
