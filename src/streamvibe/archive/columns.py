"""What a file of the archive holds, and the checksum by which it is compared with the database.

Columns are those of ``job_queue`` and ``job_log``, in their order; a line's type is its job's.
Ids are text, so that every reader of Parquet can
compare them, and skip row groups by them; their order is that of the ids. Documents are the exact text of the jsonb.
Times are microseconds in UTC; infinity is the largest number, as DuckDB has it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_TIME = pa.timestamp("us", tz="UTC")

SCHEMAS: dict[str, pa.Schema] = {
    "jobs": pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("created_at", _TIME, nullable=False),
            pa.field("updated_at", _TIME, nullable=False),
            pa.field("scheduled_for", _TIME, nullable=False),
            pa.field("expires_at", _TIME),
            pa.field("started_at", _TIME),
            pa.field("completed_at", _TIME),
            pa.field("retry_at", _TIME),
            pa.field("claim_token", pa.int64()),
            pa.field("job_priority", pa.int16(), nullable=False),
            pa.field("retry_count", pa.int16(), nullable=False),
            pa.field("progress", pa.float32()),
            pa.field("turn", pa.int32(), nullable=False),
            pa.field("isolated", pa.bool_(), nullable=False),
            pa.field("job_type", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("worker_id", pa.string()),
            pa.field("idempotency_key", pa.string()),
            pa.field("failure_kind", pa.string()),
            pa.field("error_message", pa.string()),
            pa.field("progress_message", pa.string()),
            pa.field("params", pa.string(), nullable=False),
            pa.field("result", pa.string()),
            pa.field("traceparent", pa.string()),
        ]
    ),
    "logs": pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("job_id", pa.string(), nullable=False),
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("created_at", _TIME, nullable=False),
            pa.field("log_level", pa.string(), nullable=False),
            pa.field("message", pa.string(), nullable=False),
            pa.field("metadata", pa.string()),
        ]
    ),
}
#: By which the rows of a file are sorted (`open_archive_rows` does it).
SORTED_BY = {"jobs": ("user_id", "job_type", "id"), "logs": ("user_id", "job_id", "id")}
#: Ids of which one says whether a row is as old as an erasure: its own, or its job's.
AGES = {"jobs": ("id",), "logs": ("id", "job_id")}
#: What may be large: by these the size of a row is estimated.
LARGE = {
    kind: tuple(
        place
        for place, field in enumerate(schema)
        if field.name in ("params", "result", "error_message", "message", "metadata")
    )
    for kind, schema in SCHEMAS.items()
}


def to_batch(kind: str, rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Rows as the cursor has them (times are numbers of microseconds), as a batch."""
    schema = SCHEMAS[kind]
    return pa.record_batch(
        [
            pa.array(values, pa.int64()).cast(field.type)
            if pa.types.is_timestamp(field.type)
            else pa.array(values, field.type)
            for field, values in zip(schema, zip(*rows, strict=True), strict=True)
        ],
        schema=schema,
    )


def checksum(batch: pa.RecordBatch) -> int:
    """The sum of the digests of its rows: the same that the views archivable_job and archivable_line say."""
    joined = pc.binary_join_element_wise(*(_piece(column) for column in batch.columns), "|")
    return sum(
        int(hashlib.md5(text, usedforsecurity=False).hexdigest()[:15], 16)
        for text in joined.cast(pa.binary()).to_pylist()
    )


def _piece(column: pa.Array) -> pa.Array:
    """Each value as text after its length in characters; ``-`` for null."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_float32(column.type):
        column = column.view(pa.int32())  # the bits: two programs may write one number differently
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    text = column.cast(pa.string())
    length = pc.utf8_length(text).cast(pa.string())
    return pc.coalesce(pc.binary_join_element_wise(length, text, ":"), pa.scalar("-"))
