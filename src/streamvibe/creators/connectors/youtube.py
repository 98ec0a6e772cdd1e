"""A client for the three list calls of the YouTube Data API v3 that a channel sync needs."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeGuard
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from streamvibe import PermanentError
from streamvibe.creators.connectors.youtube_data import (
    Channel,
    Page,
    objects,
    read_channel,
    read_page,
    read_video,
)
from streamvibe.creators.connectors.youtube_errors import (
    ApiError,
    NotThereError,
    YouTubeUnavailableError,
    parse_retry_after,
    to_exception,
)
from streamvibe.creators.model import Content

GOOGLE_BASE_URL = "https://youtube.googleapis.com"
PAGE_SIZE = 50
# YouTube lists the newest 20,000 videos of a channel at most; the bound also ends a list without an end.
MAX_VIDEOS = 20_000
_MAX_PAGES = MAX_VIDEOS // PAGE_SIZE
_KINDS = {
    "channels": "youtube#channelListResponse",
    "playlistItems": "youtube#playlistItemListResponse",
    "videos": "youtube#videoListResponse",
}


class YouTube:
    """The YouTube Data API v3 with an API key.

    `base_url` is scheme and host; the paths are the API's. `quota_units` counts what the calls of this object
    have cost: every channels.list, playlistItems.list and videos.list costs 1 unit, refused ones included
    (https://developers.google.com/youtube/v3/determine_quota_cost).

    `timeout` and `deadline` are seconds: for one connect, read or write, and for one whole call.

    Errors: see `youtube_errors`; PermanentError here for a key that cannot be one.

    The key travels in the header `X-Goog-Api-Key`, Google's other place for the parameter `key`
    (https://cloud.google.com/apis/docs/system-parameters), so that no URL holds it.
    """

    def __init__(
        self,
        *,
        base_url: str = GOOGLE_BASE_URL,
        api_key: str,
        timeout: float = 10.0,
        deadline: float = 30.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not api_key or not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            # `received` stays empty: the key must not reach a job's error message.
            raise PermanentError(
                "The YouTube API key is empty or holds characters that no key has",
                fix="Copy it again into STREAMVIBE_YOUTUBE_API_KEY",
            )
        self.quota_units = 0
        self._key = SecretStr(api_key)
        self._deadline = deadline
        self._clock = clock
        self._client = httpx2.AsyncClient(
            base_url=base_url.rstrip("/") + "/youtube/v3/",
            timeout=httpx2.Timeout(timeout),
            headers={"Accept": "application/json"},
            # A proxy from the environment serves the outside, not a server on this machine.
            trust_env=not _is_loopback(base_url),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"YouTube(base_url={str(self._client.base_url)!r})"

    async def channel(self, account: str) -> Channel:
        """The channel of an id (`UC...`) or a handle (`@name`). Raises NotThereError when there is none."""
        by = "forHandle" if account.startswith("@") else "id"
        what = f"the channel {account}"
        body = await self._get("channels", {"part": "snippet,contentDetails,statistics", by: account}, what)
        # YouTube leaves `items` out where nothing matches.
        found = [
            channel for item in objects(body.get("items")) if (channel := read_channel(item)) is not None
        ]
        if not found:
            raise NotThereError(
                "YouTube has no such channel",
                received=account,
                fix="Give the channel's id, which starts with UC, or its handle, which starts with @",
                reason="channelNotFound",
            )
        return found[0]

    async def uploads(self, playlist_id: str) -> AsyncGenerator[Page, None]:
        """The pages of a playlist, newest video first, no video twice.

        Ends with the last page, or at MAX_VIDEOS with a page that still has a `next_token`.
        """
        seen: set[str] = set()
        tokens: set[str] = set()
        query = {"part": "contentDetails", "playlistId": playlist_id, "maxResults": str(PAGE_SIZE)}
        for _ in range(_MAX_PAGES):
            page = read_page(await self._get("playlistItems", query, f"the uploads {playlist_id}"))
            fresh = tuple(video_id for video_id in page.video_ids if video_id not in seen)
            seen.update(fresh)
            yield Page(fresh, page.total, page.next_token)
            if page.next_token is None:
                return
            if page.next_token in tokens:
                raise YouTubeUnavailableError(
                    f"The pages of the uploads {playlist_id} lead back to an earlier one."
                )
            tokens.add(page.next_token)
            query["pageToken"] = page.next_token

    async def videos(self, video_ids: Sequence[str]) -> list[Content]:
        """The videos of at most 50 ids, in no promised order. Private and deleted ones are not among them."""
        if len(video_ids) > PAGE_SIZE:
            raise ValueError(f"videos.list takes at most {PAGE_SIZE} ids (received {len(video_ids)})")
        if not video_ids:
            return []
        query = {"part": "snippet,contentDetails,statistics", "id": ",".join(video_ids)}
        body = await self._get("videos", query, "a page of videos")
        found = (read_video(item) for item in objects(body.get("items")))
        asked = set(video_ids)
        by_id = {video.platform_content_id: video for video in found if video is not None}
        return [video for video_id, video in by_id.items() if video_id in asked]

    async def _get(self, path: str, query: Mapping[str, str], what: str) -> Mapping[str, object]:
        self.quota_units += 1
        headers = {"X-Goog-Api-Key": self._key.get_secret_value()}
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._client.get(path, params=query, headers=headers)
        except TimeoutError:
            raise YouTubeUnavailableError(
                f"YouTube sent no whole answer within {self._deadline:g} seconds."
            ) from None
        except httpx2.TimeoutException as error:
            raise YouTubeUnavailableError(
                f"YouTube did not answer in time ({type(error).__name__})."
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            # Not the cause itself: it carries the request, and the request's headers hold the key.
            raise YouTubeUnavailableError(f"YouTube could not be reached ({type(error).__name__}).") from None
        body = _decode(response.content)
        if response.status_code == 200 and _is_answer(body, path):
            return body
        now = self._clock()
        raise to_exception(
            self._redacted(ApiError.read(response.status_code, body)),
            what=what,
            retry_after=parse_retry_after(response.headers.get("Retry-After"), now),
            now=now,
        )

    def _redacted(self, error: ApiError) -> ApiError:
        key = self._key.get_secret_value()
        message = error.message and error.message.replace(key, "***")
        return ApiError(
            error.status, tuple(r.replace(key, "***") for r in error.reasons), message, error.daily
        )


def _is_answer(body: object, path: str) -> TypeGuard[Mapping[str, object]]:
    """Whether a body is the list that was asked for; any other would read as a channel without videos."""
    if not isinstance(body, Mapping) or body.get("kind") != _KINDS[path]:
        return False
    return isinstance(body.get("items", [] if path == "channels" else None), list)


def _decode(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
