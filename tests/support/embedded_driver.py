"""A process that uses the embedded database: does what each line of JSON asks and answers with one.

It is started by whoever runs the tests and then becomes the system user it is told to be: that user need not be
able to reach the interpreter and the packages, only PostgreSQL's programs (on the ``path`` given first).
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
    """Become who the first line says, then answer order after order until the input ends."""
    identity = json.loads(sys.stdin.readline())
    sys.path[:0] = identity["path"]
    for name, value in identity["patches"].items():
        module, attribute = name.split(".")
        setattr({"layout": embedded_layout, "programs": embedded_programs}[module], attribute, Path(value))
    if identity["uid"] != os.geteuid():
        os.setgroups([])
        os.setgid(identity["gid"])
        os.setuid(identity["uid"])
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, object]
        try:
            settings = Settings(**order["settings"])
            answer = {"value": act(order["action"], settings, order["arguments"])}
        except StreamVibeError as error:
            answer = {"error": type(error).__name__, "field": error.field, "text": str(error)}
        except psycopg.OperationalError as error:
            answer = {"error": type(error).__name__, "field": None, "text": str(error)}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
