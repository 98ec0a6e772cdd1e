"""Reading JSON that PostgreSQL wrote: any jsonb value, whatever Python's decoders think of its depth or digits."""

import json
import re
from decimal import Decimal
from typing import Any

import orjson
from psycopg import DataError
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

#: Digits as zeros, everything else as blanks: nineteen digits in a row are found eight times as fast as by a pattern.
_DIGITS_TO_ZERO = bytes(0x30 if chr(byte).isdecimal() else 0x20 for byte in range(256))
_BEYOND_64_BITS = b"0" * 19
_PIECE = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+')


def load_json(data: bytes | bytearray | memoryview | str) -> Any:
    """Decode JSON with orjson; what it would round or refuses, with slower ways.

    Whole numbers are exact at any length: int, and Decimal beyond the 4300 digits that Python converts. Nesting
    has no limit.
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    try:
        if _BEYOND_64_BITS in raw.translate(_DIGITS_TO_ZERO):
            return json.loads(raw, parse_int=_whole_number)
        return orjson.loads(raw)
    except (orjson.JSONDecodeError, RecursionError):
        if not _is_deep(raw):
            raise
        return _load_deep(raw.decode())


class JsonLoader(Loader):
    """What a connection reads json and jsonb with, as text; without the call in between that psycopg's own makes."""

    def load(self, data: Buffer) -> Any:
        return load_json(data)


class JsonBinaryLoader(JsonLoader):
    """The same in binary, json."""

    format = Format.BINARY


class JsonbBinaryLoader(Loader):
    """The same in binary, jsonb: its text after a byte that says which version of jsonb it is."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        if data[0] != 1:
            raise DataError(f"jsonb of version {data[0]}, and only version 1 is known")
        return load_json(data[1:])


def _whole_number(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:
        return Decimal(digits)


def _is_deep(raw: bytes) -> bool:
    return raw.count(b"[") + raw.count(b"{") > 500


def _load_deep(text: str) -> Any:
    """Decode valid JSON without recursion."""
    root: list[Any] = []
    open_values: list[list[Any] | dict[str, Any]] = [root]
    keys: list[str | None] = [None]  # per open value the key whose value comes next

    def put(value: Any) -> None:
        into = open_values[-1]
        if isinstance(into, list):
            into.append(value)
        elif (key := keys[-1]) is None:
            keys[-1] = value
        else:
            into[key] = value
            keys[-1] = None

    for piece in _PIECE.findall(text):
        if piece in "]}":
            open_values.pop()
            keys.pop()
        elif piece in "[{":
            value: list[Any] | dict[str, Any] = [] if piece == "[" else {}
            put(value)
            open_values.append(value)
            keys.append(None)
        else:
            put(json.loads(piece, parse_int=_whole_number))
    if len(open_values) > 1:
        raise ValueError("the JSON ends too early")
    return root[0]
