"""The packaged data as resources and errors of the YouTube Data API v3, field for field."""

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from streamvibe.creators.local_youtube.dataset import ChannelData, VideoData

Resource = dict[str, Any]

_THUMBNAILS = {"default": (120, 90), "medium": (320, 180), "high": (480, 360)}
_VIDEO_THUMBNAILS = {"default": "default", "medium": "mqdefault", "high": "hqdefault"}
_UNSHOWN = {
    "private": ("Private video", "This video is private."),
    "deleted": ("Deleted video", "This video is unavailable."),
}


def channel_resource(channel: ChannelData, parts: Collection[str]) -> Resource:
    """A `channel`."""
    public = channel.public_videos
    statistics: Resource = {
        "viewCount": str(sum(video.views for video in public)),
        "hiddenSubscriberCount": channel.subscribers is None,
        "videoCount": str(len(public)),
    }
    if channel.subscribers is not None:
        statistics["subscriberCount"] = str(channel.subscribers)
    snippet: Resource = {
        "title": channel.title,
        "description": channel.description,
        "customUrl": channel.handle,
        "publishedAt": _moment(channel.published_at),
        "thumbnails": {
            size: {"url": f"https://yt3.ggpht.com/{channel.id}=s{width}", "width": width, "height": width}
            for size, width in {"default": 88, "medium": 240, "high": 800}.items()
        },
        "localized": {"title": channel.title, "description": channel.description},
    }
    if channel.country is not None:
        snippet["country"] = channel.country
    every = {
        "snippet": snippet,
        "contentDetails": {"relatedPlaylists": {"likes": "", "uploads": channel.uploads_playlist}},
        "statistics": statistics,
        "status": {
            "privacyStatus": "public",
            "isLinked": True,
            "longUploadsStatus": "longUploadsUnspecified",
        },
    }
    return _resource("youtube#channel", channel.id, every, parts)


def playlist_item_resource(
    channel: ChannelData, video: VideoData, position: int, parts: Collection[str]
) -> Resource:
    """A `playlistItem` of the uploads playlist. Of a private or deleted video it tells the id only."""
    snippet: Resource = {
        "publishedAt": _moment(video.published_at),
        "channelId": channel.id,
        "channelTitle": channel.title,
        "playlistId": channel.uploads_playlist,
        "position": position,
        "resourceId": {"kind": "youtube#video", "videoId": video.id},
    }
    details: Resource = {"videoId": video.id}
    if video.visibility == "public":
        snippet |= {
            "title": video.title,
            "description": video.description,
            "thumbnails": _video_thumbnails(video),
            "videoOwnerChannelTitle": channel.title,
            "videoOwnerChannelId": channel.id,
        }
        details["videoPublishedAt"] = _moment(video.published_at)
    else:
        title, description = _UNSHOWN[video.visibility]
        snippet |= {"title": title, "description": description, "thumbnails": {}}
    status = {} if video.visibility == "deleted" else {"privacyStatus": video.visibility}
    every = {"snippet": snippet, "contentDetails": details, "status": status}
    return _resource("youtube#playlistItem", f"{channel.uploads_playlist}.{video.id}", every, parts)


def video_resource(channel: ChannelData, video: VideoData, parts: Collection[str]) -> Resource:
    """A `video`."""
    snippet: Resource = {
        "publishedAt": _moment(video.published_at),
        "channelId": channel.id,
        "title": video.title,
        "description": video.description,
        "thumbnails": _video_thumbnails(video),
        "channelTitle": channel.title,
        "categoryId": channel.category,
        "liveBroadcastContent": video.stream,
        "localized": {"title": video.title, "description": video.description},
    }
    if channel.tags:
        snippet["tags"] = channel.tags
    statistics: Resource = {"viewCount": str(video.views), "favoriteCount": "0"}
    if video.likes is not None:
        statistics["likeCount"] = str(video.likes)
    if video.comments is not None:
        statistics["commentCount"] = str(video.comments)
    every = {
        "snippet": snippet,
        "contentDetails": {
            "duration": "P0D" if video.stream != "none" else format_duration(video.seconds),
            "dimension": "2d",
            "definition": "hd",
            "caption": "false",
            "licensedContent": True,
            "contentRating": {},
            "projection": "rectangular",
        },
        "statistics": statistics,
        "status": {
            "uploadStatus": "processed",
            "privacyStatus": "public",
            "license": "youtube",
            "embeddable": True,
            "publicStatsViewable": True,
            "madeForKids": False,
        },
    }
    return _resource("youtube#video", video.id, every, parts)


def list_response(
    kind: str, items: list[Resource], *, total: int, per_page: int, tokens: Mapping[str, str]
) -> Resource:
    """A list response; `tokens` are those of the pages before and after, where there are any."""
    return {
        "kind": kind,
        "etag": _etag(kind, repr(items)),
        **tokens,
        "items": items,
        "pageInfo": {"totalResults": total, "resultsPerPage": per_page},
    }


def error_response(
    code: int, message: str, *, domain: str, reason: str, location: str | None = None, **extra: Any
) -> Resource:
    """An error as Google's API front writes it; `location` is the parameter at fault."""
    entry = {"message": message, "domain": domain, "reason": reason}
    if location is not None:
        entry |= {"location": location, "locationType": "parameter"}
    return {"error": {"code": code, "message": message, "errors": [entry], **extra}}


def format_duration(seconds: int) -> str:
    """ISO 8601 as YouTube writes it: `PT4M13S`, `P1DT1H`, `PT0S`."""
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (rest, "S")) if n)
    if not days:
        return f"PT{time or '0S'}"
    return f"P{days}D" + (f"T{time}" if time else "")


def _resource(kind: str, id_: str, every: Mapping[str, Resource], parts: Collection[str]) -> Resource:
    chosen = {name: value for name, value in every.items() if name in parts}
    return {"kind": kind, "etag": _etag(kind, id_, repr(chosen)), "id": id_, **chosen}


def _video_thumbnails(video: VideoData) -> Resource:
    return {
        size: {
            "url": f"https://i.ytimg.com/vi/{video.id}/{_VIDEO_THUMBNAILS[size]}.jpg",
            "width": width,
            "height": height,
        }
        for size, (width, height) in _THUMBNAILS.items()
    }


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _etag(*values: str) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:27]
