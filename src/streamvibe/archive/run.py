"""Archiving: what is to leave the queue is written, read back, and only then let go.

    plan     the database says of each day how many rows there are, and their checksum
    begin    the file is written down, under a key that was never used before; committed
    write    the object is written
    verify   it is read back from the store: rows and checksum are the planned ones
    end      that is written down
    finish   one transaction: the files are part of the archive, the leaf may be dropped or the deleted jobs are gone

Killed anywhere, the next run finds what was begun: files that are whole are kept, others are deleted and written again.
One process writes at a time (`Control.lead`); one that lost its turn can neither begin nor finish anything.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg

from streamvibe.archive import files
from streamvibe.archive.control import LEASE, Control
from streamvibe.archive.erased import ErasedRows
from streamvibe.archive.files import Contents
from streamvibe.archive.store import Store, spooled
from streamvibe.errors import ArchiveFailed, NotLeader

#: Told what happens: the step's name, and what it is about.
Report = Callable[[str, str], None]
#: How many jobs that were deleted one by one are archived together.
BATCH_JOBS = 100_000
#: How often a source is begun again because a user is erased from it just now.
TRIES = 3


@dataclass(slots=True)
class Done:
    """What a run did."""

    rows: int = 0
    """Jobs and log lines that are in the archive since."""
    files: int = 0
    erased: int = 0
    """Users who are erased from the archive since."""
    sources: list[str] = field(default_factory=list)
    """Partitions, and batches of deleted jobs."""
    url: str | None = None
    """Where it is written; None: no archive is set."""
    busy: int = 0
    """Partitions that somebody held; the next run tries again."""


class _Unfinished(NamedTuple):
    file_id: int
    source: str
    day: date
    url: str
    key: str
    row_count: int | None
    checksum: int | None
    to_delete: bool


class _Changed(Exception):  # noqa: N818 - it says what happened
    """A user was erased from what is being archived."""


class Archiver:
    """Archives what is due, and erases from the archive who is to be erased. For one thread.

    ``report`` is told each step. ``stopping``: when set, the run ends soon, with `control.Stopped`.
    ``lease``: for how long it may be silent before another process takes over.
    """

    def __init__(
        self,
        dsn: str,
        *,
        report: Report = lambda step, what: None,
        stopping: threading.Event | None = None,
        lease: timedelta = LEASE,
    ) -> None:
        self._control = Control(dsn, lease=lease, stopping=stopping)
        self._report = report
        self._lease = lease
        self._stores: dict[str, Store] = {}
        #: Which of them answered in this run.
        self._places: dict[str, bool] = {}
        self._archive_id: UUID | None = None
        self._done = Done()
        #: The first thing that could not be done.
        self._failure: ArchiveFailed | None = None

    def close(self) -> None:
        """Let another process write."""
        self._control.close()

    def __enter__(self) -> "Archiver":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, *, wait: bool) -> Done:
        """Do all that is due now.

        ``wait`` until another process that writes to the archive is done; else raise NotLeader. What one partition
        meets keeps no other from being archived; the first such error is raised in the end.
        """
        self._lead(wait)
        self._done.url = url = self._control.value("SELECT url FROM public.get_archive()")
        whole = self._sweep()
        if url is not None and self._is_there(url):
            for kind, source in self._due():
                try:
                    self._archive(self._store(url), kind, source, whole.pop(source, []))
                except ArchiveFailed as error:
                    self._failed(source, error)
                except psycopg.errors.LockNotAvailable:
                    self._done.busy += 1
                    self._report("busy", f"{source}: somebody holds it; the next run tries again")
        # Of sources that are not due any more: dropped, or discarded, while the archive was off.
        self._delete_all(whole)
        self._erase_all()
        if self._failure is not None:
            raise self._failure
        return self._done

    def erase(self, *, wait: bool) -> Done:
        """Erase from the archive who is to be erased, and no more."""
        self._lead(wait)
        self._erase_all()
        if self._failure is not None:
            raise self._failure
        return self._done

    def _failed(self, what: str, error: ArchiveFailed) -> None:
        self._report("failed", f"{what}: {error.message}")
        self._failure = self._failure or error

    def _lead(self, wait: bool) -> None:
        self._places.clear()
        told = False
        while not self._control.lead():
            holder = self._control.value("SELECT archiver FROM public.get_archive()")
            if not wait:
                raise NotLeader(
                    "Another process writes to the archive now",
                    received=holder,
                    fix="Wait until it is done: `streamvibe archive status`",
                )
            if not told:
                self._report("waiting", f"another process writes to the archive: {holder}")
                told = True
            self._control.wait(min(self._lease.total_seconds() / 10, 2.0))
        self._archive_id = self._control.value("SELECT archive_id FROM public.get_archive()")

    def _store(self, url: str) -> Store:
        if url not in self._stores:
            self._stores[url] = Store(url)
        return self._stores[url]

    # What a run that ended early left behind.

    def _sweep(self) -> dict[str, list[_Unfinished]]:
        """Delete objects that are not part of the archive; those of unfinished sources that are whole, by source."""
        whole: dict[str, list[_Unfinished]] = {}
        for row in self._control.call("SELECT * FROM streamvibe.unfinished_archive_files()"):
            unfinished = _Unfinished(*row)
            if unfinished.to_delete:
                # It may be in a place that the archive has left, and that is gone.
                self._delete_all({unfinished.source: [unfinished]})
            else:
                whole.setdefault(unfinished.source, []).append(unfinished)
        return whole

    def _delete(self, url: str, key: str, file_id: int) -> None:
        self._control.keep()
        self._control.call("SELECT streamvibe.reject_archive_file(%s, %s)", self._control.fence, file_id)
        store = self._store(url)
        # In a folder that is not mounted now, everything looks deleted.
        store.require(self._archive_id)
        store.delete(key)
        self._control.call("SELECT streamvibe.forget_archive_file(%s, %s)", self._control.fence, file_id)
        self._report("deleted", key)

    def _delete_all(self, unfinished: dict[str, list[_Unfinished]]) -> None:
        """Delete them; those that cannot be deleted are left to be deleted by the next run."""
        for row in (row for rows in unfinished.values() for row in rows):
            try:
                self._delete(row.url, row.key, row.file_id)
            except ArchiveFailed as error:
                self._failed(row.key, error)

    # Archiving.

    def _due(self) -> Iterator[tuple[str, str]]:
        """Sources that are ready: old leaves, sealed, then batches of deleted jobs."""
        call = self._control.call
        for parent, name in call(
            "SELECT parent_name, partition_name FROM streamvibe.old_partitions() WHERE archived_at IS NULL"
        ):
            self._control.keep()
            try:
                is_sealed = self._control.value("SELECT streamvibe.seal_partition(%s)", name)
            except psycopg.errors.LockNotAvailable:
                self._done.busy += 1
                self._report(
                    "busy", f"{name}: a transaction that wrote to it has not ended; the next run tries again"
                )
                continue
            if not is_sealed:
                continue
            # Its last job may have ended since the list was read: only now does nothing change any more.
            if call("SELECT 1 FROM streamvibe.old_partitions() WHERE partition_name = %s", name):
                yield ("jobs" if parent == "job_queue" else "logs"), name
        while True:
            self._control.keep()
            batch = self._control.value(
                "SELECT streamvibe.plan_leaving(%s, %s)", self._control.fence, BATCH_JOBS
            )
            if batch is None:
                return
            source = f"leaving-{batch}"
            yield "jobs", source
            if source not in self._done.sources:
                return  # it failed, and would again

    def _archive(self, store: Store, kind: str, source: str, whole: list[_Unfinished]) -> None:
        for _ in range(TRIES):
            try:
                rows, count = self._try_to_archive(store, kind, source, whole)
            except _Changed:
                self._report("changed", source)
                whole = self._sweep().get(source, [])
                continue
            self._done.rows += rows
            self._done.files += count
            self._done.sources.append(source)
            return
        raise ArchiveFailed(
            "What is to be archived keeps changing: users are being erased",
            field="archive",
            received=source,
            fix="Run `streamvibe archive run` again when that is done",
        )

    def _try_to_archive(
        self, store: Store, kind: str, source: str, whole: list[_Unfinished]
    ) -> tuple[int, int]:
        """How many rows and files. Raises _Changed."""
        control = self._control
        if not source.startswith("leaving-"):
            control.keep()
            self._long("SELECT streamvibe.count_partition(%s)", source)
        self._report("planning", source)
        plan = self._plan(source)
        kept = {
            row.day: row
            for row in whole
            if row.url == store.url and plan.get(row.day) == Contents(row.row_count or 0, row.checksum or 0)
        }
        for row in whole:
            if kept.get(row.day) is not row:
                self._delete(row.url, row.key, row.file_id)
        for day, planned in plan.items():
            if day not in kept:
                self._write(store, kind, source, day, planned)
        control.keep()
        if not control.value("SELECT streamvibe.finish_archive(%s, %s)", control.fence, source):
            raise _Changed
        rows = sum(planned.rows for planned in plan.values())
        self._report("archived", f"{source}: {rows} rows in {len(plan)} files")
        return rows, len(plan)

    def _long(self, sql: Any, *params: object) -> list[tuple[Any, ...]]:
        """A statement that takes minutes: the lease is renewed beside it."""
        with self._control.kept_beside():
            return self._control.call(sql, *params)

    def _plan(self, source: str) -> dict[date, Contents]:
        rows = self._long("SELECT day, row_count, checksum FROM streamvibe.archive_days(%s)", source)
        return {day: Contents(count, int(total)) for day, count, total in rows}

    def _write(self, store: Store, kind: str, source: str, day: date, planned: Contents) -> None:
        control = self._control
        control.keep()
        key = f"{kind}/day={day}/{source}-{uuid4().hex[:12]}.parquet"
        file_id = control.value(
            "SELECT streamvibe.begin_archive_file(%s, %s, %s, %s, %s, %s)",
            *(control.fence, kind, source, day, store.url, key),
        )
        self._report("begun", key)
        with spooled() as file:
            with control.rows(source, day) as rows:
                files.write(kind, files.batches_of(kind, rows), file, control.keep)
            written = files.digest(file)
            self._put(store, key, file)
        found = files.contents(store, key, kind, written, control.keep)
        if found != planned:
            if self._plan(source).get(day) != planned:
                raise _Changed
            self._delete(store.url, key, file_id)
            raise _not_what_was_written(store, key, planned, found)
        self._end(store, key, file_id, found)

    def _put(self, store: Store, key: str, file: Any) -> None:
        self._control.keep()
        with self._control.kept_beside():
            store.put(key, file)
        self._report("written", key)

    def _end(self, store: Store, key: str, file_id: int, found: Contents) -> None:
        self._control.keep()
        self._report("verified", key)
        self._control.call(
            "SELECT streamvibe.end_archive_file(%s, %s, %s, %s, %s)",
            *(self._control.fence, file_id, found.rows, store.size(key), found.checksum),
        )
        self._report("ended", key)

    # Erasing.

    def _erase_all(self) -> None:
        users = self._control.call("SELECT user_id, before_id FROM streamvibe.erasures()")
        unfinished = self._sweep()
        if users:
            # Files that are whole but not finished may have their rows; they are written again.
            self._delete_all(unfinished)
        for user_id, before_id in users:
            self._erase(ErasedRows(str(user_id), str(before_id)))

    def _erase(self, erased: ErasedRows) -> None:
        """Write every file that has rows of the user anew without them.

        One that cannot be read keeps neither this user's rows in the others nor other users; the next run tries again.
        """
        is_whole = True
        for file_id, kind, source, day, url, key, count, total in self._control.call(
            "SELECT file_id, kind, source, day, url, key, row_count, checksum FROM public.get_archive_files()"
        ):
            self._control.keep()
            if not self._is_there(url):
                is_whole = False
                continue
            try:
                store = self._store(url)
                if erased.are_in(store, key, kind):
                    self._rewrite(store, kind, source, day, key, file_id, Contents(count, int(total)), erased)
            except ArchiveFailed as error:
                self._failed(key, error)
                is_whole = False
        # What could not be deleted, now or for a user before this one, may have their rows.
        if not is_whole or self._control.call(
            "SELECT 1 FROM streamvibe.unfinished_archive_files() f WHERE f.to_delete"
        ):
            return
        self._control.call(
            "SELECT streamvibe.finish_erasure(%s, %s, %s)",
            self._control.fence,
            erased.user_id,
            erased.before_id,
        )
        self._done.erased += 1
        self._report("erased", f"user {erased.user_id}")

    def _is_there(self, url: str) -> bool:
        """Whether the place answers and is this archive's, asked once in a run: if not, no file there is tried."""
        if url not in self._places:
            try:
                self._store(url).require(self._archive_id)
                self._places[url] = True
            except ArchiveFailed as error:
                self._failed(url, error)
                self._places[url] = False
        return self._places[url]

    def _rewrite(
        self,
        store: Store,
        kind: str,
        source: str,
        day: date,
        key: str,
        file_id: int,
        stored: Contents,
        erased: ErasedRows,
    ) -> None:
        control = self._control
        new_key = f"{kind}/day={day}/{source}-{uuid4().hex[:12]}.parquet"
        new_id = control.value(
            "SELECT streamvibe.begin_archive_file(%s, %s, %s, %s, %s, %s, %s)",
            *(control.fence, kind, source, day, store.url, new_key, file_id),
        )
        self._report("begun", new_key)
        with spooled() as file, spooled() as old:
            split = erased.split(files.fetched(store, key, old, kind, control.keep), kind)
            files.write(kind, split.kept(), file, control.keep)
            if split.all != stored:
                raise files.damaged(
                    store, key, f"{split.all.rows} rows, or others than the {stored.rows} that were written"
                )
            rest = stored - split.removed
            written = files.digest(file)
            if rest.rows:
                self._put(store, new_key, file)
        by: int | None = None
        if rest.rows:
            found = files.contents(store, new_key, kind, written, control.keep)
            if found != rest:
                self._delete(store.url, new_key, new_id)
                raise _not_what_was_written(store, new_key, rest, found)
            self._end(store, new_key, new_id, found)
            by = new_id
        control.call("SELECT streamvibe.replace_archive_file(%s, %s, %s)", control.fence, file_id, by)
        self._report("replaced", f"{key}: {split.removed.rows} rows of the user are gone")
        self._delete(store.url, key, file_id)
        if by is None:
            self._delete(store.url, new_key, new_id)


def _not_what_was_written(store: Store, key: str, planned: Contents, found: Contents) -> ArchiveFailed:
    how = (
        f"{found.rows} rows instead of {planned.rows}"
        if found.rows != planned.rows
        else "other values in its rows"
    )
    return ArchiveFailed(
        f"What was written to the archive reads back as something else: {how}",
        field="archive",
        received=f"{store.url}/{key}",
        fix="Nothing was dropped. See what is wrong with that place, then run `streamvibe archive run`",
    )
