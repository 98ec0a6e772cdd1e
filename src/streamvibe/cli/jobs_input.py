"""Reading what commands are given: params and other JSON objects, and times."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from streamvibe.errors import InvalidArgument


def read_params(given: str, option: str = "--params") -> dict[str, Any]:
    """The JSON object of ``--params``: the text itself, ``@FILE``, or ``-`` for standard input.

    Raises InvalidArgument naming the option, the position and the fix.
    """
    fix = (
        f"""Quote all of it for the shell, as in {option} '{{"key": "value"}}'; """
        "or use @FILE, or - for standard input"
    )
    source = _source(given, option)

    def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                # Parsers keep the last one and say nothing, the database's own, too.
                raise InvalidArgument(
                    f"{option} has {json.dumps(name, ensure_ascii=False)} twice in one object",
                    field=option,
                    received=f"{_shown(found[name])} and {_shown(value)}",
                    fix="Keep one of them",
                )
            found[name] = value
        return found

    try:
        value = json.loads(source, parse_constant=_no_such_number, object_pairs_hook=named_once)
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"{option} is not JSON: {error.msg}, at line {error.lineno}, column {error.colno}",
            field=option,
            received=_around(source, error.pos),
            fix=fix,
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"{option} cannot be read: {error}", field=option, received=source[:60], fix=fix
        ) from None
    if not isinstance(value, dict):
        raise InvalidArgument(
            f"{option} is not a JSON object",
            field=option,
            received=_around(source, 0),
            fix="""Params have names: write an object, as in {"key": "value"}""",
        )
    return value


def read_time(given: str | None, option: str) -> datetime | None:
    """The time of an option, with its time zone. Raises InvalidArgument."""
    if given is None:
        return None
    try:
        when = datetime.fromisoformat(given)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise InvalidArgument(
            f"{option} is not a time" if when is None else f"{option} has no time zone",
            field=option,
            received=given,
            fix="Write it in ISO 8601, as in 2030-01-31T18:00Z or 2030-01-31T19:00+01:00",
        )
    return when


def _source(given: str, option: str) -> str:
    try:
        if given == "-":
            return sys.stdin.buffer.read().decode()
        if given.startswith("@"):
            return Path(given[1:]).read_bytes().decode()
    except OSError as error:
        raise InvalidArgument(
            f"{option} names a file that cannot be read ({error.strerror})",
            field=option,
            received=given,
            fix="Check the file's name and rights",
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"{option} is not UTF-8 text, at byte {error.start + 1}",
            field=option,
            received=given,
            fix="Save the file as UTF-8",
        ) from None
    return given


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _around(source: str, position: int) -> str:
    start, end = max(0, position - 30), position + 30
    return ("..." if start else "") + source[start:end] + ("..." if end < len(source) else "")


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"JSON has no number {name}")
