"""The embedded server's processes: who they are, whether they answer, and how they end."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from psycopg import pq

from streamvibe.db.embedded_conf import DATABASE, SUPERUSER
from streamvibe.db.embedded_layout import Layout

POLL_SECONDS = 0.02
_KILL_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class Postmaster:
    """What ``postmaster.pid`` says; the process may be long gone."""

    pid: int
    port: int
    tcp: bool
    ready: bool


def read_postmaster(layout: Layout) -> Postmaster | None:
    """Read ``postmaster.pid``; None when there is none, or the server has not written all of it yet."""
    try:
        lines = (layout.data / "postmaster.pid").read_text().splitlines()
        return Postmaster(int(lines[0]), int(lines[3]), bool(lines[5].strip()), lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def server_processes(data: Path) -> list[int]:
    """Return the ids of the PostgreSQL processes of a cluster: those whose working directory is its directory.

    A process id alone proves nothing: after a crash or a reboot it may belong to somebody else.
    """
    try:
        cluster = data.stat()
    except FileNotFoundError:
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            directory = (process / "cwd").stat()
            if (directory.st_dev, directory.st_ino) == (cluster.st_dev, cluster.st_ino):
                program = (process / "exe").readlink().name
                if program.removesuffix(" (deleted)") == "postgres":
                    found.append(int(process.name))
    return found


def socket_url(layout: Layout, port: int) -> str:
    """The URL of the server's socket, for psycopg and psql alike; it holds no secret."""
    host = quote(os.fsencode(layout.socket_directory), safe="/")
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={host}&port={port}"


def answers(layout: Layout, postmaster: Postmaster) -> bool:
    """Ask the server whether it takes connections; one whose connections are all in use does."""
    url = socket_url(layout, postmaster.port) + "&connect_timeout=5"
    return pq.PGconn.ping(url.encode()) == pq.Ping.OK


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those of the processes that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end_processes(data: Path) -> None:
    """End a cluster's processes the way PostgreSQL ends them after a crash; the write-ahead log keeps the data."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        signal_all(server_processes(data), number)
        deadline = time.monotonic() + _KILL_AFTER_SECONDS
        while server_processes(data) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
