"""The packaged channels: channels.json describes each in short; spelled out the same way every time."""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Literal

Stream = Literal["none", "live", "upcoming"]
Visibility = Literal["public", "private", "deleted"]


@dataclass(slots=True, kw_only=True)
class VideoData:
    """One video. `likes` and `comments` are None where the creator hides them."""

    id: str
    title: str
    description: str
    published_at: datetime
    seconds: int
    views: int
    likes: int | None
    comments: int | None
    stream: Stream = "none"
    visibility: Visibility = "public"


@dataclass(slots=True, kw_only=True)
class ChannelData:
    """One channel with its videos, newest first. `subscribers` is None where the creator hides them."""

    id: str
    handle: str
    title: str
    description: str
    country: str | None
    published_at: datetime
    subscribers: int | None
    category: str
    tags: list[str]
    videos: list[VideoData] = field(default_factory=list)

    @property
    def uploads_playlist(self) -> str:
        return "UU" + self.id[2:]

    @property
    def public_videos(self) -> list[VideoData]:
        return [video for video in self.videos if video.visibility == "public"]


@dataclass(slots=True)
class Dataset:
    """The channels a server knows."""

    channels: list[ChannelData]

    def channel(self, account: str) -> ChannelData:
        """The channel of an id or a handle. Raises KeyError when there is none."""
        for channel in self.channels:
            if account == channel.id or account.casefold() == channel.handle.casefold():
                return channel
        raise KeyError(account)


def load_dataset() -> Dataset:
    """A fresh copy of the packaged channels: equal at every call, on every machine."""
    text = files(__package__).joinpath("channels.json").read_text("utf-8")
    return Dataset([_channel(seed) for seed in json.loads(text)["channels"]])


def _channel(seed: Mapping[str, Any]) -> ChannelData:
    handle = seed["handle"]
    channel = ChannelData(
        id="UC" + _name(f"channel {handle}", 22),
        handle=handle,
        title=seed["title"],
        description=seed["description"],
        country=seed["country"],
        published_at=_day(seed["started"]),
        subscribers=seed["subscribers"],
        category=seed["category"],
        tags=seed["tags"],
    )
    channel.videos = [_video(seed, position) for position in range(seed["videos"])]
    return channel


def _video(seed: Mapping[str, Any], position: int) -> VideoData:
    key = f"{seed['handle']} {position}"
    subjects, titles = seed["subjects"], seed["titles"]
    # Every pair of subject and title comes once, neighbours differ in both.
    lap, place = divmod(position, len(subjects))
    subject = subjects[place]
    title = titles[(place + lap) % len(titles)].format(subject)
    started, latest = _day(seed["started"]), _day(seed["latest"])
    age = timedelta(days=(latest - started).days * position // seed["videos"])
    views = _draw(f"views {key}", *seed["views"])
    streams = seed.get("streams", [])
    stream: Stream = streams[position] if position < len(streams) else "none"
    return VideoData(
        id=_name(f"video {key}", 11),
        title=title[0].upper() + title[1:],
        description=f"{seed['title']}: {subject}.\n\n{seed['description']}",
        published_at=latest - age + timedelta(seconds=_draw(f"time {key}", 0, 86_399)),
        seconds=0 if stream != "none" else _draw(f"seconds {key}", *seed["seconds"]),
        views=0 if stream == "upcoming" else views,
        likes=None if seed.get("hides_likes") else views * _draw(f"likes {key}", 10, 60) // 1_000,
        comments=None if seed.get("hides_comments") else views * _draw(f"comments {key}", 1, 9) // 1_000,
        stream=stream,
        visibility=seed.get("hidden", {}).get(str(position), "public"),
    )


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _draw(key: str, low: int, high: int) -> int:
    # A digest instead of `random`, whose sequences differ between Python versions.
    return low + int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % (high - low + 1)


def _name(key: str, length: int) -> str:
    return urlsafe_b64encode(hashlib.sha256(key.encode()).digest())[:length].decode()
