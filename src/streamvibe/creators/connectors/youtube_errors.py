"""What an error of the YouTube Data API means for the job that met it.

| what YouTube says                         | what the job does                                        |
| the day's quota is spent                  | `RetryLater` until it is reset, midnight Pacific         |
| too many requests, with `Retry-After`     | `RetryLater` for as long as YouTube asks                 |
| too many requests, 5xx, no usable answer  | `YouTubeUnavailableError`: the job type's own backoff    |
| no such channel or playlist, or closed    | `NotThereError`, a `PermanentError`                      |
| the API key is missing or refused         | `PermanentError`                                         |
| any other refusal                         | `PermanentError`                                         |

Reasons: https://developers.google.com/youtube/v3/docs/errors and, for the keys that Google's API front
refuses, https://cloud.google.com/apis/design/errors (the `reason` of google.rpc.ErrorInfo).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

from streamvibe import PermanentError, RetryLater

_PACIFIC = "America/Los_Angeles"
# A clock a little ahead of Google's would ask again before the reset, be refused, and wait a whole day more.
_RESET_MARGIN = timedelta(minutes=1)
_LONGEST_RETRY_AFTER = timedelta(days=1)

_DAILY_QUOTA = frozenset({"quotaExceeded", "dailyLimitExceeded"})
_TOO_FAST = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})
_NOT_THERE = frozenset(
    {
        "channelNotFound",
        "channelClosed",
        "channelSuspended",
        "channelForbidden",
        "playlistNotFound",
        "playlistForbidden",
        "playlistItemsNotAccessible",
        "videoNotFound",
        "notFound",
    }
)
_KEY_REFUSED = frozenset(
    {
        "keyInvalid",
        "keyExpired",
        "forbidden",
        "accessNotConfigured",
        "ipRefererBlocked",
        "API_KEY_INVALID",
        "API_KEY_EXPIRED",
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "CONSUMER_INVALID",
        "CONSUMER_SUSPENDED",
        "SERVICE_DISABLED",
    }
)
# YouTube refuses page tokens of long playlists that it has just handed out; the same listing works later
# (https://github.com/sns-sdks/python-youtube/issues/100).
_PASSING = frozenset({"invalidPageToken", "backendError", "internalError", "SERVICE_NOT_AVAILABLE"})


class YouTubeUnavailableError(Exception):
    """YouTube did not answer, or not in a way that means anything. Worth another attempt."""


class NotThereError(PermanentError):
    """YouTube has no such channel or playlist, or does not show it. `reason` is YouTube's word for it."""

    def __init__(
        self, message: str, *, received: str | None = None, fix: str | None = None, reason: str = "notFound"
    ) -> None:
        super().__init__(message, received=received, fix=fix)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error answer: `reasons` in YouTube's order, `daily` when it names a limit per day.

    `message` is None where the body is not an error of Google's: such an answer comes from something in
    between, and says nothing about the channel or the key.
    """

    status: int
    reasons: tuple[str, ...] = ()
    message: str | None = None
    daily: bool = False

    @classmethod
    def read(cls, status: int, body: object) -> "ApiError":
        """Read what can be read of a decoded body; never raises."""
        error = body.get("error") if isinstance(body, Mapping) else None
        if not isinstance(error, Mapping):
            return cls(status)
        errors, details = _mappings(error.get("errors")), _mappings(error.get("details"))
        reasons = [r for entry in (*errors, *details) if isinstance(r := entry.get("reason"), str)]
        message = error.get("message")
        return cls(
            status,
            tuple(dict.fromkeys(reasons)),
            message if isinstance(message, str) else "",
            any(_is_daily(detail.get("metadata")) for detail in details),
        )


def to_exception(error: ApiError, *, what: str, retry_after: float | None, now: datetime) -> Exception:
    """Decide what the job does about an error. `what` names the thing asked for, `now` is aware."""
    reasons = set(error.reasons)
    if reasons & _DAILY_QUOTA or error.daily:
        reset = quota_reset(now)
        return RetryLater(
            (reset + _RESET_MARGIN - now).total_seconds(),
            f"The day's YouTube quota of this API key is spent; it is reset at {reset:%Y-%m-%d %H:%M} UTC",
        )
    said = ", ".join((f"status {error.status}", *error.reasons[:1]))
    if reasons & _TOO_FAST or error.status == 429:
        return _later(f"YouTube asks for fewer requests ({said})", retry_after)
    if error.status in (408, 425) or error.status >= 500 or reasons & _PASSING:
        return _later(f"YouTube is not available ({said})", retry_after)
    if error.message is None:
        return YouTubeUnavailableError(
            f"The answer for {what} (status {error.status}) is not one of the YouTube API's; "
            "something between here and YouTube may have answered."
        )
    if reasons & _NOT_THERE:
        reason = next(r for r in error.reasons if r in _NOT_THERE)
        return NotThereError(f"YouTube does not show {what} ({reason})", reason=reason)
    if reasons & _KEY_REFUSED or error.status in (401, 403):
        reason = next((r for r in reversed(error.reasons) if r in _KEY_REFUSED), str(error.status))
        return PermanentError(
            f"YouTube refused the API key ({reason})",
            fix="Set STREAMVIBE_YOUTUBE_API_KEY to a key of a Google Cloud project in which YouTube Data "
            "API v3 is enabled and that may be used from this machine",
        )
    if error.status == 404:
        return NotThereError(f"YouTube does not show {what} ({said})")
    return PermanentError(f"YouTube refused the request for {what} ({said})", received=error.message[:300])


def quota_reset(now: datetime) -> datetime:
    """The moment, in UTC, at which YouTube next resets quotas: the next midnight, Pacific time.

    https://developers.google.com/youtube/v3/determine_quota_cost: "Daily quotas reset at midnight Pacific
    Time (PT)". 23 to 25 hours apart where daylight saving time begins or ends.
    """
    if now.tzinfo is None:
        raise ValueError(f"now must carry a time zone (received {now.isoformat()})")
    pacific = ZoneInfo(_PACIFIC)
    tomorrow = now.astimezone(pacific).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), pacific).astimezone(UTC)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds asked for by a `Retry-After` header (a number or an HTTP date), at most a day; None without."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - now).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER.total_seconds())


def _later(message: str, retry_after: float | None) -> Exception:
    return YouTubeUnavailableError(f"{message}.") if retry_after is None else RetryLater(retry_after, message)


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _is_daily(metadata: object) -> bool:
    # ErrorInfo of a quota names its unit, such as "1/d/{project}".
    if not isinstance(metadata, Mapping):
        return False
    return "/d/" in str(metadata.get("quota_unit", "")) or "PerDay" in str(metadata.get("quota_limit", ""))
