"""A Redis of the harness's own for the peers that need one: on a loopback port, its data in a temporary folder."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from streamvibe.errors import ConfigurationError, DatabaseUnreachable

START_SECONDS = 20.0


def check_redis() -> None:
    """Raises ConfigurationError where there is no Redis."""
    _program()


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Its URL; it ends with the block. Its log is flushed every second (appendfsync everysec)."""
    program = _program()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="streamvibe-bench-redis-") as folder:
        process = subprocess.Popen(
            [
                program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", "",
                "--appendonly", "yes", "--appendfsync", "everysec",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_until_ready(port, process)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def _program() -> str:
    program = shutil.which("redis-server")
    if program is None:
        raise ConfigurationError(
            "Celery and Dramatiq need Redis, and redis-server is not here",
            field="--peers",
            fix="Install it (Debian: apt-get install redis-server), or name the other peers",
        )
    return program


def _wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            if probe.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.05)
    raise DatabaseUnreachable(
        "Redis did not start", received=f"127.0.0.1:{port}", fix="Start redis-server by hand"
    )
