"""The schema as a whole, for reviewers: its diff shows what a change does to a database."""

from pathlib import Path

import pytest
from tests.support.databases import Database
from tests.support.dump import dump_schema

SCHEMA = Path(__file__).parent.parent / "schema.sql"


def test_the_dump_is_what_the_migrations_make(database18: Database, pytestconfig: pytest.Config) -> None:
    """tests/schema.sql is the normalised dump of a migrated database; `make schema` rewrites it."""
    dump = dump_schema(database18)
    if pytestconfig.getoption("--rewrite-schema"):
        SCHEMA.write_text(dump)
    assert dump == SCHEMA.read_text(), "the schema changed: run make schema and look at the diff"
