"""Params and results as JSON: validated by their type, and written so that jsonb holds just what was meant."""

import json
import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from streamvibe import payload
from streamvibe.errors import InvalidArgument

T = TypeVar("T")

_FIXES = {
    "params": "Send params that the job type accepts",
    "result": "Return a result that the job type accepts",
}
#: Of all that is wrong with one value; the fix says how many there are.
_PROBLEMS_SHOWN = 3
#: Kinds of pydantic's schemas that it may write in one go: nothing in them is lazy, written by code of the user's, or
#: anything at all.
_PLAIN = frozenset(
    {
        *("model", "model-fields", "model-field", "dataclass", "dataclass-args", "dataclass-field"),
        *(
            "typed-dict",
            "typed-dict-field",
            "list",
            "dict",
            "tuple",
            "set",
            "frozenset",
            "union",
            "tagged-union",
        ),
        *("definitions", "definition-ref", "nullable", "default", "literal", "enum", "none"),
        *("int", "str", "bool", "float", "uuid", "date", "time", "datetime", "timedelta"),
    }
)
#: Signs in JSON that something was written as something else, or that jsonb cannot hold it. null may have been NaN.
_SIGNS = rb"\\u0000|" + "\ufffd".encode()
_FLOAT_SIGNS = _SIGNS + b"|null|NaN|Infinity"


class TypedJson(Generic[T]):
    """One type, named ``field`` in errors: ``params`` or ``result``."""

    def __init__(self, adapter: TypeAdapter[T], field: str, *, round_trip: bool) -> None:
        """``round_trip``: without computed fields, which a model that forbids unknown fields would not take back."""
        self._adapter: TypeAdapter[Any] = adapter
        self._field = field
        self._round_trip = round_trip
        kinds = set(_kinds(adapter.core_schema))
        self._is_plain = kinds <= _PLAIN
        self._doubtful = re.compile(_FLOAT_SIGNS if "float" in kinds else _SIGNS).search

    def validate(self, value: object) -> T:
        """``value`` as the type. Raises InvalidArgument naming the field that is wrong."""
        try:
            # What is stored is named by alias; code that builds a dict may use either name.
            return cast(T, self._adapter.validator.validate_python(value, by_alias=True, by_name=True))
        except ValidationError as error:
            raise self._misfit(error) from error

    def parse(self, text: str) -> T:
        """The same of JSON text."""
        try:
            return cast(T, self._adapter.validator.validate_json(text, by_alias=True, by_name=True))
        except ValidationError as error:
            raise self._misfit(error) from error

    def dump(self, value: object) -> str:
        """The JSON text of ``value``, validated. Raises InvalidArgument naming the field that is wrong."""
        checked = self.validate(value)
        text = self._dump_plain(checked) if self._is_plain else None
        if text is None:
            text = self._dump_with_care(checked)
            # Whoever reads it must be able to; also a dataclass checks nothing when it is made.
            self.parse(text)
        return text

    def _dump_plain(self, checked: object) -> str | None:
        """In one go, read back; None when that does not work: a closer look then says why."""
        try:
            data = self._adapter.serializer.to_json(
                checked, by_alias=True, round_trip=self._round_trip, warnings=False
            )
            self._adapter.validator.validate_json(data, by_alias=True, by_name=True)
            found = json.loads(data) if self._doubtful(data) else None
        except Exception:
            return None
        if found is not None:
            # Not written a second time: an iterator that somebody put where a list belongs is used up.
            payload.encode(found, self._field)
            self._refuse_silent_change(checked)
        return data.decode()

    def _dump_with_care(self, checked: object) -> str:
        try:
            data = self._adapter.dump_python(
                checked, mode="json", by_alias=True, round_trip=self._round_trip, warnings=False
            )
        except Exception as error:  # also what a model's own serializers raise
            raise InvalidArgument(
                f"{self._field} cannot be written as JSON",
                field=self._field,
                received=f"{type(checked).__name__}: {error}"[:300],
                fix="Use objects, lists, text, numbers, booleans and null.",
            ) from error
        text = payload.encode(data, self._field)
        if "null" in text or "\ufffd" in text:
            self._refuse_silent_change(checked)
        return text

    def _refuse_silent_change(self, checked: object) -> None:
        python = self._adapter.dump_python(checked, mode="python", by_alias=True, warnings=False)
        payload.refuse_silent_change(python, self._field)

    def _misfit(self, error: ValidationError) -> InvalidArgument:
        problems = error.errors(include_url=False)
        places = [
            self._field
            + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
            for problem in problems
        ]
        first, *others = [
            f"{place} does not fit its type: {problem['msg']}"
            for place, problem in zip(places, problems, strict=True)
        ]
        shown = "; ".join([first, *others[: _PROBLEMS_SHOWN - 1]])
        count = len(problems)
        return InvalidArgument(
            shown,
            field=places[0],
            received=repr(cast(object, problems[0]["input"]))[:200]
            .encode(errors="backslashreplace")
            .decode(),
            fix=f"{_FIXES[self._field]}{f' ({count} problems in all)' if count > 1 else ''}.",
        )


def _kinds(schema: object) -> Iterator[str]:
    """The kinds of a pydantic-core schema and of all in it, and a few words for what makes them something else."""
    if isinstance(schema, list | tuple):
        for item in schema:
            yield from _kinds(item)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str):
            yield kind
            if "serialization" in schema or schema.get("computed_fields"):
                yield "written by code"
            if "allow" in (
                schema.get("extra_behavior"),
                dict(schema.get("config") or {}).get("extra_fields_behavior"),
            ):
                yield "any"
            values = schema.get("expected", ()) if kind == "literal" else schema.get("members", ())
            if not all(isinstance(getattr(value, "value", value), str | int | None) for value in values):
                yield "any"
        for name, item in schema.items():
            if name not in ("metadata", "config", "expected", "members", "cls"):
                yield from _kinds(item)
