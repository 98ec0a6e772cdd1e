"""The harness's side of ``agent.py``: start such a process, ask it, end it."""

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from streamvibe.bench.systems import AGENT, System
from streamvibe.errors import StreamVibeError

#: An answer that takes longer never comes.
LONGEST_SECONDS = 900.0


class BenchError(StreamVibeError):
    """A measured system did not do what it was told."""


class Agent:
    """One process of a measured system; in a with block, which ends it."""

    def __init__(self, system: System, url: str, options: Mapping[str, object]) -> None:
        self._system = system
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [str(system.python), str(AGENT), str(system.adapter), url, json.dumps(dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._answers: dict[int, dict[str, Any]] = {}
        self._buffer = b""
        self._asked = 0

    def ask(self, op: str, **arguments: object) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises BenchError."""
        return self.answer(self.begin(op, **arguments))

    def begin(self, op: str, **arguments: object) -> int:
        """Send a request; ``answer`` gets what comes of it."""
        self._asked += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"id": self._asked, "op": op, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._error(f"ended before it was told to {op}") from None
        return self._asked

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to a request. Raises BenchError."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while number not in self._answers:
            self._read(deadline)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise self._error(str(answer["error"]))
        return answer

    def close(self) -> None:
        """End the process: its standard input ends, then it is killed."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            try:
                self._process.stdin.close()
                self._process.wait(10)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                pass
        # Also its children: the session is its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        assert self._process.stdout is not None
        self._selector.close()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, deadline: float) -> None:
        if not self._selector.select(max(0.0, deadline - time.monotonic())):
            raise self._error(f"gave no answer within {LONGEST_SECONDS:g} seconds")
        assert self._process.stdout is not None
        data = os.read(self._process.stdout.fileno(), 1 << 20)
        if not data:
            raise self._error(f"ended with status {self._process.wait()}")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            self._answers[answer.pop("id")] = answer

    def _error(self, what: str) -> BenchError:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        said = self._errors.read().decode(errors="replace").strip()
        error = BenchError(
            f"A process of {self._system.name} {what}",
            received=said.splitlines()[-1] if said else None,
            fix=f"Read {self._system.adapter}, and run it again with --debug",
        )
        if said:
            error.add_note(said)
        return error


def _environment() -> dict[str, str]:
    # Settings of ours or of libpq must reach no measured system by accident.
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "STREAMVIBE_", "PYTHON", "VIRTUAL_ENV"))
    }
