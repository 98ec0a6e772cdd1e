"""Fixtures for every test: real PostgreSQL servers, 18 and 15, and a database per test."""

from collections.abc import Generator, Iterator

import pytest
from tests.support.databases import TEMPLATE, Database, make_template, new_database
from tests.support.servers import Server, pg15_bin, pg18_bin, running


def pytest_addoption(parser: pytest.Parser) -> None:
    """--rewrite-schema, for make schema; --without-pg-cron, for a machine that cannot have that extension."""
    parser.addoption("--rewrite-schema", action="store_true", help="rewrite tests/schema.sql, then compare")
    parser.addoption("--without-pg-cron", action="store_true", help="leave out the tests that need pg_cron")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was asked to be left out; pytest counts it as deselected."""
    if config.getoption("--without-pg-cron"):
        left_out = [item for item in items if item.get_closest_marker("pg_cron")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what tests print be sent between test processes: half a surrogate pair, which some log, cannot be."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def pg18() -> Iterator[Server]:
    """PostgreSQL 18, the one StreamVibe brings along, with a migrated template database."""
    with running("pg18", pg18_bin()) as server:
        make_template(server)
        yield server


@pytest.fixture(scope="session")
def pg15() -> Iterator[Server]:
    """PostgreSQL 15, the oldest supported version, with a migrated template database."""
    with running("pg15", pg15_bin()) as server:
        make_template(server)
        yield server


@pytest.fixture(scope="session", params=["pg18", "pg15"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each supported version in turn: a test that uses it runs once on each."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """A migrated database of the test's own, on each supported version in turn."""
    with new_database(server, TEMPLATE) as clone:
        yield clone


@pytest.fixture
def database18(pg18: Server) -> Iterator[Database]:
    """A migrated database of the test's own, on PostgreSQL 18 only: for what is slow, or the same on both."""
    with new_database(pg18, TEMPLATE) as clone:
        yield clone


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    """A database of the test's own that was never migrated, on each supported version in turn."""
    with new_database(server) as fresh:
        yield fresh


@pytest.fixture(scope="module", params=["pg18", "pg15"])
def bare_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the module's own, as initdb leaves it: for what is shared by all databases, like roles."""
    programs = pg18_bin() if request.param == "pg18" else pg15_bin()
    with running(f"bare-{request.param}", programs) as server:
        yield server
