"""PostgreSQL servers for the tests: a private home each, started once per test run, never left behind."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest

from streamvibe.db.embedded import binary

GUARD = Path(__file__).with_name("guard.py")
START_SECONDS = 60
MEMORY_BYTES = 4 << 30
DEFAULT_PG15_BIN = "/usr/lib/postgresql/15/bin"

# Data that only has to live as long as the test run needs no fsync; everything else is as users have it.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "450",
    "max_prepared_transactions": "5",
    "shared_buffers": "128MB",
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %d ",
}


def pg18_bin() -> Path:
    """The programs of the PostgreSQL 18 that StreamVibe brings along."""
    return binary("postgres").parent


def pg15_bin() -> Path:
    """The programs of PostgreSQL 15; fails the test that needs them, by name, where they are missing."""
    folder = Path(os.environ.get("STREAMVIBE_TEST_PG15_BIN", DEFAULT_PG15_BIN))
    if not (folder / "postgres").exists():
        pytest.fail(
            f"PostgreSQL 15 is not in {folder}. Install it (Debian 12: apt-get install postgresql-15) "
            "or name its bin folder in STREAMVIBE_TEST_PG15_BIN.",
            pytrace=False,
        )
    return folder


class Server:
    """One running PostgreSQL, reached by a socket in a folder that only its owner (and root) can enter."""

    def __init__(self, name: str, programs: Path) -> None:
        self.name = name
        self._account = _unprivileged_account() if os.geteuid() == 0 else None
        self.home = self._folder(tempfile.gettempdir())
        memory = _memory_folder()
        self._data = (self._folder(memory) if memory else self.home) / "data"
        self.bin = self._reachable(programs)
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str) -> str:
        """A connection URL for the superuser `postgres`."""
        return f"postgresql://postgres@/{database}?host={self.home}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A superuser's connection in autocommit mode; the caller closes it."""
        return psycopg.connect(self.dsn(database), autocommit=True)

    def start(self, *, replica_of: "Server | None" = None, **more_settings: str) -> Self:
        """Make the cluster, its own or a streaming replica, and start the server; returns when it answers."""
        data, log = self._data, self.home / "log"
        if replica_of is None:
            cluster = f"initdb -D {data} -U postgres -A trust -E UTF8 --locale=C --no-sync"
        else:
            cluster = f"pg_basebackup -D {data} -h {replica_of.home} -U postgres -R -c fast --no-sync"
        self._run(*cluster.split())
        settings = {**SETTINGS, "unix_socket_directories": str(self.home), **more_settings}
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
        log.touch()
        self._own(log)
        self._process = self._launch()
        self._wait_until_ready(log)
        return self

    def stop(self) -> None:
        """Stop the server and remove its home."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=START_SECONDS)
        for folder in self._folders():
            if folder.exists():
                shutil.rmtree(folder)

    def crash(self) -> None:
        """Kill the server's main process with SIGKILL; its sessions notice and follow."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        self._wait_for_guard()

    def restart(self) -> None:
        """Start again on the data that is there, once the sessions of the old server are gone."""
        deadline = time.monotonic() + START_SECONDS
        self._process = self._launch()
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if self._process.poll() is not None:
                self._wait_for_guard()
                self._process = self._launch()
            assert time.monotonic() < deadline, f"PostgreSQL ({self.name}) did not start again"
            time.sleep(0.05)

    def _wait_for_guard(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.wait(timeout=START_SECONDS)
        self._process.stdin.close()

    def _launch(self) -> subprocess.Popen[bytes]:
        account = f"{self._account.pw_uid}:{self._account.pw_gid}" if self._account else ""
        return subprocess.Popen(
            [
                sys.executable,
                "-S",
                str(GUARD),
                str(self.home / "log"),
                account,
                ":".join(str(folder) for folder in self._folders()),
                str(self.bin / "postgres"),
                "-D",
                str(self._data),
            ],
            stdin=subprocess.PIPE,
            cwd=self.home,
            start_new_session=True,
        )

    def _folders(self) -> set[Path]:
        return {self.home, self._data.parent}

    def _wait_until_ready(self, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        pause = 0.01
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(
                    f"PostgreSQL ({self.name}) did not start:\n{log.read_text()[-2000:]}", pytrace=False
                )
            time.sleep(pause)

    def _run(self, program: str, *arguments: str) -> None:
        result = self._as_account([str(self.bin / program), *arguments])
        if result.returncode != 0:
            pytest.fail(f"{program} ({self.name}) failed:\n{result.stdout}{result.stderr}", pytrace=False)

    def _as_account(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        account = self._account
        return subprocess.run(
            command,
            cwd=self.home,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def _folder(self, parent: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"streamvibe-{self.name}-", dir=parent))
        self._own(folder)
        return folder

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _reachable(self, programs: Path) -> Path:
        """The programs, copied into our home where the account that runs them could not get at them."""
        if self._as_account(["/bin/sh", "-c", 'test -x "$0"', str(programs / "postgres")]).returncode == 0:
            return programs
        package = programs.parents[1]
        shutil.copytree(package, self.home / package.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self.home / libraries.name)
        return self.home / programs.relative_to(package.parent)


def _memory_folder() -> str | None:
    """A file system in memory, if it has room: cloning a database takes 15 ms there instead of 400 ms."""
    shared = Path("/dev/shm")
    if not (shared.is_dir() and os.access(shared, os.W_OK)):
        return None
    room = os.statvfs(shared)
    return str(shared) if room.f_bavail * room.f_frsize >= MEMORY_BYTES else None


def _unprivileged_account() -> pwd.struct_passwd:
    """Whom PostgreSQL runs as when the tests run as root, which it refuses to do."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("the tests run as root, and neither postgres nor nobody exists to run PostgreSQL as")


@contextlib.contextmanager
def running(name: str, programs: Path) -> Iterator[Server]:
    """A server for the length of a with block."""
    server = Server(name, programs)
    try:
        yield server.start()
    finally:
        server.stop()
