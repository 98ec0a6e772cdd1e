"""The rows of a user who is erased from the archive: where they are, and a file without them."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamvibe.archive.columns import AGES, SCHEMAS, checksum
from streamvibe.archive.files import Contents
from streamvibe.archive.store import Store


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """Rows of ``user_id`` with an id, or a job's id, below ``before_id``; both as text."""

    user_id: str
    before_id: str

    def are_in(self, store: Store, key: str, kind: str) -> bool:
        """Whether a file has such rows. Reads the row groups that may have rows of the user, by their statistics."""
        place = SCHEMAS[kind].get_field_index("user_id")
        with store.opened(key) as source:
            file = pq.ParquetFile(source)
            for group in range(file.metadata.num_row_groups):
                statistics = file.metadata.row_group(group).column(place).statistics
                if statistics is None or not statistics.has_min_max:
                    is_possible = True
                else:
                    is_possible = statistics.min <= self.user_id <= statistics.max
                if is_possible:
                    columns = file.read_row_group(group, columns=["user_id", *AGES[kind]])
                    if pc.any(self._mask(columns, kind)).as_py():
                        return True
        return False

    def split(self, batches: Iterable[pa.RecordBatch], kind: str) -> "Split":
        """Divide the rows of a file into those that stay and those that go."""
        return Split(self, batches, kind)

    def _mask(self, rows: pa.Table | pa.RecordBatch, kind: str) -> pa.ChunkedArray | pa.Array:
        is_old = [pc.less(rows[name], self.before_id) for name in AGES[kind]]
        return pc.and_(pc.equal(rows["user_id"], self.user_id), functools.reduce(pc.or_, is_old))

    def mask(self, rows: pa.RecordBatch, kind: str) -> pa.Array:
        """Which rows of a batch go."""
        return self._mask(rows, kind)


@dataclass(slots=True)
class Split:
    """What `kept` went through: all that was in the file, and what is removed from it."""

    erased: ErasedRows
    batches: Iterable[pa.RecordBatch]
    kind: str
    all: Contents = field(default=Contents(0, 0))
    removed: Contents = field(default=Contents(0, 0))

    def kept(self) -> Iterator[pa.RecordBatch]:
        """The rows that stay, in their order."""
        for batch in self.batches:
            mask = self.erased.mask(batch, self.kind)
            gone, stays = batch.filter(mask), batch.filter(pc.invert(mask))
            self.removed = _plus(self.removed, gone)
            self.all = _plus(_plus(self.all, gone), stays)
            if len(stays):
                yield stays


def _plus(so_far: Contents, batch: pa.RecordBatch) -> Contents:
    return Contents(so_far.rows + len(batch), so_far.checksum + (checksum(batch) if len(batch) else 0))
