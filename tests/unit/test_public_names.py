"""What `streamvibe` promises to importers."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import streamvibe

SOURCE = Path(streamvibe.__file__)


def names_for_type_checkers() -> set[str]:
    """What __init__.py imports under TYPE_CHECKING."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return {
                alias.name
                for statement in node.body
                if isinstance(statement, ast.ImportFrom)
                for alias in statement.names
            }
    raise AssertionError("no TYPE_CHECKING block")


def test_there_are_at_most_twenty_sorted_names() -> None:
    """__all__ is sorted, without repetition, and no longer than 20."""
    assert streamvibe.__all__ == sorted(set(streamvibe.__all__))
    assert len(streamvibe.__all__) <= 20


@pytest.mark.parametrize("name", streamvibe.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    """Each public name can be imported, is the same object every time, and has a docstring."""
    value = getattr(streamvibe, name)
    assert value is getattr(streamvibe, name)
    assert value.__doc__


def test_type_checkers_dir_and_all_agree() -> None:
    """The three lists of public names are one list."""
    assert names_for_type_checkers() == set(streamvibe.__all__)
    assert set(streamvibe.__all__) <= set(dir(streamvibe))


def test_nothing_else_is_public() -> None:
    """Whatever else the package holds is a module, or private."""
    for name in streamvibe.__all__:
        getattr(streamvibe, name)
    others = {
        name
        for name, value in vars(streamvibe).items()
        if not name.startswith("_") and name not in streamvibe.__all__ and type(value).__name__ != "module"
    }
    assert others <= {"TYPE_CHECKING", "import_module"}


def test_unknown_names_are_refused() -> None:
    """A misspelt name is an AttributeError, and an ImportError in a from-import."""
    with pytest.raises(AttributeError, match="has no attribute 'Cleint'"):
        importlib.import_module("streamvibe").Cleint  # noqa: B018
    with pytest.raises(ImportError):
        exec("from streamvibe import Cleint")


def test_importing_the_package_imports_nothing_else() -> None:
    """`import streamvibe` loads none of its own modules and no dependency."""
    code = (
        "import sys; before = set(sys.modules); import streamvibe\n"
        "print(sorted(n for n in set(sys.modules) - before if n.split('.')[0] not in sys.stdlib_module_names))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "['streamvibe']\n"
