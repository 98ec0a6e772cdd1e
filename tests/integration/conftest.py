"""Both clients behind one face, so that each test of a client runs with both; and an embedded server of one's own."""

import asyncio
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.cli import Ran, Run, streamvibe
from tests.support.databases import Database

from streamvibe import Client, SyncClient
from streamvibe.config import Settings
from streamvibe.db import embedded


class _InThreads:
    """A SyncClient whose methods run in threads and are awaited; iterators come as asynchronous ones."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        if name.startswith("iter_"):
            return functools.partial(self._iterate, method)
        return functools.partial(asyncio.to_thread, method)

    async def _iterate(self, method: Callable[..., Any], *args: Any, **options: Any) -> AsyncIterator[Any]:
        for item in await asyncio.to_thread(lambda: list(method(*args, **options))):
            yield item


@pytest.fixture(params=["async", "sync"])
async def client(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Client]:
    """A client of the test's database: the asynchronous one, then the other, with awaitable methods."""
    if request.param == "async":
        async with Client(database.dsn) as asynchronous:
            yield asynchronous
    else:
        with SyncClient(database.dsn) as synchronous:
            yield cast(Client, _InThreads(synchronous))


@pytest.fixture
def run(database18: Database) -> Run:
    """Runs a command against the test's database, which knows the job type note."""
    database18.connect().execute("SELECT register_job_type('note')")

    def run(*arguments: object, **options: str) -> Ran:
        return streamvibe(database18.dsn, *arguments, **options)

    return run


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction of a worker is full because this machine is slow."""
    monkeypatch.setattr("streamvibe.worker.transaction.FULL_SECONDS", float("inf"))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with an embedded server of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        parent = Path(tempfile.mkdtemp(prefix="streamvibe-bench-"))
        parent.chmod(0o755)
        patch.setenv("STREAMVIBE_HOME", str(parent / "home"))
        patch.delenv("STREAMVIBE_DATABASE_URL", raising=False)
        try:
            yield parent / "home"
        finally:
            embedded.stop(Settings())
            shutil.rmtree(parent)
