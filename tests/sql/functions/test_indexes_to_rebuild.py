"""Which indexes are built anew."""

from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.support.databases import Database

COMMANDS = "SELECT * FROM streamvibe.indexes_to_rebuild()"


@pytest.mark.parametrize("exact", [True, False], ids=["pgstattuple", "estimate"])
def test_a_closed_leaf_is_packed_once(database: Database, exact: bool) -> None:
    """Indexes of a leaf whose time is over take 1.3 times what they need at most, and stay as they are then."""
    conn = database.connect()
    if exact:
        conn.execute("CREATE EXTENSION pgstattuple")
    leaf = kit.old_leaf(conn, rows=20_000)
    # What every job does: a new entry in each index for its end, beside the one for its beginning.
    conn.execute(
        f"UPDATE streamvibe.{leaf} SET status = 'failed', completed_at = completed_at + '1 s'".encode()
    )
    conn.execute(f"VACUUM (ANALYZE) streamvibe.{leaf}".encode())
    commands = [row[0] for row in conn.execute(COMMANDS)]
    if not exact:
        assert commands == []
        return
    assert any(f"{leaf}_pkey" in command for command in commands)
    assert all(leaf in command for command in commands)
    for command in commands:
        conn.execute(command.encode())
    for index, size, density in conn.execute(
        "SELECT i.indexrelid::regclass::text, pg_relation_size(i.indexrelid), "
        "(SELECT s.avg_leaf_density FROM pgstatindex(i.indexrelid::regclass) s) FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree' "
        f"WHERE i.indrelid = 'streamvibe.{leaf}'::regclass".encode()
    ):
        assert density >= 90 / 1.3 or size < 128 * 1024 * 13 / 3, index
    assert conn.execute(COMMANDS).fetchall() == []


def test_a_leaf_that_is_written_to_is_packed_while_that_is_cheap(database: Database) -> None:
    """Its indexes take twice what they need by the evening, and are small."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    conn.execute("SELECT register_job_type('email')")
    conn.execute(
        "INSERT INTO public.job_queue (created_at, user_id, job_type)"
        " SELECT pg_catalog.now(), gen_random_uuid(), 'email' FROM generate_series(1, 20000)"
    )
    conn.execute("UPDATE public.job_queue SET status = 'failed', completed_at = pg_catalog.now()")
    conn.execute("VACUUM (ANALYZE) public.job_queue")
    commands = [row[0] for row in conn.execute(COMMANDS)]
    assert any(command.endswith("_pkey") for command in commands)
    for command in commands:
        conn.execute(command.encode())
    assert conn.execute(COMMANDS).fetchall() == []


def test_what_is_about_to_leave_is_not_packed(database: Database) -> None:
    """A sealed leaf is dropped within the hour."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    leaf = kit.old_leaf(conn, rows=20_000)
    conn.execute(f"UPDATE streamvibe.{leaf} SET status = 'failed'".encode())
    conn.execute(f"VACUUM (ANALYZE) streamvibe.{leaf}".encode())
    assert conn.execute(COMMANDS).fetchall() != []
    assert kit.value(conn, "SELECT streamvibe.seal_partition(%s)", leaf)
    assert conn.execute(COMMANDS).fetchall() == []


def test_what_was_emptied_page_by_page_is_packed(database: Database) -> None:
    """What is left is dense, but half of the index is pages that wait to be used again."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    leaf = kit.old_leaf(conn, rows=20_000)
    conn.execute(f"REINDEX TABLE streamvibe.{leaf}".encode())
    assert conn.execute(COMMANDS).fetchall() == []
    conn.execute(
        f"DELETE FROM streamvibe.{leaf} WHERE id < (SELECT id FROM streamvibe.{leaf} ORDER BY id"
        " OFFSET 10000 LIMIT 1)".encode()
    )
    conn.execute(f"VACUUM streamvibe.{leaf}".encode())
    assert any(f"{leaf}_pkey" in row[0] for row in conn.execute(COMMANDS))


def night(conn: Connection[Any]) -> list[str]:
    """What is vacuumed, then what is packed: which commands it was."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    found = []
    for duty in ("SELECT * FROM streamvibe.tables_to_vacuum()", COMMANDS):
        commands = [row[0] for row in conn.execute(duty.encode())]
        for command in commands:
            conn.execute(command.encode())
        found += commands
    return found


def test_what_rows_only_pass_through_is_packed(database: Database) -> None:
    """A table that is empty most of the time takes no more than an empty one, and nobody who has it waits."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    kit.register(conn)
    kit.call(conn, "create_jobs", p_jobs=Jsonb([{"user_id": str(uuid4()), "job_type": "email"}] * 500))
    # What is left is the index: of the table nothing is.
    conn.execute("VACUUM streamvibe.staging")
    assert kit.value(conn, "SELECT pg_relation_size('streamvibe.staging')") == 0
    pages = "SELECT pg_relation_size('streamvibe.staging_pkey') / 8192"
    assert kit.value(conn, pages) > 3
    pack = "VACUUM (FULL, ANALYZE, SKIP_LOCKED) streamvibe.staging"
    with database.connect() as writer, writer.transaction():
        writer.execute("LOCK streamvibe.staging IN ROW EXCLUSIVE MODE")
        assert pack in night(conn)
        assert kit.value(conn, pages) > 3
    assert pack in night(conn)
    assert kit.value(conn, pages) == 1
    nights = [night(conn) for _ in range(3)]
    assert nights[-1] == []
    # A row and its page are what is needed.
    conn.execute("INSERT INTO streamvibe.dropped_leaf VALUES (7)")
    assert night(conn) == []


def test_a_table_of_some_rows_is_packed(database: Database) -> None:
    """What workers write again and again leaves pages behind them."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    for n in range(60):
        kit.worker(conn, f"worker-{n}")
    conn.execute("DELETE FROM streamvibe.worker WHERE id <> 'worker-59'")
    conn.execute("VACUUM streamvibe.worker")
    pages = "SELECT pg_relation_size('streamvibe.worker') / 8192"
    assert kit.value(conn, pages) > 1
    assert "VACUUM (FULL, ANALYZE, SKIP_LOCKED) streamvibe.worker" in night(conn)
    assert kit.value(conn, pages) == 1
    assert kit.query(conn, "SELECT id FROM streamvibe.worker") == [{"id": "worker-59"}]


#: So many bytes a row, of so many parts of a page.
SHAPES = [(1600, 100), (1900, 90), (1400, 50), (300, 100), (9, 100)]


def sized(conn: Connection[Any], key: str, fillfactor: int = 100) -> None:
    """A table of the queue's schema whose rows are as wide as what is put into them."""
    conn.execute(
        f"CREATE TABLE streamvibe.sized ({key}, about text) WITH (fillfactor = {fillfactor})".encode()
    )
    conn.execute("ALTER TABLE streamvibe.sized ALTER COLUMN about SET STORAGE PLAIN")


@pytest.mark.parametrize(("width", "fillfactor"), SHAPES)
def test_what_is_packed_is_not_asked_for_again(database: Database, width: int, fillfactor: int) -> None:
    """However many rows there are: full pages, and the rest."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    sized(conn, "n bigint PRIMARY KEY", fillfactor)
    for count in [*range(1, 60), *range(100, 400, 11)]:
        if count * (width + 40) * 100 / fillfactor > 120_000:
            break
        conn.execute("TRUNCATE streamvibe.sized")
        conn.execute(
            "INSERT INTO streamvibe.sized SELECT n, repeat('x', %s - n %% 7) FROM generate_series(1, %s) n",
            [width, count],
        )
        conn.execute("VACUUM (FULL) streamvibe.sized")
        assert kit.query(conn, "SELECT name FROM streamvibe.tables_to_pack() WHERE name = 'sized'") == [], (
            count
        )


@pytest.mark.parametrize(("rows", "is_small"), [(95, True), (140, False)])
def test_what_is_not_small_is_not_rewritten(database: Database, rows: int, is_small: bool) -> None:
    """128 KB of a table that anybody may be writing to."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    sized(conn, "n bigint")
    conn.execute(
        "INSERT INTO streamvibe.sized SELECT n, repeat('x', 1000) FROM generate_series(1, %s) n", [rows]
    )
    conn.execute("DELETE FROM streamvibe.sized WHERE n < %s", [rows])
    conn.execute("VACUUM streamvibe.sized")
    assert (kit.value(conn, "SELECT pg_relation_size('streamvibe.sized')") < 128 * 1024) == is_small
    packed = kit.query(conn, "SELECT name FROM streamvibe.tables_to_pack() WHERE name = 'sized'")
    assert packed == ([{"name": "sized"}] if is_small else [])


@pytest.mark.parametrize(
    ("leaf_pages", "density", "internal_pages", "pages"),
    [
        (0, "NaN", 0, 1),
        (1, 0.05, 0, 1),
        (1, 0.3, 0, 2),
        (1, 90, 0, 2),
        (2, 40, 1, 2),
        (2, 60, 1, 4),
        (90, 45, 1, 47),
    ],
)
def test_pages_of_an_index(
    database: Database, leaf_pages: int, density: float | str, internal_pages: int, pages: int
) -> None:
    """One of its own, its leaves at nine tenths, and inner ones where there is more than one leaf."""
    conn = database.connect()
    assert (
        kit.value(
            conn, "SELECT streamvibe.index_pages(%s, %s::float, %s)", leaf_pages, density, internal_pages
        )
        == pages
    )


def test_few_dead_rows_of_a_large_partition_are_vacuumed_once(database: Database) -> None:
    """On one page of hundreds: indexes forget them, too, and nothing is left to be done the night after."""
    conn = database.connect()
    leaf = kit.old_leaf(conn, rows=20_000)
    conn.execute(f"VACUUM (ANALYZE) streamvibe.{leaf}".encode())
    few = f"(SELECT id FROM streamvibe.{leaf} LIMIT 5)"
    conn.execute(f"UPDATE streamvibe.{leaf} SET status = 'failed' WHERE id IN {few}".encode())
    conn.execute("SELECT pg_stat_force_next_flush()")
    [command] = [row[0] for row in conn.execute("SELECT * FROM streamvibe.tables_to_vacuum()")]
    assert command.endswith(f"streamvibe.{leaf}")
    conn.execute(command.encode())
    conn.execute(f"ANALYZE streamvibe.{leaf}".encode())
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert conn.execute("SELECT * FROM streamvibe.tables_to_vacuum()").fetchall() == []
    conn.execute(f"UPDATE streamvibe.{leaf} SET status = 'failed'".encode())
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert len(conn.execute("SELECT * FROM streamvibe.tables_to_vacuum()").fetchall()) == 1
    # What is about to leave is not worth it, and the lock would be in the way.
    assert kit.value(conn, "SELECT streamvibe.seal_partition(%s)", leaf)
    assert conn.execute("SELECT * FROM streamvibe.tables_to_vacuum()").fetchall() == []


def test_small_indexes_of_a_leaf_are_packed(database: Database) -> None:
    """Also where too few rows ended for autovacuum: as small as those of a leaf in which nothing waited."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    kit.register(conn)
    kit.call(conn, "create_jobs", p_jobs=Jsonb([{"user_id": str(uuid4()), "job_type": "email"}] * 400))
    conn.execute("VACUUM (ANALYZE) public.job_queue")
    conn.execute("UPDATE public.job_queue SET status = 'cancelled', completed_at = streamvibe.now()")
    sizes = (
        "SELECT DISTINCT pg_relation_size(i.indexrelid) / 8192 AS pages FROM pg_index i"
        " WHERE i.indrelid = (SELECT DISTINCT tableoid FROM public.job_queue)"
        " AND pg_get_expr(i.indpred, i.indrelid) LIKE '(status = ''pending''%'"
    )
    assert min(row["pages"] for row in kit.query(conn, sizes)) > 1
    first, *rest = night(conn)
    assert first.startswith("VACUUM (INDEX_CLEANUP ON, SKIP_LOCKED) streamvibe.job_queue_")
    assert any(command.startswith("REINDEX INDEX CONCURRENTLY streamvibe.job_queue_") for command in rest)
    assert kit.query(conn, sizes) == [{"pages": 1}]
    assert night(conn) == []


HOURS = """
INSERT INTO streamvibe.stat_sketch (leaf_number, minutes, since, job_type, measure, bucket, jobs)
SELECT 1 + n / 16800, 60, '2026-01-01'::timestamptz + n / 100 * interval '1 hour', 'email', 'waiting', n % 100, 1
FROM generate_series(1, 40000) n
"""


def test_the_list_of_archived_files_is_packed(database: Database) -> None:
    """Its rows are written three times each."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    conn.execute(
        "INSERT INTO streamvibe.archive_file (kind, source, day, url, key)"
        " SELECT 'jobs', 's' || n, '2026-01-01', 'file:///srv/archive', 'jobs/day=2026-01-01/s' || n"
        " FROM generate_series(1, 1000) n"
    )
    conn.execute("VACUUM (FULL, ANALYZE) streamvibe.archive_file")
    assert conn.execute(COMMANDS).fetchall() == []
    before = kit.value(conn, "SELECT pg_relation_size('streamvibe.archive_file')")
    for _ in range(2):
        conn.execute("UPDATE streamvibe.archive_file SET written_at = streamvibe.now()")
    conn.execute("VACUUM ANALYZE streamvibe.archive_file")
    commands = [row[0] for row in conn.execute(COMMANDS)]
    assert commands == ["VACUUM (FULL, ANALYZE, SKIP_LOCKED) streamvibe.archive_file"]
    conn.execute(commands[0].encode())
    assert kit.value(conn, "SELECT pg_relation_size('streamvibe.archive_file')") <= before
    assert conn.execute(COMMANDS).fetchall() == []


def test_an_index_of_the_archive_s_files_is_packed(database: Database) -> None:
    """The one of those that are not complete, which is empty most of the time, also where the list is long and full."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    conn.execute(
        "INSERT INTO streamvibe.archive_file"
        " (kind, source, day, url, key, verified_at, row_count, byte_count, checksum, state)"
        " SELECT 'jobs', 's' || n, '2026-01-01', 'file:///srv/archive', 'jobs/day=2026-01-01/s' || n, now(),"
        " 1, 1, 1, CASE WHEN n % 10 = 0 THEN 'writing' ELSE 'complete' END FROM generate_series(1, 8000) n"
    )
    conn.execute("VACUUM (FULL, ANALYZE) streamvibe.archive_file")
    conn.execute("UPDATE streamvibe.archive_file SET state = 'complete' WHERE state <> 'complete'")
    size = "SELECT pg_relation_size('streamvibe.archive_file_incomplete')"
    assert kit.value(conn, size) > 8192
    assert "REINDEX INDEX CONCURRENTLY streamvibe.archive_file_incomplete" in night(conn)
    assert kit.value(conn, size) == 8192
    assert night(conn) == []


def test_statistics_from_which_weeks_left_are_packed(database: Database) -> None:
    """Neither they nor their indexes take more than 1.3 times what they need."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    conn.execute(HOURS)
    conn.execute("VACUUM ANALYZE streamvibe.stat_sketch")
    assert conn.execute(COMMANDS).fetchall() == []
    size = (
        "SELECT pg_relation_size('streamvibe.stat_sketch') + pg_relation_size('streamvibe.stat_sketch_pkey')"
    )
    before = kit.value(conn, size)
    # Of every page something stays.
    conn.execute("DELETE FROM streamvibe.stat_sketch WHERE bucket % 2 = 0")
    conn.execute("VACUUM ANALYZE streamvibe.stat_sketch")
    commands = [row[0] for row in conn.execute(COMMANDS)]
    assert commands == ["VACUUM (FULL, ANALYZE, SKIP_LOCKED) streamvibe.stat_sketch"]
    with database.connect() as reader, reader.transaction():
        reader.execute("LOCK streamvibe.stat_sketch IN ACCESS SHARE MODE")
        conn.execute(commands[0].encode())  # nobody who reads for long is waited for, nor waits for it
        assert kit.value(conn, size) == before
    conn.execute(commands[0].encode())
    assert kit.value(conn, size) < before * 0.55
    assert conn.execute(COMMANDS).fetchall() == []


def test_an_index_of_statistics_alone_is_packed(database: Database) -> None:
    """The table is full, and is not rewritten."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    # Each page of the index is split for what comes before, and left half empty.
    conn.execute(HOURS + "ORDER BY n DESC")
    conn.execute("VACUUM ANALYZE streamvibe.stat_sketch")
    commands = [row[0] for row in conn.execute(COMMANDS)]
    assert commands == ["REINDEX INDEX CONCURRENTLY streamvibe.stat_sketch_pkey"]
    conn.execute(commands[0].encode())
    assert conn.execute(COMMANDS).fetchall() == []


def test_statistics_that_are_not_small_are_not_rewritten(database: Database) -> None:
    """Whoever reads them would wait for seconds."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pgstattuple")
    conn.execute("ALTER TABLE streamvibe.stat_sketch SET (fillfactor = 10)")
    conn.execute(HOURS.replace("40000", "60000"))
    conn.execute("ALTER TABLE streamvibe.stat_sketch SET (fillfactor = 100)")
    conn.execute("VACUUM ANALYZE streamvibe.stat_sketch")
    assert kit.value(conn, "SELECT pg_relation_size('streamvibe.stat_sketch')") > 32 * 1024 * 1024
    assert conn.execute(COMMANDS).fetchall() == []
    conn.execute("DELETE FROM streamvibe.stat_sketch WHERE bucket = 7")
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert conn.execute("SELECT * FROM streamvibe.tables_to_vacuum()").fetchall() == []
