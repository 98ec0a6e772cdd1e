"""What a statement is: data that both clients can send. No I/O here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from psycopg.sql import Composed

T = TypeVar("T")
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Statement(Generic[T]):
    """One SQL statement: its text (static), its parameters, and what to make of all its rows."""

    text: str | Composed
    params: Mapping[str, object] | Sequence[object]
    decode: Callable[[Sequence[Row]], T]


def nothing(rows: Sequence[Row]) -> None:
    """Decode for a function that returns void."""
