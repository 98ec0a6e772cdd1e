"""A catalogue in a database of the test's own."""

from collections.abc import AsyncIterator

import pytest
from psycopg_pool import AsyncConnectionPool
from tests.support.databases import Database

from streamvibe.creators.catalog import Catalog


@pytest.fixture
async def catalog(database: Database) -> AsyncIterator[Catalog]:
    """A catalogue with four connections."""
    async with AsyncConnectionPool(database.dsn, min_size=0, max_size=4, open=False) as pool:
        yield Catalog(pool)
