"""The HTTP server of the local YouTube."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from streamvibe.creators.local_youtube.dataset import Dataset, load_dataset
from streamvibe.creators.local_youtube.resources import (
    Resource,
    channel_resource,
    error_response,
    list_response,
    playlist_item_resource,
    video_resource,
)

LOCAL_API_KEY = "local-youtube-key"
_CALLS_KEPT = 10_000

_GLOBAL_PARAMETERS = frozenset({"key", "alt", "prettyPrint", "quotaUser", "fields"})
_PARAMETERS = {
    "channels": frozenset({"part", "id", "forHandle", "maxResults", "pageToken"}),
    "playlistItems": frozenset({"part", "playlistId", "maxResults", "pageToken"}),
    "videos": frozenset({"part", "id", "maxResults", "pageToken"}),
}
_PARTS = {
    "channels": frozenset({"id", "snippet", "contentDetails", "statistics", "status"}),
    "playlistItems": frozenset({"id", "snippet", "contentDetails", "status"}),
    "videos": frozenset({"id", "snippet", "contentDetails", "statistics", "status"}),
}
_FAULTS = {
    429: ("rateLimitExceeded", "Too many requests."),
    500: ("internalError", "Internal error encountered."),
    503: ("backendError", "Backend Error"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came: `method` is channels, playlistItems or videos; header names are lower case."""

    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back; `body` None closes the connection without a word."""

    status: int = 200
    body: bytes | None = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, body: Resource, *, status: int = 200, headers: Mapping[str, str] | None = None) -> "Answer":
        """An answer with a JSON body."""
        all_headers = {"Content-Type": "application/json; charset=UTF-8", **(headers or {})}
        return cls(status, json.dumps(body).encode(), all_headers)


class LocalYouTube:
    """A context manager that serves channels.list, playlistItems.list and videos.list on 127.0.0.1.

    `api_key`: the one key it accepts. `quota_units`: units it grants before it answers quotaExceeded, None:
    no end. `fail_next`: so many calls are answered with `fail_status`, and `retry_after` (seconds) if given.
    `delay_seconds`: how long every answer takes. `intercept`: sees every call first, may answer it instead.

    `calls` holds what was asked last, `units_used` what that cost: 1 unit a call, refused ones included.
    `dataset` and `fail_next` may be changed while it runs.
    """

    def __init__(
        self,
        *,
        api_key: str = LOCAL_API_KEY,
        dataset: Dataset | None = None,
        quota_units: int | None = None,
        fail_next: int = 0,
        fail_status: int = 503,
        retry_after: int | None = None,
        delay_seconds: float = 0.0,
        intercept: Callable[[Call], Answer | None] | None = None,
    ) -> None:
        self.api_key = api_key
        self.dataset = dataset if dataset is not None else load_dataset()
        self.calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        self.units_used = 0
        self.fail_next = fail_next
        self._fail_status = fail_status
        self._retry_after = retry_after
        self._quota_units = quota_units
        self._delay_seconds = delay_seconds
        self._intercept = intercept
        self._lock = Lock()
        self._closing = Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: Thread | None = None

    @property
    def base_url(self) -> str:
        """Scheme, host and port, to be used in place of Google's."""
        if self._server is None:
            raise RuntimeError("The local YouTube is not running: use it as a context manager.")
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"youtube": self})
        self._closing.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._closing.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    def answer(self, call: Call) -> Answer:
        """Answer one call."""
        with self._lock:
            self.calls.append(call)
            self.units_used += 1
            spent = self._quota_units is not None and self.units_used > self._quota_units
            failing = self.fail_next > 0
            self.fail_next -= failing
        if self._delay_seconds:
            self._closing.wait(self._delay_seconds)
        instead = self._intercept(call) if self._intercept is not None else None
        if instead is not None:
            return instead
        if failing:
            reason, message = _FAULTS.get(self._fail_status, ("backendError", "Backend Error"))
            after = {} if self._retry_after is None else {"Retry-After": str(self._retry_after)}
            return _refusal(_RefusedError(self._fail_status, message, domain="global", reason=reason), after)
        try:
            self._check_caller(call, spent)
            return Answer.json(self._list(call))
        except _RefusedError as refused:
            return _refusal(refused)

    def _check_caller(self, call: Call, spent: bool) -> None:
        key = call.headers.get("x-goog-api-key", call.query.get("key"))
        if not key:
            raise _RefusedError(
                403,
                "Method doesn't allow unregistered callers (callers without established identity). "
                "Please use API Key or other form of API consumer identity to call this API.",
                domain="global",
                reason="forbidden",
                status="PERMISSION_DENIED",
            )
        if key != self.api_key:
            raise _RefusedError(
                400,
                "API key not valid. Please pass a valid API key.",
                domain="global",
                reason="badRequest",
                status="INVALID_ARGUMENT",
                details=[
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "API_KEY_INVALID",
                        "domain": "googleapis.com",
                        "metadata": {"service": "youtube.googleapis.com"},
                    }
                ],
            )
        if spent:
            raise _RefusedError(
                403,
                "The request cannot be completed because you have exceeded your "
                '<a href="/youtube/v3/getting-started#quota">quota</a>.',
                domain="youtube.quota",
                reason="quotaExceeded",
            )

    def _list(self, call: Call) -> Resource:
        parts = _parts(call)
        size = _page_size(call)
        if call.method == "channels":
            return self._channels(call, parts, size)
        if call.method == "playlistItems":
            return self._playlist_items(call, parts, size)
        return self._videos(call, parts)

    def _channels(self, call: Call, parts: frozenset[str], size: int) -> Resource:
        ids, handle = _ids(call), call.query.get("forHandle")
        if (handle is None) == (not ids):
            raise _no_filter(call)
        wanted = ids or ["@" + (handle or "").removeprefix("@")]
        found = [
            c for c in self.dataset.channels if c.id in wanted or c.handle.casefold() == wanted[0].casefold()
        ]
        items = [channel_resource(channel, parts) for channel in found]
        body = list_response("youtube#channelListResponse", items, total=len(items), per_page=size, tokens={})
        if not items:
            # As YouTube does where nothing matches.
            del body["items"]
        return body

    def _playlist_items(self, call: Call, parts: frozenset[str], size: int) -> Resource:
        playlist = call.query.get("playlistId")
        if not playlist:
            raise _no_filter(call)
        channel = next((c for c in self.dataset.channels if c.uploads_playlist == playlist), None)
        if channel is None or not channel.videos:
            raise _RefusedError(
                404,
                "The playlist identified with the request's <code>playlistId</code> parameter "
                "cannot be found.",
                domain="youtube.playlistItem",
                reason="playlistNotFound",
                location="playlistId",
            )
        token = call.query.get("pageToken")
        first = _read_token(playlist, token) if token else 0
        if not 0 <= first <= len(channel.videos):
            raise _bad_token()
        shown = list(enumerate(channel.videos))[first : first + size]
        tokens = {}
        if first + size < len(channel.videos):
            tokens["nextPageToken"] = _write_token(playlist, first + size)
        if first > 0:
            tokens["prevPageToken"] = _write_token(playlist, max(first - size, 0))
        return list_response(
            "youtube#playlistItemListResponse",
            [playlist_item_resource(channel, video, position, parts) for position, video in shown],
            total=len(channel.videos),
            per_page=size,
            tokens=tokens,
        )

    def _videos(self, call: Call, parts: frozenset[str]) -> Resource:
        ids = _ids(call)
        if not ids:
            raise _no_filter(call)
        if len(ids) > 50:
            raise _RefusedError(
                400,
                "The request specifies an invalid filter parameter.",
                domain="youtube.parameter",
                reason="invalidFilters",
                location="parameters.",
            )
        by_id = {v.id: (channel, v) for channel in self.dataset.channels for v in channel.public_videos}
        items = [
            video_resource(*by_id[video_id], parts) for video_id in dict.fromkeys(ids) if video_id in by_id
        ]
        return list_response(
            "youtube#videoListResponse", items, total=len(items), per_page=len(items), tokens={}
        )


class _RefusedError(Exception):
    def __init__(self, code: int, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.body = error_response(code, message, **fields)


def _refusal(refused: _RefusedError, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer.json(refused.body, status=refused.code, headers=headers)


def _parts(call: Call) -> frozenset[str]:
    unknown = sorted(call.query.keys() - _PARAMETERS[call.method] - _GLOBAL_PARAMETERS)
    if unknown:
        raise _RefusedError(
            400,
            f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot bind query parameter. '
            f"Field '{unknown[0]}' could not be found in request message.",
            domain="global",
            reason="badRequest",
            status="INVALID_ARGUMENT",
        )
    parts = frozenset(part for part in call.query.get("part", "").split(",") if part)
    if not parts:
        raise _RefusedError(
            400, "Required parameter: part", domain="global", reason="required", location="part"
        )
    if strange := sorted(parts - _PARTS[call.method]):
        raise _RefusedError(
            400, f"'{strange[0]}'", domain="youtube.part", reason="unknownPart", location="part"
        )
    return parts


def _page_size(call: Call) -> int:
    text = call.query.get("maxResults", "5")
    lowest = 1 if call.method == "videos" else 0
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= 50:
        raise _RefusedError(
            400,
            f"Invalid value '{text}'. Values must be within the range: [{lowest}, 50]",
            domain="global",
            reason="invalidParameter",
            location="maxResults",
        )
    return int(text)


def _ids(call: Call) -> list[str]:
    return [part for part in call.query.get("id", "").split(",") if part]


def _no_filter(call: Call) -> _RefusedError:
    expected = ", ".join(sorted(_PARAMETERS[call.method] & {"id", "forHandle", "playlistId"}))
    return _RefusedError(
        400,
        f"No filter selected. Expected one of: {expected}",
        domain="youtube.parameter",
        reason="missingRequiredParameter",
        location="parameters.",
    )


def _bad_token() -> _RefusedError:
    return _RefusedError(
        400,
        "The request specifies an invalid page token.",
        domain="youtube.parameter",
        reason="invalidPageToken",
        location="pageToken",
    )


def _write_token(playlist: str, first: int) -> str:
    return urlsafe_b64encode(f"PT:{playlist}:{first}".encode()).decode().rstrip("=")


def _read_token(playlist: str, token: str) -> int:
    try:
        text = urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        marker, owner, first = text.split(":")
        position = int(first)
    except ValueError:
        raise _bad_token() from None
    if marker != "PT" or owner != playlist:
        raise _bad_token()
    return position


class _Handler(BaseHTTPRequestHandler):
    youtube: ClassVar[LocalYouTube]
    timeout = 10

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        prefix, _, method = url.path.rpartition("/")
        if prefix != "/youtube/v3" or method not in _PARAMETERS:
            self._send(
                Answer.json(error_response(404, "Not Found", domain="global", reason="notFound"), status=404)
            )
            return
        # A repeated parameter means the same as its values joined by commas.
        query = {
            name: ",".join(values) for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.youtube.answer(Call(method, query, headers)))

    def _send(self, answer: Answer) -> None:
        if answer.body is None:
            return
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except ConnectionError:
            # The client has stopped waiting.
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the terminal belongs to the demo."""
