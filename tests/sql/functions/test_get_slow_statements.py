"""get_slow_statements: what the queue's statements cost, without anybody's values; where it cannot tell, what to do."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.databases import TEMPLATE, Database, make_template, new_database, temporary_roles
from tests.support.servers import Server, pg15_bin, pg18_bin

from streamvibe.db.migrate import migrate

USER = UUID("018f0000-0000-7000-8000-00000000beef")


@pytest.fixture(scope="module", params=["pg18", "pg15"])
def watched(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that counts statements."""
    programs = pg18_bin() if request.param == "pg18" else pg15_bin()
    server = Server(f"watched-{request.param}", programs)
    try:
        server.start(shared_preload_libraries="pg_stat_statements")
        make_template(server)
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(watched: Server) -> Iterator[Database]:
    """A migrated database of the test's own, on that server."""
    with new_database(watched, TEMPLATE) as clone:
        yield clone


def slow(conn: psycopg.Connection[psycopg.rows.TupleRow], **arguments: object) -> list[kit.Row]:
    return kit.call(conn, "get_slow_statements", **arguments)


@pytest.mark.parametrize("schema", ["public", "Ext ensions"])
def test_statements_of_the_queue(database: Database, schema: str) -> None:
    """Ours and those on our tables, the longest in all first, in whatever schema the extension is; nobody else's."""
    conn = database.connect()
    conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    conn.execute(sql.SQL("CREATE EXTENSION pg_stat_statements SCHEMA {}").format(sql.Identifier(schema)))
    kit.register(conn)
    conn.execute(
        f"SELECT job_id FROM request_job('{USER}', 'email', '{{\"to\": \"eve@example.org\"}}')".encode()
    )
    for n in range(3):
        conn.execute(
            f"SELECT status, pg_sleep(0.01) FROM public.job_queue WHERE user_id = '{USER}' OR {n} = 77".encode()
        )
    conn.execute(b"CREATE TABLE mine (job_queue_id int); SELECT count(*) FROM mine")
    conn.execute(b"SELECT 'about job_queue' AS remark")
    conn.execute(b"SELECT count(*) AS other_database FROM pg_class")
    rows = slow(database.as_service())
    assert [row["problem"] for row in rows] == [None] * len(rows)
    said = [row["statement"] for row in rows]
    assert [row["total_seconds"] for row in rows] == sorted(
        (row["total_seconds"] for row in rows), reverse=True
    )
    [asked] = [row for row in rows if row["statement"].startswith("SELECT status, pg_sleep")]
    assert (asked["calls"], asked["rows_per_call"]) == (3, 1)
    assert asked["total_seconds"] >= 0.03 and asked["mean_seconds"] == pytest.approx(
        asked["total_seconds"] / 3
    )
    assert asked["max_seconds"] >= asked["mean_seconds"] and asked["blocks_per_call"] > 0
    assert asked["since"] is not None and asked["query_id"] is not None
    assert any("FROM request_job(" in one for one in said)
    assert not any(word in " ".join(said) for word in ("eve@", str(USER), "remark", "mine", "pg_class", "77"))
    assert len(slow(conn, p_limit=1)) == 1


def test_statements_of_several_roles_count_together(database: Database) -> None:
    """The same statement by the owner and by the service is one line."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pg_stat_statements")
    for one in (conn, database.as_service()):
        one.execute("SELECT count(*) FROM public.job_log")
    [row] = [row for row in slow(conn) if "job_log" in row["statement"]]
    assert row["calls"] == 2


def test_it_is_not_installed_here(database: Database) -> None:
    """One row, which says so, and a fix that works."""
    conn = database.connect()
    [row] = slow(database.as_service())
    assert row["statement"] is None and "not in this database" in row["problem"]
    assert row["fix"] == "CREATE EXTENSION pg_stat_statements"
    conn.execute(row["fix"].encode())
    conn.execute("SELECT count(*) FROM public.job_log")
    assert {row["problem"] for row in slow(conn)} == {None}


def test_it_is_not_loaded(queue: Queue) -> None:
    """The fix names the setting, the restart and the extension; with the extension there, the first two."""
    [row] = slow(queue.service)
    assert row["statement"] is None and "not in this database" in row["problem"]
    assert (
        "shared_preload_libraries" in row["fix"]
        and "restart" in row["fix"]
        and "CREATE EXTENSION" in row["fix"]
    )
    queue.conn.execute("CREATE EXTENSION pg_stat_statements")
    try:
        [row] = slow(queue.service)
        assert "not loaded" in row["problem"] and "CREATE EXTENSION" not in row["fix"]
    finally:
        queue.conn.execute("DROP EXTENSION pg_stat_statements")


def test_it_is_older_than_the_server(database: Database) -> None:
    """An extension that was never updated lacks the columns: the fix updates it."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pg_stat_statements VERSION '1.4'")
    [row] = slow(conn)
    assert row["statement"] is None and "older" in row["problem"]
    conn.execute(row["fix"].encode())
    conn.execute("SELECT count(*) FROM public.job_log")
    assert "job_log" in " ".join(row["statement"] for row in slow(conn))


def test_an_owner_who_may_not_see_others_is_told(watched: Server) -> None:
    """Statements of other roles are counted as hidden, with the GRANT that shows them; without rights, those."""
    with temporary_roles(watched, "app_owner"), new_database(watched, owner="app_owner") as database:
        owner = f"{database.dsn}&user=app_owner".replace("postgres@", "")
        with watched.connect() as admin:
            admin.execute("ALTER ROLE app_owner CREATEROLE")
        with database.connect() as admin:
            admin.execute("GRANT anon, authenticated, service_role TO app_owner WITH ADMIN OPTION")
        migrate(owner)
        admin = database.connect()
        admin.execute("CREATE SCHEMA ext; CREATE EXTENSION pg_stat_statements SCHEMA ext")
        with psycopg.connect(owner, autocommit=True) as conn:
            [row] = slow(conn)
            assert row["statement"] is None and "may not read ext.pg_stat_statements" in row["problem"]
            admin.execute(row["fix"].encode())
            admin.execute("SELECT count(*) FROM public.job_log")
            conn.execute("SELECT count(*) FROM public.job_queue")
            rows = slow(conn)
            assert "may not see" in rows[-1]["problem"] and rows[-1]["statement"] is None
            shown = " ".join(row["statement"] for row in rows[:-1])
            assert "FROM public.job_queue" in shown and "FROM public.job_log" not in shown
            assert "CREATE" not in shown, "what the migration did is no news"
            admin.execute(rows[-1]["fix"].encode())
            rows = slow(conn)
            assert {row["problem"] for row in rows} == {None}
            assert "job_log" in " ".join(row["statement"] for row in rows)


def test_reports_count_what_is_new(database: Database) -> None:
    """In the second week's report a statement's calls are those since the first; what was not called is not listed."""
    conn = database.connect()
    conn.execute("CREATE EXTENSION pg_stat_statements")
    database.advance_clock(7 * kit.DAY)

    def called(times: int) -> None:
        for _ in range(times):
            conn.execute("SELECT count(*) AS weekly FROM public.job_log")

    called(5)
    conn.execute("SELECT count(*) AS once FROM public.job_log LIMIT 7")
    kit.call(conn, "make_report", p_kind="weekly")
    database.advance_clock(7 * kit.DAY)
    called(2)
    kit.call(conn, "make_report", p_kind="weekly")
    second, first = (row["content"]["statements"] for row in kit.call(conn, "get_reports", p_limit=2))
    assert first["problem"] is None
    lines = [[line for line in one["items"] if "weekly" in line["statement"]] for one in (first, second)]
    assert [(line["calls"], line["calls_total"], line["is_total"]) for [line] in lines] == [
        (5, 5, True),
        (2, 7, False),
    ]
    assert lines[1][0]["mean_seconds"] == pytest.approx(lines[1][0]["total_seconds"] / 2)
    assert "once" in str(first["items"]) and "once" not in str(second["items"])


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT $1, a FROM t WHERE b = 'it''s' AND c = 12.5e3", "SELECT $1, a FROM t WHERE b = ? AND c = ?"),
        (r"SELECT E'a\'b', 'secret'", "SELECT ?, ?"),
        (r"SELECT 'a\', 'secret'", "SELECT ?, ?"),
        (r"SELECT * FROM t WHERE a LIKE'a\' AND b = 'secret'", "SELECT * FROM t WHERE a LIKE? AND b = ?"),
        ("SELECT 1 -- it's secret\n, 2", "SELECT ? ? , ?"),
        ("SELECT /* 'secret */ 'secret' FROM \"table 9\"", 'SELECT ? ? FROM "table 9"'),
        # A quote in a name cannot be told from an open constant.
        ("SELECT \"it's\", 'secret'", "SELECT …"),
        ("SELECT '/*', 'secret', '*/'", "SELECT ?, ?, ?"),
        ("DO $x$ BEGIN PERFORM 'secret'; END $x$", "DO …"),
        ("SELECT f($$secret$$, 'secret')", "SELECT f(…"),
        ("SELECT $1 || 'secret' || $2", "SELECT $1 || ? || $2"),
        ("SELECT /* a /* b */ secret */ 1", "SELECT …"),
        ("SELECT 'secret", "SELECT …"),
        ('SELECT "secret', "SELECT …"),
        ("VACUUM streamvibe.job_queue_20260105", "VACUUM streamvibe.job_queue_20260105"),
        ("SELECT U&'secret', B'101', X'1F', 0x1F, .5, 1::int", "SELECT U&?, B?, X?, ?, ?, ?::int"),
        ("-- secret\n/* secret */ SELECT a" + "a" * 2000, "SELECT a" + "a" * 991 + "…"),
        ("", ""),
    ],
)
def test_constants_are_taken_out(queue: Queue, statement: str, shown: str) -> None:
    """Whatever they look like; what cannot be told apart is not shown at all."""
    found = kit.value(queue.conn, "SELECT streamvibe.without_literals(%s)", statement)
    assert found == shown
    assert "secret" not in found


@pytest.mark.parametrize("limit", [0, 1001, None])
def test_limits(queue: Queue, limit: int | None) -> None:
    """1 to 1000 statements; for the service only."""
    with kit.refused("SV001", "p_limit"):
        slow(queue.service, p_limit=limit)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        slow(queue.as_user(uuid4()))
