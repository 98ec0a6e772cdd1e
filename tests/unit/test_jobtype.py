"""Declaring job types, and the JSON their params and results become."""

import dataclasses
import functools
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from streamvibe import Context, JobType, job_type
from streamvibe.errors import InvalidArgument
from streamvibe.jobtype import SETTINGS


class Params(BaseModel):
    name: str
    counts: list[int] = []


@dataclasses.dataclass
class Point:
    x: float
    y: float | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    owner: UUID = Field(alias="ownerId")
    pause: timedelta


def declared(params: Any = dict[str, Any], result: Any = object) -> JobType[Any, Any]:
    """A job type of these types."""

    async def handler(ctx: Context, value: Any) -> Any:
        return value

    handler.__annotations__ |= {"value": params, "return": result}
    return job_type("a.type")(handler)


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "a" * 64, "a\n", "ä"])
def test_a_name_that_cannot_be_used_is_refused(name: str) -> None:
    """The error names the field, the value and what to use."""
    with pytest.raises(InvalidArgument, match="lowercase letter") as caught:
        job_type(name)(lambda ctx, params: None)
    assert (caught.value.field, caught.value.received) == ("name", repr(name))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("priority", 10),
        ("priority", -1),
        ("max_attempts", 0),
        ("max_attempts", 101),
        ("cache_ttl", timedelta(seconds=-1)),
        ("timeout", timedelta(days=-1)),
        ("max_live_jobs", -1),
        ("max_live_jobs", 2**31),
        ("max_params_bytes", 1),
        *((name, "soon") for name in SETTINGS),
        *((name, True) for name in SETTINGS),
        *((name, 5.5) for name in SETTINGS),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: str, value: Any) -> None:
    """Where it is declared, not when the worker starts."""
    with pytest.raises(InvalidArgument) as caught:
        job_type("a", **{setting: value})(lambda ctx, params: None)
    assert caught.value.field == setting and caught.value.fix


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (5, "Write timedelta(seconds=5)."),
        (0.5, "Write timedelta(seconds=0.5)."),
        ("5 s", "Write timedelta(seconds=5)."),
    ],
)
def test_a_number_is_no_duration(value: Any, fix: str) -> None:
    """The error has the line to write instead: whether 5 means seconds is nothing to guess."""
    with pytest.raises(InvalidArgument) as caught:
        job_type("a", timeout=value)(lambda ctx, params: None)
    assert str(caught.value) == f"timeout is not a timedelta. Received: {value!r}. {fix}"


def test_a_decorator_without_parentheses_is_refused() -> None:
    """@job_type alone takes the handler for the name: the error has the line to write."""

    def resize(ctx: Context, params: dict[str, Any]) -> None:
        raise AssertionError

    with pytest.raises(InvalidArgument, match=r'Write @job_type\("resize"\)\.$'):
        job_type(resize)  # type: ignore[arg-type]


class Plain:
    """A class that nothing knows how to validate."""


@pytest.mark.parametrize(("params", "result"), [(Plain, object), (dict[str, Plain], object), (Point, Plain)])
def test_a_type_that_cannot_be_validated_is_refused(params: Any, result: Any) -> None:
    """In a sentence that says what to write, not in pydantic's page about arbitrary types."""
    with pytest.raises(
        InvalidArgument, match=r"Plain.* Annotate it with a pydantic model or a dataclass"
    ) as caught:
        declared(params, result)
    assert caught.value.field == "handler" and len(str(caught.value)) < 300


def test_only_what_was_given_is_a_setting() -> None:
    """What is left out is SQL's to decide; zero durations are kept; settings cannot be changed later."""
    found: JobType[Any, Any] = job_type("a", cache_ttl=timedelta(0), priority=0)(lambda ctx, params: None)
    assert dict(found.settings) == {"cache_ttl": timedelta(0), "priority": 0}
    with pytest.raises(TypeError):
        found.settings["priority"] = 5  # type: ignore[index]


@pytest.mark.parametrize("handler", [lambda: None, lambda ctx: None, lambda ctx, params, more: None])
def test_a_handler_takes_two_arguments(handler: Any) -> None:
    """Any other number is refused where it is declared."""
    with pytest.raises(InvalidArgument, match="two arguments"):
        job_type("a")(handler)


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    """A name that is not there is named."""

    async def handler(ctx: Context, params: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
        raise AssertionError

    with pytest.raises(InvalidArgument, match="Missing"):
        job_type("a")(handler)


def test_types_are_read_from_functions_partials_and_objects() -> None:
    """And whether the handler is asynchronous."""

    async def function(ctx: Context, params: Params) -> Point:
        raise AssertionError

    class Handler:
        async def __call__(self, ctx: Context, params: Params) -> Point:
            raise AssertionError

    def plain(extra: int, ctx: Context, params: Params) -> Point:
        raise AssertionError

    for handler, is_async in (
        (function, True),
        (functools.partial(function), True),
        (Handler(), True),
        (functools.partial(plain, 1), False),
    ):
        found: JobType[Any, Any] = job_type("a")(handler)
        assert (found.params_model, found.result_model, found.is_async) == (Params, Point, is_async)


def test_a_declared_type_is_still_its_handler() -> None:
    """Calling it calls the function, so that it can be tested as one."""

    @job_type("double")
    def double(ctx: Context, params: dict[str, int]) -> int:
        return params["n"] * 2

    assert double(None, {"n": 2}) == 4  # type: ignore[arg-type]
    assert repr(double) == "JobType('double')"


class Constants(BaseModel):
    """Written by pydantic as NaN and Infinity, which is no JSON."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    share: float


class Lazy(BaseModel):
    """Pydantic makes an iterator of the field, which can be read once."""

    rows: Iterable[int | None]


@dataclasses.dataclass
class Shares:
    """Checks nothing when it is made."""

    shares: list[float | None]
    name: str = ""


def test_what_is_lazy_is_written_once() -> None:
    """Iterators arrive whole, also beside null and words that look like a number that JSON has not."""
    for kind, value, expected in (
        (Lazy, {"rows": [1, None, 3]}, {"rows": [1, None, 3]}),
        (dict[str, Any], {"a": (n for n in (1, None, "NaN"))}, {"a": [1, None, "NaN"]}),
        (object, (n for n in (1, "NaN", "\ufffd")), [1, "NaN", "\ufffd"]),
        (list[float], [1.5, 2.5], [1.5, 2.5]),
    ):
        assert orjson.loads(declared(kind).dump_params(value)) == expected
    text = declared(Shares).dump_params(Shares((n for n in (0.5, None)), "NaN"))  # type: ignore[arg-type]
    assert orjson.loads(text) == {"shares": [0.5, None], "name": "NaN"}
    assert orjson.loads(declared(Shares).dump_params(Shares([], "Infinity"))) == {
        "shares": [],
        "name": "Infinity",
    }


def test_what_a_model_cannot_read_back_is_said_by_place() -> None:
    """Also what is written in one go."""
    with pytest.raises(InvalidArgument) as caught:
        declared(Params).dump_params({"name": "a", "counts": [10**5000]})
    assert (caught.value.field or "").startswith("params")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("kind", "value", "place"),
    [
        (Params, {}, "params.name"),
        (Params, {"name": "a", "counts": [1, "x"]}, "params.counts[1]"),
        (Params, {"name": "\ud800"}, "params.name"),
        (Params, {"name": "a\x00"}, "params.name"),
        (Constants, {"share": float("nan")}, "params.share"),
        (Constants, {"share": float("-inf")}, "params.share"),
        (Point, {"x": "far"}, "params.x"),
        (Point, Point(float("nan")), "params.x"),
        (Point, Point("far"), "params.x"),  # type: ignore[arg-type]
        (dict[str, Any], {"a": [{"b": float("inf")}]}, "params.a[0].b"),
        (dict[str, Any], {"a": {"b\x00": 1}}, "params.a"),
        (dict[str, Any], {"a": object()}, "params"),
        (dict[str, Any], "text", "params"),
    ],
)
def test_params_that_cannot_be_are_refused_by_place(kind: Any, value: Any, place: str) -> None:
    """The field is the path inside the params; the text of the error can be printed anywhere."""
    with pytest.raises(InvalidArgument) as caught:
        declared(kind).dump_params(value)
    assert caught.value.field == place
    assert str(caught.value).encode() and caught.value.fix


def test_problems_are_told_and_counted() -> None:
    """The message has the first three, the field is the first one's, the fix says how many there are, if several."""
    for value, place in [({"x": 1, "y": "a"}, "params.y"), ([], "params")]:
        with pytest.raises(InvalidArgument, match=f"^{place} does not fit its type: [^;]*$") as caught:
            declared(Point).dump_params(value)
        assert caught.value.fix == "Send params that the job type accepts."
    with pytest.raises(
        InvalidArgument, match=r"^params\.ownerId does .*: Field required; params\.pause does"
    ) as caught:
        declared(Strict).dump_params({})
    assert caught.value.field == "params.ownerId"
    assert "2 problems in all" in (caught.value.fix or "")
    with pytest.raises(InvalidArgument) as caught:
        declared(dict[str, int]).dump_params(dict.fromkeys("abcde", "x"))
    assert caught.value.message.count("does not fit") == 3
    assert "5 problems in all" in (caught.value.fix or "")


def test_a_model_whose_serializer_raises_is_refused() -> None:
    """Not with whatever it raises."""

    class Bad(BaseModel):
        data: bytes

    with pytest.raises(InvalidArgument, match="cannot be written as JSON"):
        declared(Bad).dump_params(Bad(data=b"\xff"))


def test_none_means_no_params() -> None:
    """For types whose params all have defaults."""
    assert declared().dump_params(None) == "{}"


@given(st.builds(Strict, ownerId=st.uuids(), pause=st.timedeltas()))
def test_strict_models_with_aliases_come_back_equal(value: Strict) -> None:
    """What a client writes, the worker reads, and the client reads back."""
    kind = declared(Strict, Strict)
    text = kind.dump_params(value)
    assert set(orjson.loads(text)) == {"ownerId", "pause"}
    assert kind.parse_params(text) == value
    assert kind.load_result(orjson.loads(kind.dump_result(value))) == value


@given(
    st.builds(Point, x=st.floats(allow_nan=False, allow_infinity=False), y=st.none() | st.floats(width=32))
)
def test_a_dataclass_comes_back_equal_or_is_refused(value: Point) -> None:
    """NaN and infinities are refused, never turned into null."""
    kind = declared(Point, Point)
    try:
        text = kind.dump_result(value)
    except InvalidArgument as error:
        assert value.y is not None and error.field == "result.y"
        assert value.y != value.y or abs(value.y) == float("inf")
    else:
        assert kind.load_result(orjson.loads(text)) == value


def test_a_transactional_handler_is_async_and_short() -> None:
    """A plain def is refused, and a timeout beyond 60 seconds, naming what is wrong; the default is 10 seconds."""

    async def handler(ctx: Context, params: dict[str, Any]) -> None: ...

    def plain(ctx: Context, params: dict[str, Any]) -> None: ...

    kind = job_type("transfer", transactional=True)(handler)
    assert (kind.transactional, kind.settings["timeout"]) == (True, timedelta(seconds=10))
    assert not job_type("transfer")(handler).transactional
    minute = job_type("transfer", transactional=True, timeout=timedelta(minutes=1))(handler)
    assert minute.settings["timeout"] == timedelta(minutes=1)
    with pytest.raises(InvalidArgument, match="async def") as caught:
        job_type("transfer", transactional=True)(plain)
    assert caught.value.field == "handler"
    for timeout in (timedelta(0), timedelta(seconds=61)):
        with pytest.raises(InvalidArgument, match="60 seconds") as caught:
            job_type("transfer", transactional=True, timeout=timeout)(handler)
        assert caught.value.field == "timeout"
