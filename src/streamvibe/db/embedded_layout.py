"""Where the embedded database lives: directories, their owners, and the locks that processes share.

STREAMVIBE_HOME/postgres/      0700, the caller's
    start.lock                 held while somebody starts or stops the server
    server.lock                held by the server's processes themselves, until the last one has ended
    password                   0600, only with STREAMVIBE_EMBEDDED_PORTS: the password for TCP
    data/                      0700, the server's: the cluster
    run/                       0700, the server's: the socket
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamvibe.db.embedded_programs import Account
from streamvibe.errors import ConfigurationError

# sockaddr_un.sun_path less its final zero
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
_SHORT_DIRECTORY = Path("/tmp")  # noqa: S108 - our directory in it is private and its owner is checked


@dataclass(frozen=True)
class Layout:
    """The paths of one home."""

    home: Path

    @property
    def base(self) -> Path:
        """Everything of the embedded database."""
        return self.home / "postgres"

    @property
    def data(self) -> Path:
        """The cluster; complete whenever it exists."""
        return self.base / "data"

    @property
    def unfinished_data(self) -> Path:
        """A cluster in the making."""
        return self.base / "data.new"

    @property
    def password_file(self) -> Path:
        """The TCP password, as libpq reads it."""
        return self.base / "password"

    @property
    def socket_directory(self) -> Path:
        """Where the socket is: ``run``, or where that path is too long for a socket, a private short one.

        The short name is made from the home alone, so that every process and every restart finds the same.
        """
        run = self.base / "run"
        longest = run / ".s.PGSQL.65535.lock"
        # libpq takes a comma for the start of a second host
        if len(os.fsencode(longest)) <= SOCKET_PATH_BYTES and "," not in str(run):
            return run
        digest = hashlib.sha256(os.fsencode(self.base.resolve())).hexdigest()[:16]
        return _SHORT_DIRECTORY / f"streamvibe-{os.geteuid()}-{digest}"

    def socket(self, port: int) -> Path:
        """The socket of a server on this port."""
        return self.socket_directory / f".s.PGSQL.{port}"

    def prepare(self) -> None:
        """Make the home, private to the caller; raise ConfigurationError when that cannot be."""
        with home_errors(self.home):
            self._refuse_foreign_home()
            self.home.mkdir(parents=True, exist_ok=True)
            os.close(private_directory(self.base, _caller()))

    def _refuse_foreign_home(self) -> None:
        nearest = next(path for path in (self.home, *self.home.parents) if path.exists())
        owner = nearest.stat().st_uid
        if owner not in (0, os.geteuid()):
            raise _foreign(nearest, owner)

    @contextlib.contextmanager
    def open_lock(self, name: str) -> Iterator[int]:
        """Open a lock file for a while; nobody else can open it."""
        with home_errors(self.home):
            fd = os.open(self.base / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


def try_lock(fd: int) -> bool:
    """Take the lock on this open file unless somebody has it; it ends with the last process that has the file open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def private_directory(path: Path, account: Account) -> int:
    """Make or check a directory that only ``account`` (and root) can enter; return it open.

    Raises ConfigurationError when somebody else put something there first.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        # Opened first and looked at afterwards: what is checked is what is used, whatever is renamed meanwhile.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise ConfigurationError(
                "Something else than a directory is where the embedded database needs one",
                field="home",
                received=str(path),
                fix=f"Move {path} away",
            ) from error
        if error.errno == errno.EACCES and path.lstat().st_uid != os.geteuid():
            raise _foreign(path, path.lstat().st_uid) from error
        raise
    try:
        found = os.fstat(fd)
        if found.st_uid == os.geteuid() != account.uid:
            os.fchown(fd, account.uid, account.gid)
        elif found.st_uid != account.uid:
            raise _foreign(path, found.st_uid)
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    except BaseException:
        os.close(fd)
        raise
    return fd


def path_for_server(fd: int, path: Path) -> str:
    """Name an open directory so that a child that inherits ``fd`` can use it without entering its parents.

    That is how a server that runs as another user works inside a home that only root can enter (/root), and
    why no character of a home's path needs quoting in PostgreSQL's configuration or pg_ctl's shell command.
    """
    return f"/proc/self/fd/{fd}" if Path("/proc/self/fd").is_dir() else str(path)


def user_name(uid: int) -> str:
    """The name of a system user, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def home_errors(path: Path) -> Iterator[None]:
    """Raise what the operating system refuses as a ConfigurationError about STREAMVIBE_HOME."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(path)
        fixes = {
            errno.EROFS: "It is on a read-only file system: set STREAMVIBE_HOME to a directory that can be written",
            errno.EACCES: f"Let {user_name(os.geteuid())} write there, or set STREAMVIBE_HOME to another directory",
            errno.ENOSPC: "Free disk space, or set STREAMVIBE_HOME to a directory on another disk",
            errno.EDQUOT: "Free disk space, or set STREAMVIBE_HOME to a directory on another disk",
            errno.ENAMETOOLONG: "Set STREAMVIBE_HOME to a shorter path",
        }
        raise ConfigurationError(
            f"The embedded database cannot use its home: {error.strerror} ({where})",
            field="home",
            received=str(path),
            fix=fixes.get(error.errno or 0, "Set STREAMVIBE_HOME to a directory that you own and can write"),
        ) from error


def _caller() -> Account:
    return Account(user_name(os.geteuid()), os.geteuid(), os.getegid())


def _foreign(path: Path, uid: int) -> ConfigurationError:
    owner, caller = user_name(uid), user_name(os.geteuid())
    return ConfigurationError(
        f"The embedded database's directory belongs to somebody else: {owner}, not {caller}",
        field="home",
        received=str(path),
        fix=f"Run as {owner}, or set STREAMVIBE_HOME to a directory of {caller}'s own",
    )
