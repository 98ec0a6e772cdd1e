"""The YouTube client against the local YouTube, over real HTTP."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event

import pytest
from tests.creators import discovery

from streamvibe import PermanentError, RetryLater
from streamvibe.creators.connectors import youtube as client
from streamvibe.creators.connectors.youtube import YouTube
from streamvibe.creators.connectors.youtube_errors import NotThereError, YouTubeUnavailableError
from streamvibe.creators.local_youtube import Answer, Call, LocalYouTube

BIG, HIDDEN, PARTLY, SMALL = "@harbourlanekitchen", "@nightskyalmanac", "@riverbendwoodworks", "@velodiaries"
NOON = datetime(2025, 7, 1, 12, 0, tzinfo=UTC)


def connect(server: LocalYouTube, **options: float) -> YouTube:
    return YouTube(base_url=server.base_url, api_key=server.api_key, clock=lambda: NOON, **options)


async def list_all(youtube: YouTube, account: str) -> tuple[list[int], list[str]]:
    """The sizes of the pages and the ids of the videos shown."""
    channel = await youtube.channel(account)
    assert channel.uploads_playlist is not None
    sizes, shown = [], []
    async for page in youtube.uploads(channel.uploads_playlist):
        sizes.append(len(page.video_ids))
        shown += [video.platform_content_id for video in await youtube.videos(page.video_ids)]
    return sizes, shown


async def failure(server: LocalYouTube, **options: float) -> Exception:
    """What asking for a channel raises."""
    async with connect(server, **options) as youtube:
        with pytest.raises(Exception) as caught:
            await youtube.channel(BIG)
        assert youtube.quota_units == 1
    return caught.value


async def test_a_channel_is_found_by_id_and_by_handle() -> None:
    """Both name the same channel; a handle is not case sensitive; hidden subscribers are None."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            by_handle = await youtube.channel("@NightSkyAlmanac")
            by_id = await youtube.channel(by_handle.creator.platform_account_id)
    assert by_handle == by_id
    assert by_id.creator.title == "Night Sky Almanac" and by_id.creator.handle == HIDDEN
    assert by_id.creator.subscriber_count is None and by_id.creator.video_count == 61
    assert by_id.uploads_playlist == "UU" + by_id.creator.platform_account_id[2:]


async def test_all_videos_are_listed_in_pages_of_fifty_at_one_unit_a_call() -> None:
    """250 videos: five pages, five calls of fifty ids, one for the channel; both sides count eleven units."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            sizes, shown = await list_all(youtube, BIG)
            units = youtube.quota_units
    assert sizes == [50] * 5
    assert shown == [video.id for video in server.dataset.channel(BIG).videos]
    assert [call.method for call in server.calls] == ["channels"] + ["playlistItems", "videos"] * 5
    assert units == server.units_used == 11


async def test_private_and_deleted_videos_are_listed_but_not_shown() -> None:
    """The playlist names them, videos.list leaves them out; the last page may be short."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            sizes, shown = await list_all(youtube, PARTLY)
    channel = server.dataset.channel(PARTLY)
    assert sizes == [50, 50, 12]
    assert set(shown) == {video.id for video in channel.public_videos} and len(shown) == 105


async def test_what_is_shown_arrives_as_it_is() -> None:
    """Title, time, duration, numbers and thumbnail of a video equal the data behind it."""
    with LocalYouTube() as server:
        source = server.dataset.channel(SMALL).videos[1]
        async with connect(server) as youtube:
            (video,) = await youtube.videos([source.id])
    assert (video.title, video.description) == (source.title, source.description)
    assert (video.published_at, video.duration_seconds) == (source.published_at, source.seconds)
    assert (video.view_count, video.like_count, video.comment_count) == (source.views, source.likes, None)
    assert video.thumbnail_url == f"https://i.ytimg.com/vi/{source.id}/hqdefault.jpg"


async def test_every_request_is_one_that_google_describes() -> None:
    """Every parameter of every call stands in Google's description of the method and keeps its limits."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            await list_all(youtube, PARTLY)
            await youtube.channel(server.dataset.channel(BIG).id)
    assert {call.method for call in server.calls} == {"channels", "playlistItems", "videos"}
    for call in server.calls:
        assert discovery.faults_of_query(call.method, call.query) == []
        assert call.headers[discovery.KEY_HEADER] == server.api_key


async def test_too_many_ids_are_refused_before_they_are_sent() -> None:
    """More than fifty ids are a mistake of the caller; no ids at all need no call."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            with pytest.raises(ValueError, match="at most 50"):
                await youtube.videos([str(n) for n in range(51)])
            assert await youtube.videos([]) == []
    assert server.units_used == 0


async def test_no_such_channel_is_permanent() -> None:
    """An unknown id and an unknown handle fail for good and say what to give."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            for account in ("UCdoesnotexist", "@doesnotexist", "abc123"):
                with pytest.raises(NotThereError, match=f"{account}.*starts with UC") as caught:
                    await youtube.channel(account)
                assert caught.value.reason == "channelNotFound"


async def test_no_such_playlist_is_permanent() -> None:
    """An uploads playlist that YouTube does not have fails for good."""
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            with pytest.raises(NotThereError) as caught:
                [page async for page in youtube.uploads("UUnone")]
    assert caught.value.reason == "playlistNotFound"


async def test_a_spent_quota_waits_for_midnight_pacific() -> None:
    """The call after the last unit asks to come back at the reset: at noon UTC in July, 19 hours later."""
    with LocalYouTube(quota_units=3) as server:
        async with connect(server) as youtube:
            with pytest.raises(RetryLater) as caught:
                await list_all(youtube, BIG)
            assert youtube.quota_units == 4
    assert caught.value.after == 19 * 3600 + 60


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_trouble_is_retried_after_what_youtube_asks(status: int) -> None:
    """Retry-After is honoured; without one the error leaves the delay to the backoff."""
    with LocalYouTube(fail_next=1, fail_status=status, retry_after=17) as server:
        error = await failure(server)
    assert isinstance(error, RetryLater) and error.after == 17
    with LocalYouTube(fail_next=1, fail_status=status) as server:
        assert isinstance(await failure(server), YouTubeUnavailableError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html><title>Sign in to the network</title></html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"{}",
    ],
)
@pytest.mark.parametrize("status", [200, 403, 404, 502])
async def test_a_body_that_is_not_youtubes_is_retried(body: bytes, status: int) -> None:
    """Half an answer, a proxy's page or any other JSON is never taken for a channel, or for no channel."""
    with LocalYouTube(intercept=lambda call: Answer(status, body)) as server:
        assert isinstance(await failure(server), YouTubeUnavailableError)


@pytest.mark.parametrize("items", ["absent", None, {}, "none"])
async def test_a_list_without_items_is_retried(items: object) -> None:
    """A playlist answer without an array of items is not an empty playlist."""
    body = {"kind": "youtube#playlistItemListResponse"} | ({} if items == "absent" else {"items": items})
    with LocalYouTube(intercept=lambda call: Answer.json(body)) as server:
        async with connect(server) as youtube:
            with pytest.raises(YouTubeUnavailableError):
                [page async for page in youtube.uploads("UUany")]


async def test_a_redirect_is_not_followed() -> None:
    """The key is not carried to wherever an answer points."""
    seen: list[str] = []

    def redirect(call: Call) -> Answer:
        seen.append(call.method)
        return Answer(302, b"", {"Location": "/youtube/v3/videos"})

    with LocalYouTube(intercept=redirect) as server:
        assert isinstance(await failure(server), YouTubeUnavailableError)
    assert seen == ["channels"]


async def test_a_connection_that_breaks_is_retried() -> None:
    """A server that closes without a word, and one that is not there, are both worth another attempt."""
    with LocalYouTube(intercept=lambda call: Answer(body=None)) as server:
        assert isinstance(await failure(server), YouTubeUnavailableError)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with YouTube(base_url=url, api_key="key") as youtube:
            with pytest.raises(YouTubeUnavailableError, match="could not be reached"):
                await youtube.channel(BIG)


@pytest.mark.parametrize(
    ("timeout", "deadline", "message"), [(0.05, 15.0, "ReadTimeout"), (15.0, 0.05, "within 0.05 seconds")]
)
async def test_a_silent_server_is_given_up(timeout: float, deadline: float, message: str) -> None:  # noqa: ASYNC109
    """Neither a single read nor a whole call waits longer than its limit."""
    done = Event()

    def silent(call: Call) -> None:
        done.wait(60)

    with LocalYouTube(intercept=silent) as server:
        try:
            error = await failure(server, timeout=timeout, deadline=deadline)
        finally:
            done.set()
    assert isinstance(error, YouTubeUnavailableError) and message in str(error)


def looping(pages: Callable[[int], str]) -> Callable[[Call], Answer | None]:
    """A playlist of one-video pages whose n-th page points on to `pages(n)`."""

    def answer(call: Call) -> Answer | None:
        if call.method != "playlistItems":
            return None
        here = int(call.query.get("pageToken", "0").partition("-")[0])
        item = {"contentDetails": {"videoId": f"video-{here}"}}
        body = {"kind": "youtube#playlistItemListResponse", "items": [item], "nextPageToken": pages(here)}
        return Answer.json(body)

    return answer


async def test_pages_that_lead_back_are_given_up() -> None:
    """A page token seen before ends the listing with an error worth a retry, after each page came once."""
    with LocalYouTube(intercept=looping(lambda here: str((here + 1) % 3))) as server:
        async with connect(server) as youtube:
            shown: list[str] = []
            with pytest.raises(YouTubeUnavailableError, match="earlier one"):
                async for page in youtube.uploads("UUany"):
                    shown += page.video_ids
    assert shown == ["video-0", "video-1", "video-2"]


async def test_a_list_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing stops at its limit of pages; its last page still points on."""
    monkeypatch.setattr(client, "_MAX_PAGES", 4)
    with LocalYouTube(intercept=looping(lambda here: str(here + 1))) as server:
        async with connect(server) as youtube:
            pages = [page async for page in youtube.uploads("UUany")]
    assert len(pages) == 4 and pages[-1].next_token == "4"


async def test_a_video_on_two_pages_is_listed_once() -> None:
    """An upload during the listing moves every video down one place: the one that comes again is left out."""
    with LocalYouTube() as server:
        videos = server.dataset.channel(PARTLY).videos
        listed: list[str] = []
        async with connect(server) as youtube:
            async for page in youtube.uploads(server.dataset.channel(PARTLY).uploads_playlist):
                listed += page.video_ids
                if len(listed) == 50:
                    videos.insert(0, server.dataset.channel(SMALL).videos[0])
    assert len(listed) == len(set(listed)) == 112


async def test_videos_nobody_asked_for_are_left_out() -> None:
    """Only videos that were asked for come back, whatever the answer holds."""
    body = {"kind": "youtube#videoListResponse", "items": [{"id": "asked"}, {"id": "other"}, {"id": "asked"}]}
    with LocalYouTube(intercept=lambda call: Answer.json(body)) as server:
        async with connect(server) as youtube:
            videos = await youtube.videos(["asked", "missing"])
    assert [video.platform_content_id for video in videos] == ["asked"]


KEY = "AIzaSyNeverShown"


def leaking(call: Call) -> Answer:
    """An error that repeats everything it was sent."""
    text = f"refused {json.dumps(dict(call.headers))}"
    errors = [{"reason": f"because {text}", "message": text}]
    return Answer.json({"error": {"code": 400, "message": text, "errors": errors}}, status=400)


@pytest.mark.parametrize(
    "server",
    [
        LocalYouTube(),
        LocalYouTube(api_key=KEY, quota_units=0),
        LocalYouTube(api_key=KEY, fail_next=1),
        LocalYouTube(intercept=leaking),
        LocalYouTube(intercept=lambda call: Answer(body=None)),
        LocalYouTube(intercept=lambda call: Answer(200, b"<html>")),
    ],
    ids=["wrong key", "quota", "unavailable", "echo", "broken", "html"],
)
async def test_the_key_is_never_shown(server: LocalYouTube, caplog: pytest.LogCaptureFixture) -> None:
    """Not in errors, their causes and context, not in logs down to DEBUG, not in a repr, not in a URL."""
    caplog.set_level(logging.DEBUG)
    with server:
        async with YouTube(base_url=server.base_url, api_key=KEY) as youtube:
            with pytest.raises(Exception) as caught:
                await youtube.channel(BIG)
            shown = [repr(youtube), repr(vars(youtube)), str(youtube)]
    error: BaseException | None = caught.value
    while error is not None:
        shown += [str(error), repr(error), repr(vars(error)), repr(error.args)]
        # An HTTP error brings its request along, and that its headers.
        shown.append(repr(getattr(getattr(error, "request", None), "headers", "")))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert caplog.records
    assert all(KEY not in text for text in [*shown, caplog.text])
    assert server.calls[0].headers[discovery.KEY_HEADER] == KEY and KEY not in str(server.calls)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ", "tab\t"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(key: str) -> None:
    """A key that no HTTP header can hold is refused before HTTP errors could repeat it."""
    with pytest.raises(PermanentError, match="Copy it again") as caught:
        YouTube(api_key=key)
    assert not key or key not in str(caught.value)


async def test_a_wrong_key_and_a_missing_project_are_permanent() -> None:
    """Google's answer to a wrong key fails the job for good and names the setting."""
    with LocalYouTube() as server:
        async with YouTube(base_url=server.base_url, api_key="wrong") as youtube:
            with pytest.raises(PermanentError, match=r"API_KEY_INVALID.*STREAMVIBE_YOUTUBE_API_KEY"):
                await youtube.channel(BIG)


async def test_a_proxy_of_the_environment_does_not_hide_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is for the outside: a server on this machine is reached directly."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with LocalYouTube() as server:
        async with connect(server) as youtube:
            assert (await youtube.channel(BIG)).creator.handle == BIG


async def test_a_cancelled_call_ends_at_once() -> None:
    """Cancelling the task passes through: it is not turned into an error worth a retry."""
    arrived, done = Event(), Event()

    def silent(call: Call) -> None:
        arrived.set()
        done.wait(60)

    with LocalYouTube(intercept=silent) as server:
        async with connect(server) as youtube:
            task = asyncio.create_task(youtube.channel(BIG))
            await asyncio.to_thread(arrived.wait, 60)
            task.cancel()
            try:
                with pytest.raises(asyncio.CancelledError):
                    await task
            finally:
                done.set()
