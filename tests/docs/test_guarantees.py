"""guarantees.md holds what it says: the tests exist, and each was seen failing."""

import ast
from pathlib import Path

import pytest
from tools.promises import ROOT, Promise, key, load, noticed, results, unseen

PROMISES = [promise for part in load() for promise in part.promises]


def names_of_tests(path: Path) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.text[:60])
def test_each_promise_has_tests_that_exist(promise: Promise) -> None:
    """A promise names at least one test, by file and name, and all of them are there."""
    assert promise.tests
    for test in promise.tests:
        file, _, name = test.partition("::")
        assert name in names_of_tests(ROOT / file), test


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.text[:60])
def test_each_promise_was_broken_and_each_of_its_tests_failed(promise: Promise) -> None:
    """What each break replaces is still in the file, the test it is meant for failed, and so did every listed one."""
    assert promise.breaks, "tools/break_promises.py has nothing to break"
    seen = results()
    for item in promise.breaks:
        assert item.old in (ROOT / item.file).read_text(), f"{item.file} does not hold:\n{item.old}"
        assert noticed(item, seen), f"run: tools/break_promises.py --new ({item.says})"
    assert unseen(promise, seen) == [], "no break made these fail"


def test_no_result_is_left_of_a_break_that_is_gone() -> None:
    """The results are those of the breaks there are."""
    assert results().keys() == {key(item) for promise in PROMISES for item in promise.breaks}
