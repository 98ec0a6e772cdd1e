"""The local YouTube: its answers are Google's, its data is the same everywhere."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.creators import discovery

from streamvibe.creators.local_youtube import Answer, Call, LocalYouTube, load_dataset

EVERY_PART = {
    "channels": "snippet,contentDetails,statistics,status",
    "playlistItems": "snippet,contentDetails,status",
    "videos": "snippet,contentDetails,statistics,status",
}


@pytest.fixture
def youtube() -> Iterator[LocalYouTube]:
    with LocalYouTube() as running:
        yield running


def item(**parts: object) -> dict[str, Any]:
    """An answer with one resource of these parts."""
    return {"items": [parts]}


def get(youtube: LocalYouTube, method: str, **query: str) -> tuple[int, dict[str, Any]]:
    headers = {"X-Goog-Api-Key": youtube.api_key}
    url = f"{youtube.base_url}/youtube/v3/{method}"
    response = httpx2.get(url, params=query, headers=headers, trust_env=False)
    body: dict[str, Any] = response.json()
    return response.status_code, body


def answers(youtube: LocalYouTube) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource of the packaged data, page by page, with every part."""
    for channel in youtube.dataset.channels:
        yield "channels", get(youtube, "channels", id=channel.id, part=EVERY_PART["channels"])[1]
        for start in range(0, len(channel.videos), 50):
            ids = ",".join(video.id for video in channel.videos[start : start + 50])
            yield "videos", get(youtube, "videos", id=ids, part=EVERY_PART["videos"])[1]
        token: str | None = "" if channel.videos else None
        while token is not None:
            query = {"playlistId": channel.uploads_playlist, "maxResults": "50"}
            query |= {"part": EVERY_PART["playlistItems"]} | ({"pageToken": token} if token else {})
            body = get(youtube, "playlistItems", **query)[1]
            yield "playlistItems", body
            token = body.get("nextPageToken")


def test_every_answer_keeps_googles_published_schema(youtube: LocalYouTube) -> None:
    """Every field of every resource of the packaged data is known to Google's schema, with its type."""
    counted: dict[str, int] = {}
    for method, body in answers(youtube):
        assert discovery.faults_of_response(method, body) == []
        counted[method] = counted.get(method, 0) + len(body["items"])
    videos = sum(len(channel.videos) for channel in youtube.dataset.channels)
    public = sum(len(channel.public_videos) for channel in youtube.dataset.channels)
    assert counted == {"channels": 5, "playlistItems": videos, "videos": public}


def test_an_empty_answer_keeps_the_schema_too(youtube: LocalYouTube) -> None:
    """No channel, or no video shown: an answer of the same kind without resources."""
    status, channels = get(youtube, "channels", id="UCnone", part="id")
    assert status == 200 and discovery.faults_of_response("channels", channels) == []
    assert "items" not in channels and channels["pageInfo"]["totalResults"] == 0
    status, videos = get(youtube, "videos", id="none", part="id")
    assert status == 200 and discovery.faults_of_response("videos", videos) == []
    assert videos["items"] == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"kind": 5}, "kind: not a string (is 5)"),
        ({"madeUp": 1}, "madeUp: unknown"),
        ({"items": {}}, "items: not an array"),
        (item(statistics={"viewCount": 7}), "items[0].statistics.viewCount: not a string (is 7)"),
        (item(statistics={"viewCount": "7.5"}), "items[0].statistics.viewCount: not uint64 (is '7.5')"),
        (item(snippet={"publishedAt": "now"}), "items[0].snippet.publishedAt: not a date-time (is 'now')"),
    ],
)
def test_the_schema_check_sees_what_is_wrong(body: dict[str, Any], fault: str) -> None:
    """The check above is not blind: a wrong type, format or name is a fault."""
    assert discovery.faults_of_response("channels", body) == [f"channels.{fault}"]


def test_only_the_asked_parts_come(youtube: LocalYouTube) -> None:
    """A resource has kind, etag, id and the parts asked for, as with Google."""
    _, body = get(youtube, "channels", forHandle="velodiaries", part="statistics")
    assert set(body["items"][0]) == {"kind", "etag", "id", "statistics"}


def test_pages_lead_forth_and_back(youtube: LocalYouTube) -> None:
    """nextPageToken and prevPageToken name the neighbours, and positions run through."""
    playlist = youtube.dataset.channel("@velodiaries").uploads_playlist
    query = {"playlistId": playlist, "part": "snippet", "maxResults": "5"}
    _, first = get(youtube, "playlistItems", **query)
    _, second = get(youtube, "playlistItems", **query, pageToken=first["nextPageToken"])
    _, again = get(youtube, "playlistItems", **query, pageToken=second["prevPageToken"])
    assert again == first and "prevPageToken" not in first
    assert [item["snippet"]["position"] for item in second["items"]] == [5, 6, 7, 8, 9]
    assert first["pageInfo"] == {"totalResults": 12, "resultsPerPage": 5}


@pytest.mark.parametrize(
    ("method", "query", "status", "reason", "location"),
    [
        ("channels", {"part": "id"}, 400, "missingRequiredParameter", "parameters."),
        ("channels", {"id": "UC1"}, 400, "required", "part"),
        ("channels", {"id": "UC1", "part": "madeUp"}, 400, "unknownPart", "part"),
        ("channels", {"id": "UC1", "part": "id", "madeUp": "1"}, 400, "badRequest", None),
        ("channels", {"id": "UC1", "part": "id", "maxResults": "51"}, 400, "invalidParameter", "maxResults"),
        ("playlistItems", {"part": "id"}, 400, "missingRequiredParameter", "parameters."),
        ("playlistItems", {"playlistId": "UUnone", "part": "id"}, 404, "playlistNotFound", "playlistId"),
        ("videos", {"id": "a", "part": "id", "maxResults": "0"}, 400, "invalidParameter", "maxResults"),
        ("videos", {"id": "a", "part": "id", "maxResults": "many"}, 400, "invalidParameter", "maxResults"),
        ("videos", {"id": ",".join("abc" * 17), "part": "id"}, 400, "invalidFilters", "parameters."),
        ("captions", {"part": "id"}, 404, "notFound", None),
    ],
)
def test_bad_requests_get_googles_errors(
    youtube: LocalYouTube, method: str, query: dict[str, str], status: int, reason: str, location: str | None
) -> None:
    """The status, the reason and the parameter at fault are those of Google's error JSON."""
    answered, body = get(youtube, method, **query)
    (entry,) = body["error"]["errors"]
    assert (answered, body["error"]["code"]) == (status, status)
    assert (entry["reason"], entry.get("location")) == (reason, location)


@pytest.mark.parametrize("token", ["x", "####", "UFQ6VVVvdGhlcjo1", "é"])
def test_a_page_token_of_another_list_is_refused(youtube: LocalYouTube, token: str) -> None:
    """Forged tokens, and those of another playlist, are invalid."""
    playlist = youtube.dataset.channel("@velodiaries").uploads_playlist
    status, body = get(youtube, "playlistItems", playlistId=playlist, part="id", pageToken=token)
    assert status == 400 and body["error"]["errors"][0]["reason"] == "invalidPageToken"


def test_a_channel_without_videos_has_no_playlist(youtube: LocalYouTube) -> None:
    """As with Google: the channel names an uploads playlist, and there is none."""
    playlist = youtube.dataset.channel("@justopenedstudio").uploads_playlist
    status, body = get(youtube, "playlistItems", playlistId=playlist, part="id")
    assert status == 404 and body["error"]["errors"][0]["reason"] == "playlistNotFound"


def test_keys_are_checked_like_googles(youtube: LocalYouTube) -> None:
    """No key: 403 PERMISSION_DENIED; a wrong one: 400 API_KEY_INVALID; the query parameter works, too."""
    url = f"{youtube.base_url}/youtube/v3/channels?part=id&id=UC1"
    missing = httpx2.get(url, trust_env=False)
    wrong = httpx2.get(url + "&key=wrong", trust_env=False)
    right = httpx2.get(url + "&key=" + youtube.api_key, trust_env=False)
    assert (missing.status_code, missing.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert (wrong.status_code, wrong.json()["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")
    assert right.status_code == 200


def test_the_quota_ends_when_its_units_are_spent() -> None:
    """Refused calls cost a unit as well; after the last one every call is quotaExceeded."""
    with LocalYouTube(quota_units=2) as youtube:
        assert get(youtube, "channels", id="UC1")[0] == 400
        assert get(youtube, "channels", id="UC1", part="id")[0] == 200
        status, body = get(youtube, "channels", id="UC1", part="id")
    assert (status, body["error"]["errors"][0]["domain"]) == (403, "youtube.quota")
    assert youtube.units_used == 3


def test_faults_can_be_asked_for() -> None:
    """The next calls fail as told, then it works again; intercept sees each call and may answer it."""
    seen: list[Call] = []

    def note(call: Call) -> Answer | None:
        seen.append(call)
        return Answer.json({"odd": True}) if call.method == "videos" else None

    with LocalYouTube(fail_next=2, fail_status=503, delay_seconds=0.001, intercept=note) as youtube:
        statuses = [get(youtube, "channels", id="UC1", part="id")[0] for _ in range(3)]
        assert get(youtube, "videos", id="a", part="id") == (200, {"odd": True})
    assert statuses == [503, 503, 200]
    assert [call.method for call in seen] == ["channels"] * 3 + ["videos"] and seen == list(youtube.calls)


def test_the_packaged_data_is_the_same_everywhere() -> None:
    """Ids, titles and numbers do not depend on the machine or the Python version: documents show them."""
    dataset = load_dataset()
    assert load_dataset() == dataset
    big = dataset.channel("@harbourlanekitchen")
    assert (big.id, len(big.videos)) == ("UCrp5STkKMubSjmOgK2fQCOu", 250)
    first = big.videos[0]
    assert (first.id, first.title) == ("4f3BfItmmw6", "Fish Pie: the Only Recipe You Need")
    assert (first.published_at.isoformat(), first.seconds, first.views) == (
        "2025-10-28T12:17:46+00:00",
        1076,
        135583,
    )


def test_the_packaged_data_has_what_real_channels_have() -> None:
    """250 videos in one channel, hidden numbers, private and deleted videos, streams, none at all."""
    channels = load_dataset().channels
    videos = [video for channel in channels for video in channel.videos]
    assert len({video.id for video in videos}) == len(videos) == 435
    assert all(len({v.title for v in c.videos}) == len(c.videos) for c in channels)
    for channel in channels:
        times = [video.published_at for video in channel.videos]
        assert times == sorted(times, reverse=True)
        assert not times or times[-1] > channel.published_at
    assert any(channel.subscribers is None for channel in channels)
    assert any(not channel.videos for channel in channels)
    assert {video.visibility for video in videos} == {"public", "private", "deleted"}
    assert {video.stream for video in videos} == {"none", "live", "upcoming"}
    assert any(video.likes is None for video in videos) and any(video.comments is None for video in videos)
    assert any(video.seconds > 86_400 for video in videos)


def test_a_server_that_does_not_run_says_so() -> None:
    """Its address exists only while it runs; it can be started again."""
    youtube = LocalYouTube()
    with pytest.raises(RuntimeError, match="context manager"):
        _ = youtube.base_url
    for _ in range(2):
        with youtube:
            assert json.dumps(get(youtube, "videos", id="none", part="id")[1])
