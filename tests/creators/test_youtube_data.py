"""Reading YouTube's resources: durations, and fields that are missing or make no sense."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.creators.support import unhurried

from streamvibe.creators.connectors.youtube_data import (
    parse_duration,
    read_channel,
    read_page,
    read_video,
)
from streamvibe.creators.local_youtube.resources import format_duration
from streamvibe.creators.model import Content, Creator

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("snippet", "contentDetails", "statistics", "pageInfo", "items", "nextPageToken", "id", "kind")
INNER = (
    "title", "description", "customUrl", "publishedAt", "thumbnails", "resourceId", "videoId", "duration",
    "viewCount", "likeCount", "subscriberCount", "hiddenSubscriberCount", "relatedPlaylists", "totalResults",
)  # fmt: skip
BODIES = st.dictionaries(
    st.sampled_from(FIELDS),
    JSON_VALUES | st.dictionaries(st.sampled_from(INNER), JSON_VALUES),
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT4M13S", 253),
        ("PT1H", 3600),
        ("PT1H2M3S", 3723),
        ("PT15M33.5S", 933),
        ("P1DT1H1S", 90001),
        ("P2W", 1209600),
        ("P0D", 0),
        ("PT0S", 0),
        ("PT90M", 5400),
    ],
)
def test_durations_youtube_sends_are_read_as_seconds(text: str, seconds: int) -> None:
    """Hours, minutes and seconds, days of long streams, and P0D of a running stream, become seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "1H",
        "PT1",
        "P1Y",
        "P1M",
        "PT-5S",
        "PT1S2M",
        "pt1s",
        " PT1S",
        "PT1S\n",
        "PT\u0661S",
    ],
)
def test_what_is_not_a_fixed_duration_is_refused(text: str) -> None:
    """Anything without a fixed number of seconds is a ValueError that shows what was received."""
    with pytest.raises(ValueError, match="received"):
        parse_duration(text)


@unhurried
@given(st.integers(0, 10**9))
def test_every_duration_survives_being_written_and_read(seconds: int) -> None:
    """Writing seconds the way YouTube does and reading them back gives the same seconds."""
    assert parse_duration(format_duration(seconds)) == seconds


@unhurried
@given(st.text(alphabet="PTDHMSW0123456789.-", max_size=30))
def test_the_duration_parser_answers_or_refuses(text: str) -> None:
    """Any text is either a number of seconds, 0 or more, or a ValueError."""
    try:
        assert parse_duration(text) >= 0
    except ValueError as error:
        assert "not a duration" in str(error)


@unhurried
@given(BODIES)
def test_no_json_breaks_the_readers(body: dict[str, Any]) -> None:
    """Whatever JSON stands in for a resource is read, or left out; it never raises, and fits the columns."""
    read_page(body)
    channel, video = read_channel(body), read_video(body)
    values: list[object] = []
    if channel is not None:
        values += [getattr(channel.creator, name) for name in Creator.__slots__]
    if video is not None:
        values += [getattr(video, name) for name in Content.__slots__]
    for value in values:
        assert not isinstance(value, int) or 0 <= value < 2**63
        assert not isinstance(value, str) or ("\x00" not in value and value.encode("utf-8") is not None)


def test_hidden_numbers_are_unknown_not_zero() -> None:
    """Subscribers, likes and comments that the creator hides are None; numbers beyond a bigint are, too."""
    channel = read_channel(
        {
            "id": "UC1",
            "statistics": {"hiddenSubscriberCount": True, "subscriberCount": "0", "videoCount": "7"},
        }
    )
    video = read_video({"id": "v", "statistics": {"viewCount": str(2**63), "favoriteCount": "0"}})
    assert channel is not None and video is not None
    assert (channel.creator.subscriber_count, channel.creator.video_count) == (None, 7)
    assert (video.view_count, video.like_count, video.comment_count) == (None, None, None)


def test_a_channel_without_an_uploads_playlist_has_none() -> None:
    """No contentDetails, or an empty playlist id, is a channel whose uploads cannot be listed."""
    cases: list[object] = [{}, {"relatedPlaylists": {}}, {"relatedPlaylists": {"uploads": ""}}, None]
    for details in cases:
        channel = read_channel({"id": "UC1", "contentDetails": details})
        assert channel is not None and channel.uploads_playlist is None


def test_text_that_no_column_can_hold_is_cleaned() -> None:
    """NUL and lone surrogates, which JSON can spell and PostgreSQL cannot hold, stay out."""
    video = read_video(json.loads('{"id": "v", "snippet": {"title": "a\\u0000b\\ud83dc"}}'))
    assert video is not None and video.title == "ab?c"


def test_a_page_lists_each_video_once_and_skips_what_has_no_id() -> None:
    """Repeated entries count once; entries without a usable video id are left out; order is kept."""
    items = [
        {"contentDetails": {"videoId": "b"}},
        {"contentDetails": {}},
        "nonsense",
        {"snippet": {"resourceId": {"videoId": "a"}}},
        {"contentDetails": {"videoId": "b"}},
        {"contentDetails": {"videoId": "x,y"}},
    ]
    page = read_page({"items": items, "pageInfo": {"totalResults": 6}, "nextPageToken": ""})
    assert (page.video_ids, page.total, page.next_token) == (("b", "a"), 6, None)


def test_times_and_thumbnails_that_make_no_sense_are_unknown() -> None:
    """A time without a zone, a time that is none, and a thumbnail that is no URL become None."""
    for published, thumbnail in (("2024-01-01T00:00:00", "javascript:x"), ("yesterday", 5)):
        snippet = {"publishedAt": published, "thumbnails": {"high": {"url": thumbnail}}}
        video = read_video({"id": "v", "snippet": snippet})
        assert video is not None and (video.published_at, video.thumbnail_url) == (None, None)
