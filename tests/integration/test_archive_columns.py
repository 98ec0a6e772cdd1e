"""Every value that a job or a line can have is in the archive as it was: two programs work out the same checksum."""

import random
import tempfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.support.databases import Database

from streamvibe.archive.columns import SCHEMAS, checksum, to_batch
from streamvibe.archive.files import batches_of, write

TIMES = (
    *("infinity", "-infinity", "4712-01-01 00:00:00 BC", "9999-12-31 23:59:59.999999+00"),
    *("1969-12-31 23:59:59.999999+00", "2255-06-05 23:47:34.740993+00", "100000-01-01 00:00:00.000001+00"),
)
TEXTS = ("", "-", "3:abc|", "é", "😀\t\r\n", "\u2028 \uffff", "\x01\x7f", "x" * 70_000)
DOCUMENTS = (
    *("{}", '{"a": 1e400, "b": -0.0, "c": 1.10, "d": 123456789012345678901234567890}'),
    *(
        '{"\\u00e9\\ud83d\\ude00": "\\"\\\\/\\b\\f\\n\\r\\t", "": null}',
        '{"a": [[], {}, true, false, null, ""]}',
    ),
)
FLOATS = ("NaN", "Infinity", "-Infinity", "0.1", "-0.0", "1e-45", "3.4e38")


def stored(conn: Connection[Any], view: str) -> tuple[list[dict[str, Any]], int]:
    """The rows of a view as the archive has them, and the sum of their digests by the database."""
    rows = kit.query(conn, f"SELECT * FROM streamvibe.{view} ORDER BY row_id")
    return rows, sum(row["digest"] for row in rows)


def through_parquet(kind: str, rows: list[dict[str, Any]]) -> list[pa.RecordBatch]:
    """Written to a file and read back."""
    with tempfile.TemporaryFile() as file:
        names = SCHEMAS[kind].names
        write(kind, batches_of(kind, ([row[name] for name in names] for row in rows)), file, lambda: None)
        file.seek(0)
        found: list[pa.RecordBatch] = pq.ParquetFile(file).read().to_batches()
        return found


def fill(conn: Connection[Any]) -> None:
    """Jobs and lines with odd values, each column's with each other's."""
    kit.register(conn)
    user = "00000000-0000-4000-8000-000000000001"
    choose = random.Random(7)
    for n in range(60):
        at, text, floating = choose.choice(TIMES), choose.choice(TEXTS), choose.choice(FLOATS)
        conn.execute(
            "INSERT INTO public.job_queue (id, created_at, updated_at, user_id, job_type, status, completed_at,"
            " expires_at, retry_at, scheduled_for, started_at, progress, isolated, claim_token, turn, error_message,"
            " worker_id, traceparent, params, result)"
            " SELECT i.id, streamvibe.id_time(i.id), %(at)s, %(user)s, 'email', 'completed',"
            " %(at)s, %(at)s, %(at)s, %(at)s, %(null)s, %(real)s, %(n)s %% 2 = 0, %(n)s::bigint * 153722867280912930,"
            " -%(n)s, %(text)s, %(text)s, %(text)s, %(json)s::jsonb, CASE WHEN %(n)s %% 3 = 0 THEN 'null'::jsonb"
            " WHEN %(n)s %% 3 = 1 THEN to_jsonb(%(text)s::text) END FROM (SELECT streamvibe.new_id() AS id) i",
            {
                **{"at": at, "user": user, "n": n, "real": floating, "text": text},
                **{"json": choose.choice(DOCUMENTS), "null": None if n % 2 else choose.choice(TIMES)},
            },
        )
        conn.execute(
            "INSERT INTO public.job_log (job_id, user_id, message, metadata) VALUES (%s, %s, %s, %s::jsonb)",
            [user, user, text, None if n % 2 else choose.choice(DOCUMENTS)],
        )


@pytest.mark.parametrize("kind", ["jobs", "logs"])
def test_odd_values(database: Database, kind: str) -> None:
    """NULL and empty, infinity and years BC, NaN and -0.0, numbers that no float holds, any character."""
    conn = database.connect()
    fill(conn)
    rows, total = stored(conn, "archivable_job" if kind == "jobs" else "archivable_line")
    assert len(rows) == 60
    batches = through_parquet(kind, rows)
    assert sum(checksum(batch) for batch in batches) == total
    # The same values: text that the database takes back for what it has.
    [batch] = batches
    for row, text in zip(rows, batch["params" if kind == "jobs" else "metadata"].to_pylist(), strict=True):
        same = "SELECT %s::jsonb IS NOT DISTINCT FROM (SELECT {} WHERE q.id = %s)".format(
            "q.params FROM public.job_queue q" if kind == "jobs" else "q.metadata FROM public.job_log q"
        )
        assert kit.value(conn, same, text, row["id"])


def test_times_are_exact(database: Database) -> None:
    """Microseconds since 1970, whatever the century; infinity is the largest number."""
    conn = database.connect()
    for text in TIMES:
        found = kit.value(conn, "SELECT streamvibe.archived_time(%s)", text)
        if text.endswith("infinity"):
            assert found == (2**63 - 1) * (-1 if text.startswith("-") else 1)
        else:
            back = "SELECT %s::timestamptz = '1970-01-01 00:00+00'::timestamptz + %s * interval '1 us'"
            whole = "SELECT '1970-01-01 00:00+00'::timestamptz + %s * interval '1 second' + %s * interval '1 us' = %s"
            assert kit.value(conn, whole, found // 1_000_000, found % 1_000_000, text), back


def test_a_value_that_differs_makes_another_checksum(database18: Database) -> None:
    """In every column, and where a text moves from one column to the next."""
    conn = database18.connect()
    fill(conn)
    for kind, view in (("jobs", "archivable_job"), ("logs", "archivable_line")):
        rows, _ = stored(conn, view)
        row = rows[0]
        names = SCHEMAS[kind].names
        usual = checksum(to_batch(kind, [[row[name] for name in names]]))
        for place, name in enumerate(names):
            value = row[name]
            other: Any = "x" if isinstance(value, str) or value is None else not value
            if value is None and not pa.types.is_string(SCHEMAS[kind].field(name).type):
                other = 1
            elif isinstance(value, int) and not isinstance(value, bool):
                other = value - 1 if value > 0 else value + 1
            elif isinstance(value, float):
                other = 0.25
            changed = [row[key] for key in names]
            changed[place] = other
            assert checksum(to_batch(kind, [changed])) != usual, name
    moved = ["a", "b", "c", 0, "info|x", "y", None], ["a", "b", "c", 0, "info", "x|y", None]
    assert len({checksum(to_batch("logs", [row])) for row in moved}) == 2


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON)
def test_any_json(database18: Database, document: Any) -> None:
    """Whatever a document holds, the file holds its exact text, and both checksums agree."""
    conn = database18.connect()
    with conn.transaction(force_rollback=True):
        conn.execute(
            "INSERT INTO public.job_log (job_id, user_id, message, metadata)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), '', %s)",
            [Jsonb(document)],
        )
        rows, total = stored(conn, "archivable_line")
        [batch] = through_parquet("logs", rows)
        assert checksum(batch) == total
        same = "SELECT metadata = %s::jsonb FROM public.job_log"
        assert kit.value(conn, same, batch["metadata"][0].as_py())
    conn.close()
