"""Worker processes that a test starts, kills and stops for good."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

SCRIPT = Path(__file__).with_name("worker_process.py")


class Start(NamedTuple):
    """A line of the journal: what happened to a job, under which token, in which process."""

    event: str
    job_id: UUID
    token: int
    pid: int
    attempt: int
    kind: str


def read_journal(path: Path) -> list[Start]:
    """The whole lines that are there."""
    text = path.read_text() if path.exists() else ""
    found = []
    for line in text.split("\n")[:-1]:
        event, job_id, token, pid, attempt, kind = line.split()
        found.append(Start(event, UUID(job_id), int(token), int(pid), int(attempt), kind))
    return found


class WorkerProcess:
    """worker_process.py, or another script, imported and waiting until ``go``."""

    def __init__(self, dsn: str, journal: Path, *, script: Path = SCRIPT, **options: object) -> None:
        self.worker_id = ""  # known once it has started
        arguments = {"dsn": dsn, "journal": journal, **options}
        self._process = subprocess.Popen(
            [sys.executable, str(script), *(f"--{name}={value}" for name, value in arguments.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def go(self) -> None:
        """Start claiming."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self.worker_id = self._process.stdout.readline().decode().strip()
        if not self.worker_id:
            raise AssertionError(f"the worker process did not start: {self.errors()}")
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    @property
    def is_dead(self) -> bool:
        """Whether it ended, by whatever means."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Its exit status, negative for a signal."""
        return self._process.wait(timeout=seconds)

    def errors(self) -> str:
        """What it wrote to standard error, once it ended."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def closing(*processes: WorkerProcess) -> Iterator[None]:
    """End the processes after the block."""
    try:
        yield
    finally:
        for process in processes:
            process.close()
