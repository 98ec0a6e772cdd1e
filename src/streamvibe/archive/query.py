"""Questions to the archive, in DuckDB's SQL, over exactly the files that are part of it.

DuckDB gets no file system: it reads what pyarrow reads for it, skipping days, columns and row groups that a question
does not need. So it can neither write nor reach anything else.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from streamvibe.archive.columns import SCHEMAS
from streamvibe.archive.control import Control
from streamvibe.archive.store import Store, first_line
from streamvibe.errors import ArchiveFailed, InvalidArgument

_DAY = pa.field("day", pa.date32())
_FOREVER = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


class Archive:
    """The archive as it is at this moment, to be asked; ``jobs`` and ``logs`` are its tables.

    Raises the error tree. Close it, or use it in a with block.
    """

    def __init__(self, dsn: str) -> None:
        with contextlib.closing(Control(dsn)) as control:
            rows = control.call("SELECT kind, day, url, key FROM public.get_archive_files()")
        #: Whether nothing was ever archived, or all of it was erased.
        self.is_empty = not rows
        self._stores: dict[str, Store] = {}
        self._connection = duckdb.connect(
            ":memory:", config={"enable_external_access": "false", "python_enable_replacements": "false"}
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        for kind in SCHEMAS:
            self._connection.register(kind, self.dataset(kind, rows))
        self._connection.execute("SET lock_configuration = true")

    def dataset(self, kind: str, rows: Sequence[tuple[str, Any, str, str]]) -> ds.Dataset:
        """The files of a kind, wherever they are, with the day of each as a column more."""
        schema = SCHEMAS[kind].append(_DAY)
        urls = dict.fromkeys(url for found, _, url, _ in rows if found == kind)
        if not urls:
            return ds.dataset(schema.empty_table())
        parts = []
        for url in urls:
            store = self._stores.setdefault(url, Store(url))
            form = ds.ParquetFileFormat()
            fragments = [
                form.make_fragment(
                    store.path(key), store.files, partition_expression=ds.field("day") == pa.scalar(day)
                )
                for found, day, place, key in rows
                if found == kind and place == url
            ]
            parts.append(ds.FileSystemDataset(fragments, schema, form, store.files))
        return parts[0] if len(parts) == 1 else ds.dataset(parts)

    def ask(self, sql: str) -> "Answer":
        """The answer to one SELECT. Raises InvalidArgument naming ``SQL``, or ArchiveFailed."""
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _KINDS:
                raise InvalidArgument(
                    "the archive is only read: one SELECT is wanted",
                    field="SQL",
                    received=sql[:300],
                    fix="Ask like this: SELECT status, count(*) FROM jobs GROUP BY status",
                )
            return Answer(self._connection.execute(statements[0]).to_arrow_reader(10_000), sql)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _said(error, sql) from error

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Answer:
    """Columns and rows. Times beyond what Python has are text, such as ``infinity``."""

    def __init__(self, reader: pa.RecordBatchReader, sql: str) -> None:
        self._reader = reader
        self._sql = sql
        self.columns: list[str] = list(reader.schema.names)

    def __iter__(self) -> Iterator[list[Any]]:
        """The rows, as they are read. Raises ArchiveFailed."""
        try:
            for batch in self._reader:
                yield from map(list, zip(*(_values(column) for column in batch.columns), strict=True))
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _said(error, self._sql) from error


def _values(column: pa.Array) -> list[Any]:
    if not pa.types.is_timestamp(column.type) or column.type.unit != "us":
        values: list[Any] = column.to_pylist()
        return values
    return [None if value is None else _time(value) for value in column.cast(pa.int64()).to_pylist()]


def _time(microseconds: int) -> datetime | str:
    if abs(microseconds) == _FOREVER:
        return "infinity" if microseconds > 0 else "-infinity"
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return f"{microseconds} microseconds since 1970"


def _said(error: Exception, sql: str) -> InvalidArgument | ArchiveFailed:
    if isinstance(
        error,
        duckdb.IOException
        | duckdb.InvalidInputException
        | duckdb.InternalException
        | duckdb.OutOfMemoryException,
    ) or not isinstance(error, duckdb.Error):
        return ArchiveFailed(
            f"The archive cannot be read: {first_line(error)}",
            field="archive",
            fix="See that its place can be reached from here: `streamvibe archive status`",
        )
    return InvalidArgument(
        f"the question cannot be answered: {first_line(error)}",
        field="SQL",
        received=sql[:300],
        fix="The tables are jobs and logs; see their columns with DESCRIBE: SELECT * FROM (DESCRIBE jobs)",
    )
