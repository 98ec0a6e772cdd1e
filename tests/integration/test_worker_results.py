"""What goes into a handler and what comes out of it: typed, validated, and never at a neighbour's cost."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field
from tests.integration.worker_kit import Queue, run_all
from tests.support.databases import Database

from streamvibe import Context, job_type


class Channel(BaseModel):
    name: str
    limit: int = 5


class Synced(BaseModel):
    channel: str
    videos: int


@dataclass
class Span:
    first: date
    last: date
    owner: UUID | None = None


@dataclass
class Count:
    days: int


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    account: UUID = Field(alias="socialAccountId")
    since: datetime

    @computed_field  # type: ignore[prop-decorator]  # what pydantic documents
    @property
    def year(self) -> int:
        return self.since.year


async def test_async_and_plain_handlers_get_their_types_and_store_their_results(database: Database) -> None:
    """Pydantic models and dataclasses arrive as such in async def and def handlers; results are stored as JSON."""
    got: list[object] = []

    @job_type("model")
    async def model(ctx: Context, params: Channel) -> Synced:
        got.append(params)
        return Synced(channel=params.name, videos=params.limit)

    @job_type("span")
    def span(ctx: Context, params: Span) -> Count:
        got.append(params)
        return Count((params.last - params.first).days)

    queue = Queue(database)
    queue.register(model, span)
    first = queue.request("model", {"name": "a"})
    second = queue.request("span", {"first": "2026-01-01", "last": "2026-01-31"})
    assert await run_all(database, model, span) == 2
    assert got == [Channel(name="a"), Span(date(2026, 1, 1), date(2026, 1, 31))] or got == [
        Span(date(2026, 1, 1), date(2026, 1, 31)),
        Channel(name="a"),
    ]
    assert queue.row(first)["result"] == {"channel": "a", "videos": 5}
    assert queue.row(second)["result"] == {"days": 30}


async def test_untyped_params_are_a_dict_and_none_is_a_result(database18: Database) -> None:
    """Without annotations params are the JSON object; None completes the job with no result."""
    got: list[object] = []

    @job_type("plain")
    async def plain(ctx: Context, params):  # type: ignore[no-untyped-def]
        got.append(params)
        return {"echo": params}

    @job_type("nothing")
    async def nothing(ctx: Context, params: dict[str, Any]) -> None:
        got.append(params)

    queue = Queue(database18)
    queue.register(plain, nothing)
    first, second = queue.request("plain", {"a": [1, None]}), queue.request("nothing")
    await run_all(database18, plain, nothing)
    assert {"a": [1, None]} in got and {} in got
    assert queue.row(first)["result"] == {"echo": {"a": [1, None]}}
    assert (queue.row(second)["status"], queue.row(second)["result"]) == ("completed", None)


async def test_handlers_may_be_partials_objects_and_functions_that_return_awaitables(
    database18: Database,
) -> None:
    """What can be called with (context, params) can be a handler; a coroutine that it returns is awaited."""

    class Handler:
        async def __call__(self, ctx: Context, params: Channel) -> str:
            return "object " + params.name

    async def with_prefix(prefix: str, ctx: Context, params: Channel) -> str:
        return prefix + params.name

    async def later(name: str) -> str:
        await asyncio.sleep(0)
        return "later " + name

    an_object = job_type("object")(Handler())
    partial = job_type("partial")(functools.partial(with_prefix, "partial "))
    awaitable = job_type("awaitable")(lambda ctx, params: later(params["name"]))
    queue = Queue(database18)
    queue.register(an_object, partial, awaitable)
    ids = [queue.request(name, {"name": "x"}) for name in ("object", "partial", "awaitable")]
    await run_all(database18, an_object, partial, awaitable)
    assert [queue.row(job_id)["result"] for job_id in ids] == ["object x", "partial x", "later x"]


async def test_params_of_strict_models_with_aliases_and_computed_fields_go_all_the_way(
    database18: Database,
) -> None:
    """What dump_params writes, the worker reads back as the equal object."""
    got: list[Aliased] = []

    @job_type("aliased")
    async def aliased(ctx: Context, params: Aliased) -> None:
        got.append(params)

    sent = Aliased.model_validate_json(
        '{"socialAccountId": "00000000-0000-4000-8000-00000000000a", "since": "2026-01-02T03:04:05Z"}'
    )
    queue = Queue(database18)
    queue.register(aliased)
    queue.request_text("aliased", aliased.dump_params(sent))
    await run_all(database18, aliased)
    assert got == [sent]


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ('{"limit": 3}', "params.name"),
        ('{"name": 5}', "5"),
        ('{"name": "a", "limit": "many"}', "many"),
        pytest.param('{"name": "a", "limit": ' + "9" * 5000 + "}", "out of range", id="5000 digits"),
        pytest.param('{"name": ' + "[" * 3000 + "]" * 3000 + "}", "recursion", id="3000 levels"),
    ],
)
async def test_params_that_do_not_fit_fail_at_once_and_alone(
    database18: Database, params: str, place: str
) -> None:
    """Stored params that the type refuses, or Python cannot read, fail that job as invalid_params, not retried."""
    ran: list[str] = []

    @job_type("model")
    async def model(ctx: Context, params: Channel) -> None:
        ran.append(params.name)

    queue = Queue(database18)
    queue.register(model)
    bad, good = queue.request_text("model", params), queue.request("model", {"name": "good"})
    await run_all(database18, model)
    row = queue.row(bad)
    assert (row["status"], row["failure_kind"], row["retry_at"]) == ("failed", "invalid_params", None)
    assert place in row["error_message"]
    assert [line["message"] for line in queue.logs(bad)] == [row["error_message"]]
    assert queue.row(good)["status"] == "completed"
    assert ran == ["good"]


async def test_numbers_that_only_jsonb_can_hold_do_not_stop_the_worker(database: Database) -> None:
    """A number beyond double precision, which SQL accepts, reaches the handler as the whole number it is."""
    got: list[object] = []

    @job_type("large")
    async def large(ctx: Context, params: dict[str, object]) -> None:
        got.append(params["n"])

    queue = Queue(database)
    queue.register(large)
    job_id = queue.request_text("large", '{"n": 1e400}')
    await run_all(database, large)
    assert queue.row(job_id)["status"] == "completed"
    assert got == [10**400]


async def test_a_validator_that_raises_anything_fails_its_job(database18: Database) -> None:
    """A model whose own validator raises KeyError fails the job as invalid_params; the worker goes on."""

    class Odd(BaseModel):
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            from pydantic_core import core_schema

            def missing(value: object) -> object:
                raise KeyError("missing")

            return core_schema.no_info_plain_validator_function(missing)

    @job_type("odd")
    async def odd(ctx: Context, params: Odd) -> None:
        raise AssertionError("never called")

    queue = Queue(database18)
    queue.register(odd)
    job_id = queue.request("odd")
    await run_all(database18, odd)
    assert queue.row(job_id)["failure_kind"] == "invalid_params"
    assert "KeyError" in queue.row(job_id)["error_message"]


class Unreadable:
    def __repr__(self) -> str:
        raise ValueError("no repr")


def _cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


BAD_RESULTS: dict[str, Callable[[], Any]] = {
    "nan": lambda: {"share": float("nan")},
    "infinity": lambda: [1.5, float("inf")],
    "nul": lambda: {"text": "a\x00b"},
    "nul in a nested key": lambda: {"a": [{"b\x00": 1}]},
    "lone surrogate": lambda: {"text": "\ud83d"},
    "lone surrogate in a key": lambda: {"\ud83d": 1},
    "bytes": lambda: b"\xff\xfe",
    "object": object,
    "unreadable object": Unreadable,
    "cyclic": _cyclic,
    "too deep": lambda: _nested(2000),
    "5 MB": lambda: "x" * 5_000_000,
    "a number of 5000 digits": lambda: 10**5000,
}


@pytest.mark.parametrize("annotated", [True, False], ids=["dict", "untyped"])
async def test_a_result_that_cannot_be_stored_hurts_its_job_only(database: Database, annotated: bool) -> None:
    """Each fails as invalid_result without a retry, says why, and the jobs of the same batch complete."""

    async def handler(ctx: Context, params: dict[str, str]) -> Any:
        await asyncio.sleep(0)
        return BAD_RESULTS[params["kind"]]() if "kind" in params else {"fine": True}

    if annotated:
        handler.__annotations__["return"] = dict[str, Any] | list[Any] | str | bytes | int | object
    mixed = job_type("mixed")(handler)
    queue = Queue(database)
    queue.register(mixed)
    bad = {kind: queue.request("mixed", {"kind": kind}) for kind in BAD_RESULTS}
    good = [queue.request("mixed") for _ in range(5)]
    await run_all(database, mixed)
    for kind, job_id in bad.items():
        row = queue.row(job_id)
        assert (row["status"], row["failure_kind"]) == ("failed", "invalid_result"), kind
        assert row["retry_at"] is None and row["error_message"], kind
        assert [line["message"] for line in queue.logs(job_id)] == [row["error_message"]], kind
    assert [queue.row(job_id)["result"] for job_id in good] == [{"fine": True}] * 5


async def test_a_result_of_the_wrong_type_is_invalid_even_from_a_dataclass(database18: Database) -> None:
    """Dataclasses check nothing when they are made: their values are checked before they are stored."""

    @job_type("wrong")
    async def wrong(ctx: Context, params: dict[str, Any]) -> Count:
        return Count(days="many")  # type: ignore[arg-type]

    @job_type("other")
    async def other(ctx: Context, params: dict[str, Any]) -> Synced:
        return {"channel": "a"}  # type: ignore[return-value]

    queue = Queue(database18)
    queue.register(wrong, other)
    first, second = queue.request("wrong"), queue.request("other")
    await run_all(database18, wrong, other)
    assert queue.row(first)["failure_kind"] == "invalid_result"
    assert "many" in queue.row(first)["error_message"]
    assert [line["message"] for line in queue.logs(first)] == [queue.row(first)["error_message"]]
    assert queue.row(second)["failure_kind"] == "invalid_result"
    assert "videos" in queue.row(second)["error_message"] or "required" in queue.row(second)["error_message"]


async def test_text_that_only_looks_like_a_bad_character_is_kept(database18: Database) -> None:
    """A backslash followed by u0000 is six harmless characters, in values and in keys; integers keep every digit."""
    value = {"path": "C:\\u0000", "\\u0000": ["\\ud800"], "big": 2**70, "none": None}

    @job_type("harmless")
    async def harmless(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        return value

    queue = Queue(database18)
    queue.register(harmless)
    job_id = queue.request("harmless")
    await run_all(database18, harmless)
    assert queue.row(job_id)["status"] == "completed"
    assert queue.row(job_id)["result"] == value
