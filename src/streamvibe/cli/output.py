"""What every command prints with: tables on a terminal, plain lines elsewhere, JSON when asked, errors.

Data go to standard output, everything about them to standard error. JSON is one document: times in ISO 8601 and
UTC, durations in seconds, ids as text. An error is three lines (what, the value received, what to do), or with
--json one problem object: type, title, status, code, field, received, fix.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from streamvibe.config import Settings
from streamvibe.errors import JobFailed, StreamVibeError

#: Of a column that may be cut: how many characters are worth another column's place, and how many it keeps.
_ROOM, _LEAST = 24, 8

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def database_dsn() -> str:
    """The database to use: --database-url, else the settings', else the embedded one, started if need be."""
    from streamvibe.db.embedded import database_url

    return database_url(Settings())


def console() -> Console:
    """Standard output."""
    return Console(highlight=False)


def print_remark(line: str) -> None:
    """A line for a person on standard output, as long as it is."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)


def error_console() -> Console:
    """Standard error: progress, hints and errors."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(plain(value), ensure_ascii=False))


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[object]], *, named: bool = False) -> None:
    """A table on a terminal; elsewhere a line per row, tab-separated, with headings only if ``named``."""
    screen = console()
    if screen.is_terminal:
        table = Table(*headings, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*(text(cell) for cell in row))
        screen.print(table, markup=False)
    else:
        for row in [headings] if named else []:
            print("\t".join(row))
        for row in rows:
            print("\t".join(" ".join(text(cell).split()) for cell in row))


def print_list(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    whole: Sequence[str],
    less: Sequence[str],
) -> None:
    """Like `print_rows`, a line per row on a terminal too: what does not fit is cut, or not shown.

    Columns named in ``whole`` are never cut; those in ``less`` are left out, the first first, where the others
    have too little room.
    """
    screen = console()
    if not screen.is_terminal:
        print_rows(headings, rows)
        return
    lines = [[" ".join(text(cell).split()) for cell in row] for row in rows]
    columns = {name: [line[place] for line in lines] for place, name in enumerate(headings)}
    widths = {name: max(map(cell_len, (name, *cells))) for name, cells in columns.items()}

    def lacking(most: int) -> int:
        kept = (widths[name] if name in whole else min(widths[name], most) for name in columns)
        return sum(kept) + len(columns) - screen.width  # each is followed by a space

    for name in less:
        if lacking(_ROOM) > 0:
            del columns[name]
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    most = next((most for most in range(max(widths.values()), _LEAST, -1) if lacking(most) <= 0), _LEAST)
    for name in columns:
        width = widths[name] if name in whole else min(widths[name], most)
        table.add_column(name, no_wrap=True, width=width)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    screen.print(table, markup=False, crop=False)


def print_lines(headings: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Sequence[str]) -> None:
    """Like `print_rows`; on a terminal columns named in ``whole`` are neither cut nor wrapped, the others are wrapped.

    Where these would have too little room, each row is a line of the first and a paragraph of the others.
    """
    screen = console()
    if not screen.is_terminal:
        print_rows(headings, rows)
        return
    lines = [[text(cell) for cell in row] for row in rows]
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    taken = 0
    for place, name in enumerate(headings):
        width = max(map(cell_len, (name, *(line[place] for line in lines))))
        taken += (width if name in whole else min(width, _ROOM)) + 1
        table.add_column(
            name, no_wrap=name in whole, overflow="fold", min_width=width if name in whole else None
        )
    if taken <= screen.width:
        for line in lines:
            table.add_row(*line)
        screen.print(table, markup=False)
        return
    for line in lines:
        first = [cell for name, cell in zip(headings, line, strict=True) if name in whole]
        others = [
            cell for name, cell in zip(headings, line, strict=True) if name not in whole and cell != "-"
        ]
        screen.print(" ".join(first), style="bold", markup=False, soft_wrap=True)
        for cell in others:
            screen.print(Padding(Text(cell), (0, 0, 0, 2)))


def print_fields(values: Iterable[tuple[str, object]]) -> None:
    """A line per field: its name and its value."""
    print_rows(("field", "value"), values)


def print_hint(line: str, *, as_json: bool = False) -> None:
    """A remark for a person, on standard error; with ``as_json`` an object with the one field hint."""
    if as_json:
        print(json.dumps({"hint": line}, ensure_ascii=False), file=sys.stderr)
    else:
        error_console().print(line, markup=False)


def print_if_empty(items: Sequence[object], what: str) -> None:
    """Say on a terminal that there is nothing, where an empty table would leave one wondering."""
    if not items and console().is_terminal:
        print_hint(f"No {what}.")


def print_error(error: StreamVibeError, *, as_json: bool) -> None:
    """The error on standard error."""
    if as_json:
        print(json.dumps(problem(error), ensure_ascii=False), file=sys.stderr)
        return
    screen = error_console()
    screen.print("[bold red]Error:[/] ", end="")
    screen.print(_sentence(error.message), markup=False)
    if error.received is not None:
        place = f" for {error.field}" if error.field is not None else ""
        # Of a job that was waited for nobody typed the id.
        what = "Job" if isinstance(error, JobFailed) else f"Received{place}"
        screen.print(f"{what}: {error.received}", markup=False)
    if error.fix is not None:
        screen.print(_sentence(error.fix), markup=False)
    for note in getattr(error, "__notes__", []):
        screen.print(note, markup=False)


def problem(error: StreamVibeError) -> dict[str, object]:
    """The error as a problem object."""
    return {
        "type": error.problem_type,
        "title": _capitalised(error.message),
        "status": error.http_status,
        "code": error.sqlstate,
        "field": error.field,
        "received": error.received,
        "fix": error.fix and _sentence(error.fix),
    }


def plain(value: Any) -> Any:
    """``value`` in what JSON has."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value) if item.repr}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def text(value: object) -> str:
    """``value`` for a cell or a line."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, dict | list):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(value)


def _capitalised(line: str) -> str:
    # The name of a parameter, a module or a field stays as it is written.
    if {"_", "."} & set(line.split(maxsplit=1)[0]):
        return line
    return line[:1].upper() + line[1:]


def _sentence(line: str) -> str:
    line = _capitalised(line)
    return line if line.endswith((".", "!", "?", "^")) else line + "."
