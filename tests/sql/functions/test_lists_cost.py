"""What a page of a user's jobs reads: in proportion to the page, however many jobs there are, however deep it is."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from benchmarks.pickup import nodes
from psycopg import Connection
from tests.sql import kit
from tests.sql.plans import leaves_of, nested_plans, rows_read
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server

PAGE = 50
HEAVY, LIGHT = UUID(int=1), UUID(int=2)
#: Of a page of 50: its rows by id, through the root of each partition's index, and 51 entries of each status.
BUFFERS = 900


@pytest.fixture(scope="module", params=[2_000, 60_000], ids=["small", "large"])
def filled(server: Server, request: pytest.FixtureRequest) -> Iterator[Connection[Any]]:
    """Jobs of three weeks, most of them finished, half of them one user's; a light user has 100 of each size."""
    with new_database(server, TEMPLATE) as database:
        database.advance_clock(kit.HOUR * 24 * 21)
        conn = database.connect()
        kit.register(conn)
        conn.execute(
            """
            INSERT INTO public.job_queue (
                id, created_at, user_id, job_type, status, completed_at, worker_id, claim_token, started_at)
            SELECT m.id, streamvibe.id_time(m.id), m.user_id, 'email', m.status,
                   CASE WHEN m.status IN ('completed', 'failed', 'cancelled') THEN m.at END,
                   'w', 1, m.at
            FROM (SELECT g.n, g.at, streamvibe.make_id(g.at) AS id,
                         CASE WHEN g.n %% (%(count)s / 100) = 0 THEN %(light)s::uuid
                              WHEN g.n %% 2 = 0 THEN %(heavy)s::uuid
                              ELSE ('00000000-0000-0000-0001-' || lpad((g.n %% 997)::text, 12, '0'))::uuid
                         END AS user_id,
                         coalesce((ARRAY['pending','processing','failed','cancelled'])[1 + (g.n / 2) %% 80],
                                  'completed') AS status
                  FROM (SELECT n, streamvibe.now() - (n::float8 / %(count)s) * interval '20 days' AS at
                        FROM generate_series(1, %(count)s) n OFFSET 0) g OFFSET 0) m
            """,
            {"count": request.param, "heavy": HEAVY, "light": LIGHT},
        )
        conn.execute("VACUUM ANALYZE public.job_queue")
        yield conn


def buffers(conn: Connection[Any], call: str, **values: object) -> int:
    """The blocks that a call reads, nested statements and all, when the session has planned it."""
    conn.execute(f"SELECT * FROM {call}".encode(), values)
    [plan] = conn.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {call}".encode(), values
    ).fetchall()
    node = plan[0][0]["Plan"]
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


CALLS = {
    "newest": "get_user_jobs_by_cursor(%(user_id)s, NULL)",
    "one status": "get_user_jobs_by_cursor(%(user_id)s, NULL, 'completed')",
    "pending": "get_user_jobs_by_cursor(%(user_id)s, NULL, 'pending')",
    "processing": "get_user_jobs_by_cursor(%(user_id)s, NULL, 'processing')",
    "one type": "get_user_jobs_by_cursor(%(user_id)s, NULL, NULL, 'email')",
    "deep": "get_user_jobs_by_cursor(%(user_id)s, %(deep)s)",
    "day": "get_user_jobs_by_bucket(%(user_id)s, 'day', 1)",
    "by number": "get_user_jobs(%(user_id)s, 'cancelled')",
    "oldest": "get_user_jobs(%(user_id)s, 'failed', p_order_dir := 'ASC')",
}


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("user_id", [HEAVY, LIGHT], ids=["heavy", "light"])
def test_a_page(filled: Connection[Any], user_id: UUID, plans: str) -> None:
    """Whatever is listed, however it is planned, however many jobs there are, and however far the list has come."""
    filled.execute("SELECT set_config('plan_cache_mode', %s, false)", [plans])
    cursor = None
    for _ in range(12 if user_id == HEAVY else 1):
        rows = kit.call(filled, "get_user_jobs_by_cursor", p_user_id=user_id, p_cursor=cursor, p_limit=PAGE)
        cursor = rows[-1]["next_cursor"]
    assert cursor is not None
    found = {name: buffers(filled, call, user_id=user_id, deep=cursor) for name, call in CALLS.items()}
    assert {name: read for name, read in found.items() if read > BUFFERS} == {}, found


@pytest.mark.parametrize("offset", [0, 200])
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_what_ended_is_read_in_its_order(filled: Connection[Any], status: str, offset: int) -> None:
    """A page reads as many jobs as lie before its end, and the first of each leaf; none of them is sorted."""
    with nested_plans(filled) as found:
        rows = kit.call(
            filled, "get_user_jobs", p_user_id=HEAVY, p_status=status, p_limit=PAGE, p_offset=offset
        )
    assert rows or offset
    inner = [node for plan in found for node in nodes(plan)]
    assert [node for node in inner if "Sort" in node["Node Type"]] == []
    scans = [node for node in inner if node["Node Type"] == "Index Scan" and node["Actual Loops"]]
    assert sum(rows_read(node) for node in scans) <= offset + PAGE + len(scans)


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", None])
def test_leaves_of_the_future_are_not_read(
    filled: Connection[Any], status: str | None, direction: str
) -> None:
    """Of the leaves that lie ahead none is looked at for a page (the count beside it reads indexes alone)."""
    arguments = {"p_user_id": HEAVY, "p_status": status, "p_order_dir": direction, "p_limit": 1000}
    with filled.transaction(force_rollback=True), nested_plans(filled) as found:
        kit.call(filled, "ensure_partitions")
        leaves = kit.query(
            filled,
            "SELECT partition_name AS name, lower_at > streamvibe.now() + interval '1 day' AS is_ahead"
            " FROM streamvibe.partition WHERE parent_name = 'job_queue'",
        )
        indexes = leaves_of(filled).indexes
        found.clear()
        assert kit.call(filled, "get_user_jobs", **arguments)
    ahead = {leaf["name"] for leaf in leaves if leaf["is_ahead"]}
    scans = [node for plan in found for node in nodes(plan) if node["Node Type"] == "Index Scan"]
    read = {
        indexes[node["Index Name"]][1]
        for node in scans
        if node["Actual Loops"] and node["Index Name"] in indexes
    }
    assert len(ahead) >= 3 and len(read) >= 3 and read & ahead == set()


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
def test_the_furthest_page_by_number(filled: Connection[Any], plans: str) -> None:
    """Its 1,050 entries, and the count of up to 10,001 in the index alone; not 30,000 jobs."""
    filled.execute("SELECT set_config('plan_cache_mode', %s, false)", [plans])
    assert buffers(filled, "get_user_jobs(%(user_id)s, p_offset := 1000)", user_id=HEAVY) < 3 * 1_050
