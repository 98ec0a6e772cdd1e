"""Start the embedded server, making its cluster first where there is none. The caller holds both locks."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from streamvibe.config import PortRange, Settings
from streamvibe.db import embedded_conf as conf
from streamvibe.db.embedded_layout import (
    SOCKET_PATH_BYTES,
    Layout,
    home_errors,
    path_for_server,
    private_directory,
    user_name,
)
from streamvibe.db.embedded_process import read_postmaster, server_processes
from streamvibe.db.embedded_programs import Account, major_version, run, server_account, server_program
from streamvibe.errors import ConfigurationError, DatabaseUnreachable
from streamvibe.eventlog import event_logger

log = event_logger("streamvibe.db")

_KEPT_LOG_FILES = 10
_STARTUP_LOG = "startup.log"


def start(settings: Settings, layout: Layout, lock: int, deadline: float) -> None:
    """Start the server; return when it takes connections. Its processes keep the file ``lock`` open."""
    account = server_account(settings)
    _refuse_unusable_cluster(layout, account)
    with home_errors(layout.home), contextlib.ExitStack() as opened:
        run_fd = _opened_socket_directory(opened, layout, account)
        if not layout.data.exists():
            _make_cluster(layout, account, lock, deadline)
        data_fd = _opened(opened, layout.data, account)
        _remove_leftovers(layout, data_fd, run_fd)
        for port in _free_ports(settings.embedded_ports):
            conf.write(
                data_fd,
                "postgresql.conf",
                conf.server_settings(path_for_server(run_fd, layout.socket_directory), port),
                account,
            )
            conf.write(data_fd, "pg_hba.conf", conf.client_authentication(port), account)
            conf.write(data_fd, "pg_ident.conf", conf.owner_map(user_name(os.geteuid())), account)
            output = _launch(layout, account, (data_fd, run_fd, lock), deadline)
            if output is None:
                return
            if port is None or _is_free(port):
                raise _did_not_start(layout, output)
            # else somebody took the port in between: the next one


def _opened(stack: contextlib.ExitStack, path: Path, account: Account) -> int:
    fd = private_directory(path, account)
    stack.callback(os.close, fd)
    return fd


def _opened_socket_directory(stack: contextlib.ExitStack, layout: Layout, account: Account) -> int:
    path = layout.socket_directory
    try:
        return _opened(stack, path, account)
    except OSError as error:
        if path.parent == layout.base:
            raise
        raise ConfigurationError(
            f"The home's path is too long for a socket (at most {SOCKET_PATH_BYTES} bytes with the socket's name), "
            f"and the short directory in its stead cannot be made: {error.strerror} ({path})",
            field="home",
            received=str(layout.home),
            fix="Set STREAMVIBE_HOME to a shorter path",
        ) from error


def _refuse_unusable_cluster(layout: Layout, account: Account) -> None:
    with home_errors(layout.home):
        if not layout.data.exists():
            return
        owner = layout.data.stat().st_uid
        if owner not in (account.uid, os.geteuid()):
            raise ConfigurationError(
                f"The cluster belongs to {user_name(owner)}, and the server would run as {account.name}",
                field="embedded_user",
                received=account.name,
                fix=f"Set STREAMVIBE_EMBEDDED_USER to {user_name(owner)}, or `chown -R` {layout.data}",
            )
        version_file = layout.data / "PG_VERSION"
        version = version_file.read_text().strip() if version_file.is_file() else None
    if version is None:
        raise ConfigurationError(
            "What is in the place of the embedded database is not a PostgreSQL cluster",
            field="home",
            received=str(layout.data),
            fix=f"Move {layout.data} away, and a new cluster is made",
        )
    if version != major_version():
        raise ConfigurationError(
            f"The cluster was made by PostgreSQL {version}, and this release runs PostgreSQL {major_version()}",
            field="home",
            received=str(layout.data),
            fix=f"Dump it with the release that made it, move {layout.data} away, start, and restore the dump",
        )


def _make_cluster(layout: Layout, account: Account, lock: int, deadline: float) -> None:
    """Make the cluster beside its final place and move it there when it is complete."""
    work = layout.unfinished_data
    if work.exists():
        shutil.rmtree(work)
    with contextlib.ExitStack() as opened:
        fd = _opened(opened, work, account)
        directory = path_for_server(fd, work)
        initdb: list[str | Path] = [
            server_program("initdb", account),
            f"--pgdata={directory}",
            f"--username={conf.SUPERUSER}",
            "--encoding=UTF8",
            # Sorts by code point, knows every letter, and needs neither ICU nor a locale of the system.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            # Written anew before the first start; until then nobody may connect.
            "--auth-local=peer",
            "--auth-host=reject",
            "--no-instructions",
        ]
        single: list[str | Path] = [
            server_program("postgres", account),
            "--single",
            "-D",
            directory,
            "-c",
            "exit_on_error=true",
            "postgres",
        ]
        statement = f"CREATE DATABASE {conf.DATABASE}\n"
        for command, text in ((initdb, ""), (single, statement)):
            remaining = max(1.0, deadline - time.monotonic())
            try:
                done = run(account, command, fds=(fd, lock), timeout=remaining, text=text)
            except subprocess.TimeoutExpired:
                raise _did_not_start(layout, f"{Path(command[0]).name} took over {remaining:.0f} s") from None
            if done.returncode != 0:
                raise _did_not_start(layout, _last_lines(done.stdout))
        layout.password_file.unlink(missing_ok=True)
        work.rename(layout.data)


def _remove_leftovers(layout: Layout, data_fd: int, run_fd: int) -> None:
    """Remove what a killed server left, and old logs. Nobody holds server.lock, so none of it is in use.

    PostgreSQL would refuse to start if postmaster.pid's number by now belonged to another process of this user.
    """
    postmaster = read_postmaster(layout)
    if postmaster is not None and postmaster.pid in server_processes(layout.data):
        raise DatabaseUnreachable(
            "A server that StreamVibe did not start runs in the embedded database's directory",
            field="home",
            received=f"{layout.data}, process {postmaster.pid}",
            fix=f"Stop that process (`kill -INT {postmaster.pid}`), then try again",
        )
    for directory, names in ((data_fd, ("postmaster.pid", _STARTUP_LOG)), (run_fd, os.listdir(run_fd))):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
    for old in _logs(layout)[:-_KEPT_LOG_FILES]:
        old.unlink()


def _launch(layout: Layout, account: Account, fds: tuple[int, int, int], deadline: float) -> str | None:
    """Start the server and wait until it is ready; return None, or what it said instead."""
    directory = path_for_server(fds[0], layout.data)
    earlier = {path: path.stat().st_size for path in _logs(layout)}
    seconds = max(1, int(deadline - time.monotonic()))
    done = run(
        account,
        [
            server_program("pg_ctl", account),
            f"--pgdata={directory}",
            f"--log={directory}/{_STARTUP_LOG}",
            f"--timeout={seconds}",
            "--wait",
            "start",
        ],
        fds=fds,
        timeout=seconds + 30,
    )
    if done.returncode == 0:
        return None
    said = ""
    for path in (layout.data / _STARTUP_LOG, *_logs(layout)):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(earlier.get(path, 0))
            said += file.read().decode(errors="replace")
    return _last_lines(said or done.stdout)


def _free_ports(ports: PortRange | None) -> Iterator[int | None]:
    """The free ports of the range, one by one; None alone when no port is wanted. Raises when none is left."""
    if ports is None:
        yield None
        return
    yield from (port for port in range(ports.first, ports.last + 1) if _is_free(port))
    raise ConfigurationError(
        "Every port of the range for the embedded database is in use",
        field="embedded_ports",
        received=str(ports),
        fix="Set STREAMVIBE_EMBEDDED_PORTS to a range with a free port, or unset it to use the socket alone",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL does, so that connections of a stopped server in TIME_WAIT do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def ensure_password(layout: Layout, url: str) -> None:
    """Give the superuser a random password for TCP, once, and keep it where only the owner can read it."""
    if layout.password_file.exists():
        return
    password = secrets.token_urlsafe(32)
    with psycopg.connect(url, autocommit=True) as connection:
        # The verifier, not the password: statements can end up in logs and statistics.
        verifier = connection.pgconn.encrypt_password(
            password.encode(), conf.SUPERUSER.encode(), b"scram-sha-256"
        )
        connection.execute(
            psycopg.sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                psycopg.sql.Identifier(conf.SUPERUSER), psycopg.sql.Literal(verifier.decode())
            )
        )
    work = layout.password_file.with_suffix(".new")
    work.unlink(missing_ok=True)
    work.touch(mode=0o600, exist_ok=False)
    with work.open("w", encoding="utf-8") as file:
        file.write(f"127.0.0.1:*:*:{conf.SUPERUSER}:{password}\n")
    work.rename(layout.password_file)


def ensure_extensions(url: str) -> None:
    """What maintenance and reports use where it is there: how full an index is, and which statements are slow.

    Where it cannot be installed (there is another function of that name, say), the server is as good without.
    """
    try:
        with psycopg.connect(
            url, autocommit=True, options="-c default_transaction_read_only=off"
        ) as connection:
            for name in ("pgstattuple", "pg_stat_statements"):
                connection.execute(
                    psycopg.sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(psycopg.sql.Identifier(name))
                )
    except psycopg.Error as error:
        log.warning(
            "extension_not_installed",
            error=str(error),
            fix="Mend what it names, then: CREATE EXTENSION pgstattuple; CREATE EXTENSION pg_stat_statements",
        )


def _logs(layout: Layout) -> list[Path]:
    return sorted((layout.data / "log").glob("postgresql-*.log"))


def _last_lines(text: str) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-5:])


def _did_not_start(layout: Layout, words: str) -> DatabaseUnreachable:
    return DatabaseUnreachable(
        "The embedded database did not start",
        field="home",
        received=words or "no output",
        fix=f"Read {layout.data / 'log'}, mend what it names, then start again",
    )
