"""What the catalogue keeps of a creator and of a content, whatever the platform. Frozen; no I/O."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Creator:
    """One account on one platform. A count is None where the platform hides it."""

    platform: str
    platform_account_id: str
    title: str
    handle: str | None = None
    description: str = ""
    thumbnail_url: str | None = None
    published_at: datetime | None = None
    subscriber_count: int | None = None
    video_count: int | None = None
    view_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One published item of a creator.

    `duration_seconds` is 0 while a stream is live or upcoming, None where the platform does not say.
    A count is None where the platform hides it.
    """

    platform: str
    platform_content_id: str
    title: str
    description: str = ""
    published_at: datetime | None = None
    duration_seconds: int | None = None
    view_count: int | None = None
    like_count: int | None = None
    comment_count: int | None = None
    thumbnail_url: str | None = None
