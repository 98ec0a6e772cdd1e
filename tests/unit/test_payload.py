"""What jsonb can hold, asked of PostgreSQL itself."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.servers import Server

from streamvibe import payload
from streamvibe.errors import InvalidArgument

# Every character there is, surrogates and U+0000 among them, and more of those than chance would bring.
TEXT = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\\u0\ufffd"), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
# Also what JSON has no word for.
ANYTHING = st.recursive(
    LEAVES | st.binary(max_size=5) | st.complex_numbers() | st.datetimes() | st.decimals() | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.sets(st.integers())
        | st.dictionaries(TEXT | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=15,
)
OFTEN = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def conn(pg18: Server) -> Iterator[psycopg.Connection]:
    """A connection that can cast to jsonb."""
    with pg18.connect() as connection:
        yield connection


def stored(conn: psycopg.Connection, text: str) -> Any:
    """What PostgreSQL makes of the text."""
    row = conn.execute("SELECT %s::text::jsonb::text", [text]).fetchone()
    assert row is not None
    return json.loads(row[0])


def equal(first: Any, second: Any) -> bool:
    """Equal, where 1e300 may have become a whole number, of which a float is the nearest."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, float) and isinstance(second, int | float) and not isinstance(second, bool):
        return first == float(second)
    return type(first) is type(second) and bool(first == second)


@OFTEN
@given(value=VALUES)
@example(value={"a\x00": 1})
@example(value={"path": "\\u0000"})
@example(value={"none": None, "share": math.nan})
@example(value=2**64)
@example(value={"big": 2**70, "text": "\ud800"})
@example(value=1e308)
def test_encoded_values_come_back_equal(conn: psycopg.Connection, value: Any) -> None:
    """encode() either raises InvalidArgument, or PostgreSQL takes the text and gives back the equal value."""
    try:
        text = payload.encode(value, "params")
    except InvalidArgument as error:
        assert error.field is not None and error.field.startswith("params") and error.fix
        assert not can_be_held(value)
    else:
        assert can_be_held(value)
        assert equal(value, stored(conn, text))


def can_be_held(value: Any) -> bool:
    """By the definition: finite numbers, text without U+0000 and lone surrogates, all the way down."""
    if isinstance(value, dict):
        return all(can_be_held(key) and can_be_held(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(can_be_held, value))
    if isinstance(value, str):
        return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, float) or math.isfinite(value)


@OFTEN
@given(value=ANYTHING)
@example(value=10**5000)
@example(value=[[[1j]]])
def test_cleaned_values_are_always_taken(conn: psycopg.Connection, value: Any) -> None:
    """clean() makes of anything what orjson writes and jsonb holds; what could be held is unchanged."""
    cleaned = payload.clean(value)
    text = orjson.dumps(cleaned).decode()
    assert equal(json.loads(text), stored(conn, text))
    assert payload.clean(cleaned) == cleaned


@OFTEN
@given(text=st.text(st.characters() | st.sampled_from("\x00\ud800"), max_size=30), limit=st.integers(0, 30))
def test_cleaned_text_is_always_taken(conn: psycopg.Connection, text: str, limit: int) -> None:
    """clean_text() cuts and replaces, character by character, and changes nothing else."""
    cleaned = payload.clean_text(text, limit)
    row = conn.execute("SELECT %s::text", [cleaned]).fetchone()
    assert row == (cleaned,)
    assert len(cleaned) == min(len(text), limit)
    assert all(after in (before, "\ufffd") for before, after in zip(text, cleaned, strict=False))


class Share(Enum):
    NONE = math.nan
    ALL = 1.0


@dataclass
class Report:
    share: float
    note: str = ""


@pytest.mark.parametrize(
    ("value", "place", "received"),
    [
        ({"a": [1, {"b": math.nan}]}, "result.a[1].b", "nan"),
        ({"a": (1, math.inf)}, "result.a[1]", "inf"),
        ({"a": {"b\x00": 1}}, "result.a", "'b\\x00'"),
        ({1: 2}, "result", "1"),
        (Report(math.nan), "result.share", "nan"),
        (Report(1, "\ud83d"), "result.note", "'\\ud83d'"),
        ({"share": Share.NONE}, "result.share", "nan"),
        ({"a": {1, 2}}, "result", "dict: "),
        (b"data", "result", "bytes: "),
        pytest.param(10**5000, "result", "int: ", id="5000 digits"),
    ],
)
def test_the_error_names_the_place_and_the_value(value: Any, place: str, received: str) -> None:
    """Down to the key and the index, in text that can be printed."""
    with pytest.raises(InvalidArgument) as caught:
        payload.encode(value, "result")
    assert caught.value.field == place
    assert (caught.value.received or "").startswith(received)
    assert str(caught.value).encode()


def test_cycles_and_depth_are_refused_and_cleaned() -> None:
    """Neither ends in a RecursionError."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(InvalidArgument, match=r"nested too deeply|cannot be written"):
            payload.encode(value, "params")
        assert orjson.dumps(payload.clean(value))


def test_objects_that_cannot_even_be_printed_become_text() -> None:
    """Metadata comes from anywhere; a log line must not end its job."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert payload.clean({"odd": Odd()}) == {"odd": "<Odd, whose text raised RuntimeError>"}


@pytest.mark.parametrize(
    "value", [{"a": [math.nan]}, [math.inf], {Share.NONE}, Report(math.nan), {"\ud800": 1}]
)
def test_silent_changes_are_found(value: Any) -> None:
    """What pydantic would write as null or U+FFFD is refused by place."""
    with pytest.raises(InvalidArgument):
        payload.refuse_silent_change(value, "result")
    payload.refuse_silent_change({"fine": [1.0, None, "\ufffd", Share.ALL]}, "result")
