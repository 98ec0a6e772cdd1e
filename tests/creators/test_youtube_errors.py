"""What each error of the YouTube Data API means for the job."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.creators.support import unhurried

from streamvibe import PermanentError, RetryLater
from streamvibe.creators.connectors.youtube_errors import (
    ApiError,
    NotThereError,
    YouTubeUnavailableError,
    parse_retry_after,
    quota_reset,
    to_exception,
)

PACIFIC = ZoneInfo("America/Los_Angeles")
NOON = datetime(2025, 7, 1, 12, 0, tzinfo=UTC)


def error_body(code: int, reason: str, **error: Any) -> dict[str, Any]:
    entry = {"message": "said so", "domain": "youtube.common", "reason": reason}
    return {"error": {"code": code, "message": "said so", "errors": [entry], **error}}


def mapped(status: int, body: object, retry_after: float | None = None) -> Exception:
    error = ApiError.read(status, body)
    return to_exception(error, what="the channel UC1", retry_after=retry_after, now=NOON)


@pytest.mark.parametrize(
    ("now", "reset"),
    [
        # Pacific standard time is 8 hours behind UTC, daylight saving time 7.
        ("2025-01-15T07:59:59Z", "2025-01-15T08:00:00Z"),
        ("2025-01-15T08:00:00Z", "2025-01-16T08:00:00Z"),
        ("2025-07-01T06:59:59Z", "2025-07-01T07:00:00Z"),
        ("2025-07-01T07:00:00Z", "2025-07-02T07:00:00Z"),
        # The clocks go forward on 9 March 2025: a day of 23 hours; and back on 2 November 2025: of 25.
        ("2025-03-09T08:00:00Z", "2025-03-10T07:00:00Z"),
        ("2025-11-02T07:00:00Z", "2025-11-03T08:00:00Z"),
        # In the hour that happens twice.
        ("2025-11-02T08:30:00Z", "2025-11-03T08:00:00Z"),
        ("2025-11-02T09:30:00Z", "2025-11-03T08:00:00Z"),
    ],
)
def test_the_quota_resets_at_the_next_midnight_in_california(now: str, reset: str) -> None:
    """The reset is the next midnight Pacific time, on the days the clocks change, too."""
    assert quota_reset(datetime.fromisoformat(now)) == datetime.fromisoformat(reset)


@unhurried
@given(
    st.integers(0, 2**32),
    st.sampled_from([UTC, PACIFIC, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")]),
)
def test_the_quota_reset_is_always_ahead_and_a_midnight(epoch: int, zone: ZoneInfo) -> None:
    """Whatever the clock's zone, the reset is later, at most 25 hours away, and 00:00 in California."""
    now = datetime.fromtimestamp(epoch, zone)
    reset = quota_reset(now)
    assert timedelta() < reset - now.astimezone(UTC) <= timedelta(hours=25)
    assert reset.astimezone(PACIFIC).time() == time()
    assert reset.astimezone(PACIFIC).date() - now.astimezone(PACIFIC).date() == timedelta(days=1)


def test_a_clock_without_a_zone_is_refused() -> None:
    """A naive time would be taken for the machine's own zone."""
    with pytest.raises(ValueError, match="time zone"):
        quota_reset(datetime(2025, 1, 1))  # noqa: DTZ001 - the subject


@pytest.mark.parametrize(
    "body",
    [
        error_body(403, "quotaExceeded"),
        error_body(403, "dailyLimitExceeded"),
        error_body(429, "rateLimitExceeded", details=[{"metadata": {"quota_unit": "1/d/{project}"}}]),
        error_body(
            429, "rateLimitExceeded", details=[{"metadata": {"quota_limit": "VideosPerDayPerProject"}}]
        ),
    ],
)
def test_a_spent_quota_waits_for_the_reset(body: dict[str, Any]) -> None:
    """Any daily limit: the job waits until midnight Pacific and a minute, whatever Retry-After says."""
    error = mapped(body["error"]["code"], body, retry_after=5)
    assert isinstance(error, RetryLater)
    assert error.after == timedelta(hours=19, minutes=1).total_seconds()
    assert "2025-07-02 07:00 UTC" in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, None),
        (429, error_body(429, "rateLimitExceeded")),
        (403, error_body(403, "rateLimitExceeded")),
        (403, error_body(403, "userRateLimitExceeded")),
        (500, error_body(500, "internalError")),
        (503, error_body(503, "backendError")),
        (502, None),
        (504, None),
        (408, None),
        (400, error_body(400, "invalidPageToken")),
    ],
)
def test_passing_trouble_is_retried_when_youtube_says_or_with_backoff(status: int, body: object) -> None:
    """Too many requests and trouble on YouTube's side: after Retry-After if given, else by the backoff."""
    assert type(mapped(status, body)) is YouTubeUnavailableError
    later = mapped(status, body, retry_after=42.0)
    assert isinstance(later, RetryLater) and later.after == 42.0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "channelNotFound"),
        (403, "channelNotFound"),
        (403, "channelClosed"),
        (403, "channelSuspended"),
        (404, "playlistNotFound"),
        (403, "playlistItemsNotAccessible"),
        (404, "somethingNewNotFound"),
    ],
)
def test_what_is_not_there_fails_for_good(status: int, reason: str) -> None:
    """No such channel or playlist, or one that is closed: no retry, and the message names it."""
    error = mapped(status, error_body(status, reason))
    assert isinstance(error, NotThereError) and isinstance(error, PermanentError)
    assert "the channel UC1" in str(error) and reason in str(error)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, error_body(400, "keyInvalid"), "keyInvalid"),
        (400, error_body(400, "badRequest", details=[{"reason": "API_KEY_INVALID"}]), "API_KEY_INVALID"),
        (400, error_body(400, "badRequest", details=[{"reason": "API_KEY_EXPIRED"}]), "API_KEY_EXPIRED"),
        (403, error_body(403, "forbidden"), "forbidden"),
        (403, error_body(403, "accessNotConfigured"), "accessNotConfigured"),
        (403, error_body(403, "ipRefererBlocked"), "ipRefererBlocked"),
        (401, error_body(401, "authError"), "401"),
    ],
)
def test_a_refused_key_fails_for_good_and_says_what_to_do(
    status: int, body: dict[str, Any], reason: str
) -> None:
    """A missing, wrong, expired or restricted key: no retry; the message names reason and remedy."""
    error = mapped(status, body)
    assert isinstance(error, PermanentError) and not isinstance(error, NotThereError)
    assert reason in str(error) and "STREAMVIBE_YOUTUBE_API_KEY" in str(error)


def test_any_other_refusal_fails_for_good_with_youtubes_words() -> None:
    """A request YouTube does not understand will not be understood next time either."""
    error = mapped(400, error_body(400, "invalidFilters"))
    assert isinstance(error, PermanentError)
    assert "invalidFilters" in str(error) and "said so" in str(error)


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 418])
@pytest.mark.parametrize("body", [None, [], {}, "text", {"error": "no object"}])
def test_an_answer_that_is_not_youtubes_is_retried(status: int, body: object) -> None:
    """A page of a proxy or half an answer says nothing about the channel or the key: try again."""
    assert type(mapped(status, body)) is YouTubeUnavailableError


@unhurried
@given(
    st.integers(200, 599),
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "errors", "details", "reason", "message", "metadata", "code"]),
                inner,
            )
        ),
        max_leaves=12,
    ),
)
def test_every_body_means_something(status: int, body: object) -> None:
    """Whatever comes back is mapped to one of the three ends; reading it never raises."""
    assert isinstance(mapped(status, body), PermanentError | RetryLater | YouTubeUnavailableError)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999999", 86400.0),
        ("Tue, 01 Jul 2025 12:00:30 GMT", 30.0),
        ("Tue, 01 Jul 2025 11:00:00 GMT", 0.0),
        ("Tue, 01 Jul 2025 12:00:30 -0000", 30.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(header: str | None, seconds: float | None) -> None:
    """Both forms of the header, never negative, at most a day; nonsense is as if it were absent."""
    assert parse_retry_after(header, NOON) == seconds
