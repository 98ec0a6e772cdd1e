"""The promises made to users, as docs/reference/promises/*.toml lists them.

part = "Migrations"                    one file per part of the product
[[promise]]
text = "an edited released file is refused by name"
tests = ["tests/integration/test_migrate_refusals.py::test_an_edited_migration_is_refused_by_name"]
                                       each is seen failing with one of the promise's breaks
[[promise.break]]                      how the promise is broken, to see its tests fail
says = "checksums are not compared"
file = "src/streamvibe/sql/runner/checks.sql"
old = "..."                            occurs in the file; every occurrence is replaced
new = "..."
test = "..."                           which test has to fail; left out: the first of tests
"""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference" / "promises"
RESULTS = ROOT / "docs" / "reference" / "guarantees-mutations.json"


@dataclass(frozen=True)
class Break:
    """One way to break a promise: ``old`` becomes ``new`` in ``file``, and ``test`` has to fail."""

    says: str
    file: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class Promise:
    """One promise, the tests that prove it, and how it was broken."""

    text: str
    tests: tuple[str, ...]
    breaks: tuple[Break, ...]


@dataclass(frozen=True)
class Part:
    """The promises of one part of the product."""

    title: str
    promises: tuple[Promise, ...]


def load() -> list[Part]:
    """All promises, in the order of the files' names."""
    return [_part(path) for path in sorted(FOLDER.glob("*.toml"))]


def key(item: Break) -> str:
    """What a break is known by in the results; one whose text changed is another."""
    digest = hashlib.sha256(f"{item.old}\0{item.new}".encode()).hexdigest()
    return f"{item.file}: {item.says} [{digest[:12]}]"


def function_of(test: str) -> str:
    """A test without its parameters, as the results name it."""
    return test.partition("[")[0]


def results() -> dict[str, dict[str, str]]:
    """What was seen when each break was made, by its key: the tests that failed, and what each said."""
    seen: dict[str, dict[str, str]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return seen


def noticed(item: Break, seen: dict[str, dict[str, str]]) -> bool:
    """Whether the test that a break is meant for failed with it."""
    return function_of(item.test) in _failed(item, seen)


def unseen(promise: Promise, seen: dict[str, dict[str, str]]) -> list[str]:
    """The promise's tests that failed with none of its breaks."""
    failed = {test for item in promise.breaks for test in _failed(item, seen)}
    return [test for test in promise.tests if test not in failed]


def _failed(item: Break, seen: dict[str, dict[str, str]]) -> set[str]:
    """The tests that failed with it, but not because it left something that cannot be read at all."""
    return {test for test, said in seen.get(key(item), {}).items() if "SyntaxError" not in said}


def _part(path: Path) -> Part:
    document = tomllib.loads(path.read_text())
    promises = []
    for entry in document["promise"]:
        tests = tuple(entry["tests"])
        breaks = tuple(
            Break(
                item["says"],
                item["file"],
                item["old"].strip("\n"),
                item["new"].strip("\n"),
                item.get("test", tests[0]),
            )
            for item in entry.get("break", [])
        )
        promises.append(Promise(entry["text"], tests, breaks))
    return Part(document["part"], tuple(promises))
