"""Rules that every SQL file of the release keeps."""

import re
from collections import Counter
from pathlib import Path

import pytest

from streamvibe.db.migrate_files import SqlFile, load_tree
from streamvibe.db.migrate_split import split_statements

TREE = load_tree()
CREATE = re.compile(r"^CREATE (?:OR REPLACE )?FUNCTION ([a-z_]+\.[a-z_]+)\(", re.MULTILINE)


@pytest.mark.parametrize("file", TREE.functions, ids=lambda file: file.name)
def test_a_function_file_holds_one_function_of_its_name(file: SqlFile) -> None:
    """One CREATE OR REPLACE FUNCTION, in the schema it names, called like the file."""
    created = CREATE.findall(file.text)
    assert len(created) == 1, file.name
    assert "CREATE OR REPLACE FUNCTION" in file.text
    assert created[0].split(".")[1] == Path(file.name).stem


def test_no_function_has_a_namesake() -> None:
    """Two functions of one name would make calls ambiguous as soon as a parameter gets a default."""
    names = Counter(name for file in TREE.functions for name in CREATE.findall(file.text))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "file", [file for file in TREE.migrations if not file.in_transaction] or [None], ids=str
)
def test_a_concurrent_index_is_dropped_before_it_is_made(file: SqlFile | None) -> None:
    """A killed run leaves an invalid index that IF NOT EXISTS would take for a finished one."""
    statements = split_statements(file.text) if file else []
    for number, statement in enumerate(statements):
        if made := re.search(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (\S+)", statement):
            dropped = f"DROP INDEX CONCURRENTLY IF EXISTS public.{made[1]}"
            assert any(dropped in before for before in statements[:number]), f"{file}: {dropped} is missing"
