"""Where the archive is: a folder of this machine, or a bucket of an S3-compatible store.

Credentials, region and endpoint come from the environment, by the names that obstore has (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL), or from where the machine has them; they are never stored.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import obstore
import pyarrow as pa
import pyarrow.fs as pafs
from obstore.exceptions import BaseError
from obstore.fsspec import FsspecStore
from obstore.store import LocalStore, S3Store

from streamvibe.errors import ArchiveFailed, InvalidArgument

#: At the place itself: whose archive it is. A folder without it is another one, or one that is not mounted.
MARKER = "streamvibe-archive.json"
_FIX = (
    "See that it exists, has room, and that this process may use it (for s3: AWS_* in the environment),"
    " then run `streamvibe archive run`"
)
# A store without TLS is used only where AWS_ENDPOINT_URL names one.
_CLIENT: Any = {"connect_timeout": "10s", "timeout": "120s", "allow_http": True}
_RETRY: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_S3: Any = {
    "client_options": _CLIENT,
    "retry_config": _RETRY,
    # fsspec would keep one from earlier; the environment may name another endpoint by now.
    "skip_instance_cache": True,
}


def _place_meant(url: str) -> str:
    places = "Use file:///folder (three slashes) or s3://bucket/prefix; credentials come from the environment"
    if url.startswith(("/", "~/", "./", "../")):
        # Without a home, or in a folder that is gone, there is nothing to offer.
        with suppress(OSError, RuntimeError, ValueError):
            folder = os.path.abspath(Path(url).expanduser())  # noqa: PTH100 - a link is left as it was named
            return f"For this folder: {Path(folder).as_uri()}. {places}"
    return places


class Store:
    """One place; keys are paths below it, with ``/``. Methods raise ArchiveFailed.

    Raises InvalidArgument naming ``URL`` where the URL cannot be one of an archive.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: LocalStore | S3Store
        parts = urlsplit(url)
        self.folder: Path | None = None
        if url.startswith("file:///") and not (parts.query or parts.fragment):
            self.folder = Path(unquote(parts.path))
            if not self.folder.is_dir():
                raise ArchiveFailed(
                    "The folder of the archive is not there",
                    field="archive",
                    received=str(self.folder),
                    fix="Make it, or mount it, on every machine that does maintenance",
                )
            with self._translated("opened"):
                self._store = LocalStore(self.folder)
            self.root, self.files = str(self.folder), pafs.LocalFileSystem()
        elif parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment or "@" in url):
            prefix = parts.path.strip("/")
            self.root = f"{parts.netloc}/{prefix}" if prefix else parts.netloc
            with self._translated("opened"):
                self._store = S3Store(
                    parts.netloc, prefix=prefix or None, client_options=_CLIENT, retry_config=_RETRY
                )
                store = FsspecStore("s3", **_S3)
                self.files = pafs.PyFileSystem(pafs.FSSpecHandler(store))
        else:
            raise InvalidArgument(
                "this is not a place for an archive",
                field="URL",
                # Of other places: it may hold a secret.
                received=f"{parts.scheme}:..." if parts.scheme not in ("", "file") else url[:200],
                fix=_place_meant(url),
            )

    def path(self, key: str) -> str:
        """The key as ``files`` has it."""
        return f"{self.root}/{key}"

    def put(self, key: str, file: IO[bytes]) -> None:
        """Write an object, from the file's beginning. When this returns it is on disk."""
        with self._translated("written"):
            file.seek(0)
            obstore.put(self._store, key, file)
            if self.folder is not None:
                # obstore leaves that to the operating system; the rows are about to be dropped.
                place = self.folder / key
                for path in (place, *(parent for parent in place.parents if parent >= self.folder)):
                    _sync(path)
                    if path == self.folder:
                        break

    def size(self, key: str) -> int:
        """Of an object, in bytes."""
        with self._translated("read", key):
            return int(obstore.head(self._store, key)["size"])

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is deleted already."""
        with self._translated("deleted from", key):
            with suppress(FileNotFoundError):
                obstore.delete(self._store, key)
            if self.folder is not None:
                place = self.folder / key
                # What a process that was killed while it wrote left behind: obstore renames it when it is whole.
                for part in place.parent.glob(f"{place.name}#*"):
                    part.unlink(missing_ok=True)

    def fetch(self, key: str, file: IO[bytes], keep: Callable[[], None]) -> None:
        """Copy an object into a file. ``keep`` is called for each part of it."""
        with self._translated("read", key):
            for part in obstore.get(self._store, key).stream():
                keep()
                try:
                    file.write(part)
                except OSError as error:
                    raise spool_full(error) from error
        try:
            file.seek(0)
        except OSError as error:
            raise spool_full(error) from error

    @contextmanager
    def opened(self, key: str) -> Iterator[pa.NativeFile]:
        """Read parts of an object."""
        with self._translated("read", key), self.files.open_input_file(self.path(key)) as file:
            yield file

    def archive_id(self) -> UUID | None:
        """Whose archive this is; None: nobody's yet."""
        with self._translated("read"):
            try:
                text = bytes(obstore.get(self._store, MARKER).bytes())
            except FileNotFoundError:
                return None
        try:
            return UUID(json.loads(text)["archive_id"])
        except (ValueError, TypeError, KeyError):
            raise ArchiveFailed(
                "What says whose archive this is cannot be read",
                field="archive",
                received=f"{self.url}/{MARKER}",
                fix="Name another place, or restore that object",
            ) from None

    def require(self, archive_id: UUID | None) -> None:
        """Nothing is written to a place that is not this archive's."""
        found = self.archive_id()
        if found is None or found != archive_id:
            raise ArchiveFailed(
                "This is not the archive of this queue"
                if found
                else "The archive is not there: nothing says that this place is one",
                field="archive",
                received=self.url,
                fix="Mount the right folder, or name the place again: `streamvibe archive set URL`",
            )

    def claim(self, archive_id: UUID | None) -> UUID:
        """Try the place (write, read and delete an object), and make it this queue's archive; its id.

        Raises InvalidArgument where another queue's archive is.
        """
        found = self.archive_id()
        if found is not None and found != archive_id:
            raise InvalidArgument(
                "another queue's archive is there",
                field="URL",
                received=self.url,
                fix="Name a place of its own for every database, such as another prefix",
            )
        if self.folder is not None:
            # obstore tries again where a file cannot be made, for ever where that does not help (as in /proc).
            with self._translated("written"), tempfile.NamedTemporaryFile(dir=self.folder):
                pass
        probe = f"probe-{uuid4().hex}"
        with tempfile.TemporaryFile() as file:
            file.write(probe.encode())
            self.put(probe, file)
        with self.opened(probe) as written:
            read = written.read()
        self.delete(probe)
        if read != probe.encode():
            raise ArchiveFailed(
                "What was written there reads back as something else",
                field="URL",
                received=self.url,
                fix=_FIX,
            )
        wanted = archive_id or uuid4()
        if found is None:
            with tempfile.TemporaryFile() as file:
                file.write(json.dumps({"archive_id": str(wanted)}).encode())
                self.put(MARKER, file)
        return wanted

    @contextmanager
    def _translated(self, doing: str, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, pa.ArrowException) as error:
            raise ArchiveFailed(
                f"The archive cannot be {doing}: {first_line(error)}",
                field="archive",
                received=f"{self.url}/{key}" if key else self.url,
                fix=_FIX,
            ) from error


def first_line(error: BaseException) -> str:
    """What went wrong, without the library's debug output."""
    return (" ".join(str(error).split("\n\n")[0].split()) or type(error).__name__)[:400]


@contextmanager
def spooled() -> Iterator[IO[bytes]]:
    """A temporary file without a name: it is gone with this process, however that ends.

    Raises ArchiveFailed where it cannot be made; see `spool_full` for when it cannot grow.
    """
    try:
        file = tempfile.TemporaryFile(prefix="streamvibe-archive-")  # noqa: SIM115
    except OSError as error:
        raise spool_full(error) from error
    try:
        with file:
            yield file
    except OSError as error:
        # Also when it is closed: what was still in memory is written then.
        raise spool_full(error) from error


def spool_full(error: OSError) -> ArchiveFailed:
    """The error for a temporary file that cannot be written."""
    return ArchiveFailed(
        f"The file that is to be archived cannot be prepared: {error.strerror or error}",
        field="TMPDIR",
        received=tempfile.gettempdir(),
        fix="Free some room there, or name another folder in TMPDIR",
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
