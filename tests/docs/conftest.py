"""Databases for the documented commands."""

from collections.abc import Iterator

import pytest
from tests.support.databases import Database, new_database
from tests.support.servers import Server


@pytest.fixture
def pg18_empty(pg18: Server) -> Iterator[Database]:
    """A database that was never migrated, on PostgreSQL 18."""
    with new_database(pg18) as fresh:
        yield fresh
