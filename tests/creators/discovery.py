"""Google's published discovery document of the YouTube Data API v3, and checks against it."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

# Google serves these through the parameter or the header, and to every method.
KEY_HEADER = "x-goog-api-key"


@cache
def document() -> dict[str, Any]:
    path = files("googleapiclient") / "discovery_cache" / "documents" / "youtube.v3.json"
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def method(resource: str) -> dict[str, Any]:
    """The description of `resource`.list."""
    found: dict[str, Any] = document()["resources"][resource]["methods"]["list"]
    return found


def faults_of_query(resource: str, query: Mapping[str, str]) -> list[str]:
    """What Google's description of `resource`.list does not allow in a query."""
    parameters = method(resource)["parameters"]
    known = parameters | document()["parameters"]
    faults = [f"{name}: unknown" for name in query if name not in known]
    faults += [f"{n}: missing" for n, rule in parameters.items() if rule.get("required") and not query.get(n)]
    for name, text in query.items():
        rule = known.get(name, {})
        values = text.split(",") if rule.get("repeated") else [text]
        for value in values:
            faults += [f"{name}={value}: {fault}" for fault in _parameter_faults(rule, value)]
    return faults


def faults_of_response(resource: str, body: object) -> list[str]:
    """What Google's schema of the answer of `resource`.list does not allow in a body."""
    return list(_faults(method(resource)["response"], body, resource))


def _parameter_faults(rule: Mapping[str, Any], value: str) -> list[str]:
    if rule.get("type") == "integer":
        if not re.fullmatch(r"-?[0-9]+", value):
            return ["not an integer"]
        if not int(rule.get("minimum", value)) <= int(value) <= int(rule.get("maximum", value)):
            return [f"not within {rule.get('minimum')}..{rule.get('maximum')}"]
    if "enum" in rule and value not in rule["enum"]:
        return [f"not one of {rule['enum']}"]
    return [] if value else ["empty"]


def _faults(schema: Mapping[str, Any], value: object, where: str) -> list[str]:
    if "$ref" in schema:
        schema = document()["schemas"][schema["$ref"]]
    kind = schema["type"]
    if kind == "object":
        if not isinstance(value, dict):
            return [f"{where}: not an object"]
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        faults = []
        for name, inner in value.items():
            rule = properties.get(name, others)
            faults += (
                [f"{where}.{name}: unknown"] if rule is None else _faults(rule, inner, f"{where}.{name}")
            )
        return faults
    if kind == "array":
        if not isinstance(value, list):
            return [f"{where}: not an array"]
        return [f for i, item in enumerate(value) for f in _faults(schema["items"], item, f"{where}[{i}]")]
    return [f"{where}: {fault} (is {value!r})" for fault in _scalar_faults(schema, value)]


def _scalar_faults(schema: Mapping[str, Any], value: object) -> list[str]:
    kind, form = schema["type"], schema.get("format")
    if kind == "boolean":
        return [] if isinstance(value, bool) else ["not a boolean"]
    if kind == "integer":
        low, high = {"uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1)}[str(form)]
        whole = isinstance(value, int) and not isinstance(value, bool)
        return [] if whole and low <= value <= high else [f"not {form}"]  # type: ignore[operator]
    if kind != "string" or not isinstance(value, str):
        return [f"not a {kind}"]
    if form == "uint64" and not (re.fullmatch(r"[0-9]+", value) and int(value) < 2**64):
        return ["not uint64"]
    if form == "date-time":
        try:
            return [] if datetime.fromisoformat(value).tzinfo else ["without a time zone"]
        except ValueError:
            return ["not a date-time"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"not one of {schema['enum']}"]
    return []
