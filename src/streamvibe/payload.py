"""What a jsonb column can hold: the one check for params, results and log metadata."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum

import orjson

from streamvibe.errors import InvalidArgument

_NO_SUCH_NUMBER = "JSON has no such number"
_LARGEST_INTEGER = 2**64 - 1
_SMALLEST_INTEGER = -(2**63)


def encode(value: object, field: str) -> str:
    """The JSON text of ``value``.

    Raises InvalidArgument naming the place inside the value (``params.items[3].name``), what stands there and
    the fix, for whatever PostgreSQL's jsonb refuses or would change silently: NaN and infinities, the
    character U+0000, lone surrogates, keys that are not text, unknown objects, nesting beyond 250 levels.
    """
    try:
        data = orjson.dumps(value)
    except TypeError as error:
        _raise_for_first_problem(value, field)
        try:
            # Integers beyond 64 bits: jsonb holds them, orjson does not write them.
            return json.dumps(value, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            raise InvalidArgument(
                f"{field} cannot be written as JSON",
                field=field,
                received=f"{type(value).__name__}: {error}",
                fix="Use objects, lists, text, numbers, booleans and null.",
            ) from error
    # orjson writes NaN as null; a walk is needed only where one of the two stands.
    if b"null" in data or b"\\u0000" in data:
        _raise_for_first_problem(value, field)
    return data.decode()


def refuse_silent_change(value: object, field: str) -> None:
    """Raise InvalidArgument for what pydantic writes as something else: NaN as null, a surrogate in a key as U+FFFD.

    Only a value whose JSON holds one of the two needs this walk.
    """
    for path, received, message, fix in _changed(value, field, 0):
        raise InvalidArgument(message, field=path, received=received, fix=fix)


def _changed(value: object, path: str, depth: int) -> Iterator[tuple[str, str, str, str]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, repr(value), _NO_SUCH_NUMBER, "Use a finite number or null."
    elif isinstance(value, Enum):
        yield from _changed(value.value, path, depth)
    elif depth <= 250 and isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _text_problems(key, path)
            yield from _changed(item, f"{path}.{key}", depth + 1)
    elif depth <= 250 and isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _changed(item, f"{path}[{index}]", depth + 1)
    elif depth <= 250 and is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from _changed(getattr(value, item.name), f"{path}.{item.name}", depth + 1)


def _raise_for_first_problem(value: object, field: str) -> None:
    for path, received, message, fix in _problems(value, field, 0):
        raise InvalidArgument(message, field=path, received=received, fix=fix)


def _problems(value: object, path: str, depth: int) -> Iterator[tuple[str, str, str, str]]:
    if depth > 250:
        yield path, "more than 250 levels", "the value is nested too deeply", "Flatten it."
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, repr(value), _NO_SUCH_NUMBER, "Use a finite number or null."
    elif isinstance(value, Enum) and not isinstance(value, str):
        yield from _problems(value.value, path, depth + 1)
    elif isinstance(value, str):
        yield from _text_problems(value, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield path, repr(key)[:100], "a key is not text", "Use text keys."
                continue
            yield from _text_problems(key, path)
            yield from _problems(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _problems(item, f"{path}[{index}]", depth + 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from _problems(getattr(value, item.name), f"{path}.{item.name}", depth + 1)


def _text_problems(text: str, path: str) -> Iterator[tuple[str, str, str, str]]:
    if "\x00" in text:
        yield path, ascii(text)[:100], "PostgreSQL text cannot hold the character U+0000", "Remove it."
    elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        yield path, ascii(text)[:100], "the text holds a lone surrogate", "Decode the text as UTF-8 first."


def clean_text(text: str, limit: int) -> str:
    """``text`` as PostgreSQL can hold it: ``limit`` characters, U+0000 and lone surrogates as U+FFFD."""
    cut = text[:limit].replace("\x00", "�")
    if cut.isascii():
        return cut
    return "".join("�" if "\ud800" <= character <= "\udfff" else character for character in cut)


def clean(value: object, depth: int = 0) -> object:
    """``value`` as orjson can write and jsonb can hold it, for log metadata: what they cannot becomes text."""
    if isinstance(value, str):
        return clean_text(value, 10_000)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < 20 and isinstance(value, Mapping):
        return {clean_text(_text_of(key), 1000): clean(item, depth + 1) for key, item in value.items()}
    if depth < 20 and isinstance(value, list | tuple):
        return [clean(item, depth + 1) for item in value]
    return clean_text(_text_of(value), 1000)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # anybody's __str__; a log line must not end its job
        return f"<{type(value).__name__}, whose text raised {type(error).__name__}>"
