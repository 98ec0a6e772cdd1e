"""A process of the embedded database's users: does what one JSON line asks, answers with one, ends on end of input.

It is started by whoever runs the tests and becomes another system user first where the order says so: that user
need not be able to reach the interpreter or the packages, only PostgreSQL's programs (``wheel``).
"""

import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg

from streamvibe.config import Settings
from streamvibe.db import embedded, embedded_layout, embedded_programs
from streamvibe.errors import StreamVibeError

HELD: list[psycopg.Connection] = []
"""Connections that stay open until this process ends."""


def act(action: str, settings: Settings, arguments: dict[str, Any]) -> object:
    """Carry out one order."""
    if action == "start":
        return asdict(embedded.ensure_running(settings))
    if action == "status":
        server = embedded.status(settings)
        return server and asdict(server)
    if action == "stop":
        return embedded.stop(settings)
    if action == "query":
        with psycopg.connect(arguments["url"], autocommit=True) as connection:
            cursor = connection.execute(arguments["sql"])
            return cursor.fetchall() if cursor.description else None
    if action == "fill":
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                HELD.append(psycopg.connect(arguments["url"]))
        return len(HELD)
    raise ValueError(action)


def main() -> None:
    """Read an order, become its user, wait for the gate if asked to, act, answer; then stay until told to go."""
    order = json.loads(sys.stdin.readline())
    sys.path[:0] = order["path"]
    for name, value in order["patches"].items():
        module, attribute = name.split(".")
        setattr({"layout": embedded_layout, "programs": embedded_programs}[module], attribute, Path(value))
    if order["uid"] != os.geteuid():
        os.setgroups([])
        os.setgid(order["gid"])
        os.setuid(order["uid"])
    if order["gate"]:
        print("waiting", flush=True)
        sys.stdin.readline()
    answer: dict[str, object]
    try:
        answer = {"value": act(order["action"], Settings(**order["settings"]), order["arguments"])}
    except StreamVibeError as error:
        answer = {"error": type(error).__name__, "field": error.field, "text": str(error)}
    except psycopg.OperationalError as error:
        answer = {"error": type(error).__name__, "field": None, "text": str(error)}
    print(json.dumps(answer, default=str), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
