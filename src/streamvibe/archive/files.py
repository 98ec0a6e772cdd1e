"""Writing a file of the archive, and reading one back."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamvibe.archive.columns import LARGE, SCHEMAS, SORTED_BY, checksum, to_batch
from streamvibe.archive.store import Store, first_line, spool_full, spooled
from streamvibe.errors import ArchiveFailed

#: A row group is what a question about one user reads at least, and what is held in memory.
GROUP_ROWS = 10_000
GROUP_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Contents:
    """How many rows, and the sum of their digests."""

    rows: int
    checksum: int

    def __sub__(self, other: "Contents") -> "Contents":
        return Contents(self.rows - other.rows, self.checksum - other.checksum)


def batches_of(kind: str, rows: Iterable[Sequence[Any]]) -> Iterator[pa.RecordBatch]:
    """Rows as they come, in row groups: neither many rows nor many bytes are held at once."""
    gathered: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        gathered.append(row)
        size += sum(len(row[place] or "") for place in LARGE[kind])
        if len(gathered) >= GROUP_ROWS or size >= GROUP_BYTES:
            yield to_batch(kind, gathered)
            gathered, size = [], 0
    if gathered:
        yield to_batch(kind, gathered)


def write(kind: str, batches: Iterable[pa.RecordBatch], file: IO[bytes], keep: Callable[[], None]) -> None:
    """Write batches as a Parquet file, each a row group. ``keep`` is called before each.

    Rows come sorted; statistics and the page index say of which users and types each group and page is.
    Raises ArchiveFailed when the file cannot grow.
    """
    schema = SCHEMAS[kind]
    sorting = [pq.SortingColumn(schema.get_field_index(name)) for name in SORTED_BY[kind]]
    try:
        with pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            write_page_index=True,
            write_page_checksum=True,
            sorting_columns=sorting,
            store_schema=True,
        ) as writer:
            for batch in batches:
                keep()
                writer.write_batch(batch, row_group_size=max(len(batch), 1))
    except OSError as error:
        raise spool_full(error) from error


def fetched(
    store: Store, key: str, file: IO[bytes], kind: str, keep: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    """Read an object into a file, then the row groups of that. Raises ArchiveFailed where it cannot be read, or is no
    file of the archive.
    """
    store.fetch(key, file, keep)
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        if not parquet.schema_arrow.equals(SCHEMAS[kind]):
            raise damaged(store, key, "its columns are not those of this release")
        for group in range(parquet.metadata.num_row_groups):
            keep()
            yield from parquet.read_row_group(group).combine_chunks().to_batches()
    except (OSError, pa.ArrowException) as error:
        raise damaged(store, key, first_line(error)) from error


def digest(file: IO[bytes]) -> bytes:
    """Of all bytes of a file: it says more than that the rows are right, such as that what a question skips is."""
    found = hashlib.sha256()
    file.seek(0)
    while part := file.read(1024 * 1024):
        found.update(part)
    return found.digest()


def contents(store: Store, key: str, kind: str, written: bytes, keep: Callable[[], None]) -> Contents:
    """What is in an object, worked out from all that it holds, after it was compared with the ``digest`` of what was
    written. Raises ArchiveFailed.
    """
    rows, total = 0, 0
    with spooled() as file:
        for batch in fetched(store, key, file, kind, keep):
            rows += len(batch)
            total += checksum(batch)
        if digest(file) != written:
            raise damaged(store, key, "its bytes are not those that were written")
    return Contents(rows, total)


def damaged(store: Store, key: str, why: str) -> ArchiveFailed:
    """The error for an object that is not what was written."""
    return ArchiveFailed(
        f"A file of the archive is damaged: {why}",
        field="archive",
        received=f"{store.url}/{key}",
        fix="Restore this object from a copy of the archive; nothing was deleted for it",
    )
