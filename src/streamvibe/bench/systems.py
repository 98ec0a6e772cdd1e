"""The systems that can be measured: ours, and the peers whose adapter files stand in ``benchmarks/peers``."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamvibe.errors import ConfigurationError, InvalidArgument

AGENT = Path(__file__).with_name("agent.py")
PEERS_DIRECTORY = Path(__file__).parents[3] / "benchmarks" / "peers"
OURS = "streamvibe"

Report = Callable[[str], None]


@dataclass(frozen=True)
class System:
    """A system, ready to be run."""

    name: str
    adapter: Path
    python: Path
    needs_redis: bool = False
    version: str = ""

    @property
    def is_ours(self) -> bool:
        return self.name == OURS


def ours() -> System:
    """StreamVibe, run by the Python that runs this."""
    return System(
        OURS,
        Path(__file__).with_name("ours.py"),
        Path(sys.executable),
        version=importlib.metadata.version("streamvibe"),
    )


@dataclass(frozen=True)
class PeerFile:
    """What an adapter file says about itself: literals at its top, read without running it."""

    name: str
    path: Path
    requirements: tuple[str, ...]
    python: tuple[int, int]
    needs_redis: bool


def peer_names() -> list[str]:
    """The peers there are adapter files for; empty outside a checkout of the repository."""
    return sorted(path.stem for path in PEERS_DIRECTORY.glob("*.py") if not path.stem.startswith("_"))


def check_peers(names: Sequence[str]) -> list[str]:
    """The names, all of them known. Raises InvalidArgument, ConfigurationError outside a checkout."""
    known = peer_names()
    if not known:
        raise ConfigurationError(
            "The adapter files of the peers are not here",
            field="--peers",
            received=str(PEERS_DIRECTORY),
            fix="Run it from a checkout of the repository, installed with `make setup`",
        )
    for name in names:
        if name not in known:
            raise InvalidArgument(
                "there is no adapter for that system",
                field="--peers",
                received=name,
                fix="Use `all`, or some of " + ", ".join(known),
            )
    return list(names) or known


def read_peer(name: str) -> PeerFile:
    """What the peer's adapter file says."""
    path = PEERS_DIRECTORY / f"{name}.py"
    found: dict[str, object] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            key = node.targets[0].id
            if key in ("REQUIREMENTS", "PYTHON", "NEEDS_REDIS"):
                found[key] = ast.literal_eval(node.value)
    requirements, python = found["REQUIREMENTS"], found.get("PYTHON", (3, 11))
    assert isinstance(requirements, list) and isinstance(python, tuple)
    return PeerFile(name, path, tuple(requirements), (python[0], python[1]), bool(found.get("NEEDS_REDIS")))


def install(peer: PeerFile, directory: Path, report: Report) -> System:
    """The peer in an environment of its own, made when missing or made for other requirements."""
    home = directory / peer.name
    python, stamp = home / "bin" / "python", home / "requirements.txt"
    wanted = "\n".join(peer.requirements) + "\n"
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        report(f"Installing {peer.name} ({', '.join(peer.requirements)})")
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        _run([_find_python(peer), "-m", "venv", str(home)], peer)
        _run(
            [
                str(python),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--quiet",
                "install",
                *peer.requirements,
            ],
            peer,
        )
        stamp.write_text(wanted)
    return System(peer.name, peer.path, python, peer.needs_redis)


def _run(command: Sequence[str], peer: PeerFile) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        error = ConfigurationError(
            f"{peer.name} could not be installed",
            field="--peers",
            received=" ".join(command[1:5]),
            fix="Look at what pip says below, or leave this peer out",
        )
        error.add_note(done.stderr[-2000:])
        raise error


def _find_python(peer: PeerFile) -> str:
    if sys.version_info[:2] >= peer.python:
        return sys.executable
    major, least = peer.python
    for minor in range(least, least + 4):
        names = [shutil.which(f"python{major}.{minor}")]
        pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
        names += [str(path) for path in sorted(pyenv.glob(f"{major}.{minor}.*/bin/python3"))]
        for name in names:
            if name is not None and _works(name):
                return name
    raise ConfigurationError(
        f"{peer.name} needs Python {major}.{least} or newer, and none was found",
        field="--peers",
        received=peer.name,
        fix=f"Install python{major}.{least} so that it is on the PATH, or leave this peer out",
    )


def _works(python: str) -> bool:
    # A shim of a version manager may stand for a version that is not there.
    return (
        subprocess.run([python, "-c", "import venv, ensurepip"], check=False, capture_output=True).returncode
        == 0
    )
