"""Reading the resources of the YouTube Data API v3 into the catalogue's types.

A field that is missing or makes no sense becomes None (or empty text) instead of failing the page: only an
item without an id is dropped. Field names are those of the API's discovery document.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from streamvibe.creators.model import Content, Creator

PLATFORM = "youtube"

_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.\d+)?S)?)?",
    re.ASCII,
)
_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_THUMBNAILS = ("high", "medium", "standard", "maxres", "default")
# What the columns hold: bigint counts, integer seconds, and timestamps that PostgreSQL can store.
_MAX_COUNT = 2**63 - 1
_MAX_SECONDS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel, and where its uploads are listed; None when YouTube gives it no uploads playlist."""

    creator: Creator
    uploads_playlist: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a playlist: video ids in the playlist's order, without repetitions.

    `total` is YouTube's own count of the playlist, None when it does not say.
    """

    video_ids: tuple[str, ...]
    total: int | None
    next_token: str | None


def parse_duration(text: str) -> int:
    """Seconds in an ISO 8601 duration as YouTube writes them: `PT1H2M3S`, `P1DT2H`, `P0D` (0: a live stream).

    Parts of a second are cut off. Years and months, which have no fixed length, are refused with ValueError.
    """
    match = _DURATION.fullmatch(text)
    parts = {name: int(value) for name, value in match.groupdict().items() if value} if match else {}
    if not parts or text.endswith("T"):
        raise ValueError(f"not a duration such as PT4M13S (received {text[:40]!r})")
    return sum(_SECONDS[name] * value for name, value in parts.items())


def read_channel(item: Mapping[str, object]) -> Channel | None:
    """A `channel` resource with the parts snippet, contentDetails and statistics; None without an id."""
    account_id = _id(item.get("id"))
    if account_id is None:
        return None
    snippet, statistics = _object(item, "snippet"), _object(item, "statistics")
    uploads = _object(_object(item, "contentDetails"), "relatedPlaylists").get("uploads")
    hidden = statistics.get("hiddenSubscriberCount") is True
    creator = Creator(
        platform=PLATFORM,
        platform_account_id=account_id,
        title=_text(snippet.get("title")),
        handle=_text(snippet.get("customUrl")) or None,
        description=_text(snippet.get("description")),
        thumbnail_url=_thumbnail(snippet),
        published_at=_moment(snippet.get("publishedAt")),
        subscriber_count=None if hidden else _count(statistics.get("subscriberCount")),
        video_count=_count(statistics.get("videoCount")),
        view_count=_count(statistics.get("viewCount")),
    )
    return Channel(creator, _id(uploads))


def read_page(body: Mapping[str, object]) -> Page:
    """A `playlistItemListResponse` with the part contentDetails or snippet."""
    ids = (_video_id(item) for item in objects(body.get("items")))
    token = body.get("nextPageToken")
    return Page(
        video_ids=tuple(dict.fromkeys(video_id for video_id in ids if video_id is not None)),
        total=_count(_object(body, "pageInfo").get("totalResults")),
        next_token=token if isinstance(token, str) and token else None,
    )


def read_video(item: Mapping[str, object]) -> Content | None:
    """A `video` resource with the parts snippet, contentDetails and statistics; None without an id."""
    video_id = _id(item.get("id"))
    if video_id is None:
        return None
    snippet, statistics = _object(item, "snippet"), _object(item, "statistics")
    return Content(
        platform=PLATFORM,
        platform_content_id=video_id,
        title=_text(snippet.get("title")),
        description=_text(snippet.get("description")),
        published_at=_moment(snippet.get("publishedAt")),
        duration_seconds=_duration(_object(item, "contentDetails").get("duration")),
        view_count=_count(statistics.get("viewCount")),
        like_count=_count(statistics.get("likeCount")),
        comment_count=_count(statistics.get("commentCount")),
        thumbnail_url=_thumbnail(snippet),
    )


def objects(value: object) -> Sequence[Mapping[str, object]]:
    """The objects in what should be an array of them; anything else in it is left out."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _object(parent: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = parent.get(name)
    return value if isinstance(value, Mapping) else {}


def _video_id(item: Mapping[str, object]) -> str | None:
    resource = _object(_object(item, "snippet"), "resourceId")
    return _id(_object(item, "contentDetails").get("videoId")) or _id(resource.get("videoId"))


def _id(value: object) -> str | None:
    # A comma would make several ids of one in the next request.
    return value if isinstance(value, str) and re.fullmatch(r"[\w-]{1,100}", value, re.ASCII) else None


def _text(value: object) -> str:
    """Text that a PostgreSQL column can hold: no NUL, no lone surrogates."""
    if not isinstance(value, str):
        return ""
    return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _count(value: object) -> int | None:
    # Counts come as decimal strings (uint64), page totals as numbers.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        return None
    return value


def _duration(value: object) -> int | None:
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        seconds = parse_duration(value)
    except ValueError:
        return None
    return seconds if seconds <= _MAX_SECONDS else None


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _thumbnail(snippet: Mapping[str, object]) -> str | None:
    thumbnails = _object(snippet, "thumbnails")
    for size in _THUMBNAILS:
        url = _text(_object(thumbnails, size).get("url"))
        if url.startswith(("https://", "http://")):
            return url
    return None
