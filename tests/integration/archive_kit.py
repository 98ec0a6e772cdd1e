"""What the tests of the archive share: old jobs, a folder for them, and what is where."""

import contextlib
import os
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psycopg import Connection
from tests.sql import kit
from tests.support.databases import Database

from streamvibe.archive.query import Archive
from streamvibe.archive.run import Archiver, Done, Report
from streamvibe.archive.store import MARKER, Store


def switch_on(conn: Connection[Any], folder: Path | str) -> str:
    """Make a folder, or the place of a URL, the archive; its URL."""
    url = folder if isinstance(folder, str) else f"file://{folder}"
    known = kit.call_one(conn, "get_archive")["archive_id"]
    kit.call(conn, "set_archive", p_url=url, p_archive_id=Store(url).claim(known))
    return url


def old_jobs(conn: Connection[Any], weeks: int = 2, rows: int = 10) -> str:
    """A leaf of finished jobs that is due, in the statistics."""
    kit.register(conn)
    leaf = kit.old_leaf(conn, weeks=weeks, rows=rows)
    kit.call(conn, "recount_stats")
    return leaf


def run(database: Database, report: Report = lambda step, what: None, *, wait: bool = False) -> Done:
    """Archive what is due."""
    with Archiver(database.dsn, report=report) as archiver:
        return archiver.run(wait=wait)


def ids_in_queue(conn: Connection[Any]) -> Counter[str]:
    """Of every job that is in the queue or waits to be archived, how often it is there."""
    text = "SELECT id::text AS id FROM public.job_queue UNION ALL SELECT id::text FROM streamvibe.leaving_job"
    return Counter(row["id"] for row in kit.query(conn, text))


def ids_in_archive(database: Database) -> Counter[str]:
    """Of every job in the archive, how often it is there."""
    with Archive(database.dsn) as archive:
        return Counter(row[0] for row in archive.ask("SELECT id FROM jobs"))


def objects(folder: Path) -> set[str]:
    """Everything that lies in the archive's folder but its marker, whatever wrote it."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {MARKER}


def known_objects(conn: Connection[Any]) -> set[str]:
    """What is part of the archive."""
    return {row["key"] for row in kit.query(conn, "SELECT key FROM get_archive_files()")}


def take_over(conn: Connection[Any]) -> None:
    """Let the lease of whoever writes to the archive be over."""
    conn.execute("UPDATE streamvibe.archiver SET expires_at = '-infinity'")


def drop_old(conn: Connection[Any]) -> int:
    """Drop every leaf that is old; how many."""
    names = kit.query(conn, "SELECT partition_name AS name FROM streamvibe.old_partitions()")
    for row in names:
        conn.execute("SELECT streamvibe.drop_partition(%s)", [row["name"]])
    return len(names)


class Disk:
    """A folder on a disk of its own, small or read-only; without root, as near to that as a user can come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = os.geteuid() == 0
        self._usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        if self.is_mounted:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)

    def limit(self, kibibytes: int) -> None:
        """So much fits on it; 0: as much as one likes."""
        if self.is_mounted:
            self._remount(f"size={kibibytes}k" if kibibytes else "size=1g")
        else:
            soft = kibibytes * 1024 if kibibytes else self._usual[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, self._usual[1]))

    def read_only(self, is_on: bool) -> None:
        """Nothing can be written to it."""
        if self.is_mounted:
            self._remount("ro" if is_on else "rw")
        else:
            self.folder.chmod(0o555 if is_on else 0o755)

    def close(self) -> None:
        """Take it away."""
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
        else:
            self.limit(0)
            self.read_only(False)

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A disk for the length of a block."""
    folder.mkdir(exist_ok=True)
    made = Disk(folder)
    try:
        yield made
    finally:
        made.close()
