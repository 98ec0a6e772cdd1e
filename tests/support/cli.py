"""Runs `streamvibe` commands, off a terminal."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock
from uuid import UUID

from streamvibe.cli.main import run

USER = UUID("018f0000-0000-7000-8000-000000000001")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON document."""
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        """Standard error, which is one problem object; standard output is empty."""
        assert self.out == ""
        return json.loads(self.err)

    @property
    def lines(self) -> list[list[str]]:
        """The cells of each line of standard output."""
        return [line.split("\t") for line in self.out.splitlines()]


#: Runs a command against the test's database.
Run = Callable[..., Ran]


def command(*arguments: object) -> list[str]:
    """The command line that runs `streamvibe` with these arguments in a process of its own."""
    return [sys.executable, "-m", "streamvibe.cli.main", *map(str, arguments)]


def environment(dsn: str | None, **more: str) -> dict[str, str]:
    """Our environment with this database and no other settings of ours."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMVIBE_")}
    return {**env, **({"STREAMVIBE_DATABASE_URL": dsn} if dsn else {}), **more}


def streamvibe(dsn: str | None, *arguments: object, stdin: str = "", **env: str) -> Ran:
    """Run one command against a database, in this process. No traceback is ever shown."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(dsn, **env), clear=True),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = run([str(argument) for argument in arguments])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Ran(status, out.getvalue(), err.getvalue())
