"""A pytest plugin for break_promises.py: writes down, as it happens, which tests began and which failed.

Lines of JSON, [test, what, message], go into the file that RECORD_FAILURES names. A fixture that fails is an "error",
not a test that failed: the database may not even be there. A test that failed is not run with other parameters.
"""

import json
import os
import sys
from pathlib import Path

import pytest
from tools.promises import function_of

_failed: set[str] = set()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Pass over what failed already."""
    if function_of(item.nodeid) in _failed:
        pytest.skip("failed already")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """The test itself begins."""
    _write(item.nodeid, "began", "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The test, or a fixture of it, has ended."""
    if report.when == "call" and report.failed:
        _failed.add(function_of(report.nodeid))
    if report.when == "call" or report.failed:
        what = report.outcome if report.when == "call" else "error"
        _write(report.nodeid, what, _message(report) if report.failed else "")


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext.strip().rpartition("\n")[2]
    # Where the copy and the interpreter are says nothing.
    for folder in (Path.cwd(), Path(sys.executable).parent):
        text = text.replace(f"{folder}{os.sep}", "")
    return str(text).partition("\n")[0][:160]


def _write(*line: str) -> None:
    with Path(os.environ["RECORD_FAILURES"]).open("a") as record:
        record.write(json.dumps(line) + "\n")
