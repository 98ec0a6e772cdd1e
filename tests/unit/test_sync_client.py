"""SyncClient is Client without its awaits."""

import importlib.util
import inspect
from pathlib import Path

import pytest

from streamvibe import Client, SyncClient

ROOT = Path(__file__).parents[2]


def test_the_file_is_what_the_tool_makes_of_the_other() -> None:
    """synchronous.py was made from asynchronous.py as it stands; run tools/make_sync_client.py if not."""
    spec = importlib.util.spec_from_file_location("make_sync_client", ROOT / "tools" / "make_sync_client.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.synchronous(tool.SOURCE.read_text()) == tool.TARGET.read_text()


METHODS = [name for name in vars(Client) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_have_the_same_methods(name: str) -> None:
    """Same names, same parameters and defaults, both documented; only the asynchronous one is awaited."""
    asynchronous, synchronous = getattr(Client, name), getattr(SyncClient, name)
    assert inspect.iscoroutinefunction(asynchronous) or inspect.isasyncgenfunction(asynchronous)
    assert not inspect.iscoroutinefunction(synchronous) and not inspect.isasyncgenfunction(synchronous)
    assert [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(asynchronous).parameters.values()
    ] == [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(synchronous).parameters.values()
    ]
    assert asynchronous.__doc__ and synchronous.__doc__
    assert "await" not in synchronous.__doc__


def test_sync_client_has_no_more() -> None:
    """SyncClient has no public method of its own."""
    assert [name for name in vars(SyncClient) if not name.startswith("_")] == METHODS
