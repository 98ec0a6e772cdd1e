"""What the design says beside its table, and what the baseline's tables show of it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from streamvibe.bench.queries.catalog import Samples
from streamvibe.bench.stage import percentile

Row = dict[str, Any]
CALLS = 200


def claims(
    conn: psycopg.Connection[Any], samples: Samples, rows: list[Row], report: Callable[[str], None]
) -> list[Row]:
    """A row per claim: claim, said, measured, and of what. ``rows``: the questions as they were measured."""
    report("what the design says beside its table")
    arguments = next(samples.each(1))
    by_name = {row["name"]: row for row in rows}
    return [
        {
            "claim": "partial pickup index, smaller than a full one",
            "said": "80 %",
            "measured": _smaller(
                conn, "job_queue (status, scheduled_for, job_priority DESC, id)", "status = 'pending'"
            ),
            "of": "the design's tables",
        },
        {
            "claim": "partial index of errors, smaller than a full one",
            "said": "90 %",
            "measured": _smaller(
                conn, "job_log (log_level, created_at DESC)", "log_level IN ('error', 'warning')"
            ),
            "of": "the design's tables",
        },
        {
            "claim": "index-only scan, faster than one of the table",
            "said": "2 to 10 times",
            "measured": f"{_index_only(conn, arguments):.1f} times",
            "of": "id and status of all jobs of a user with 1,000",
        },
        {
            "claim": "SECURITY DEFINER, faster than row security",
            "said": "10 to 100 times",
            "measured": f"{_row_security(conn, arguments):.2f} times",
            "of": "a page of a user's jobs in the design's tables, by the same plan",
        },
        {
            "claim": "jobs written in batches",
            "said": "10,000/s",
            "measured": _rate(by_name["Bulk job creation"], 1000),
            "of": "create_jobs of 1,000, one connection, commit not counted",
        },
        {
            "claim": "jobs read, cached",
            "said": "50,000/s",
            "measured": _rate(by_name["get_cached_job_result"], 1),
            "of": "get_cached_job_result, one connection",
        },
    ]


def _rate(row: Row, jobs: int) -> str:
    return f"{jobs * 1000 / row['p50_ms']:,.0f}/s"


def _smaller(conn: psycopg.Connection[Any], columns: str, where: str) -> str:
    # Both new: what was rolled back meanwhile stands in the index that is there.
    with conn.transaction(force_rollback=True):
        conn.execute(f"CREATE INDEX whole ON seed.{columns}".encode())
        conn.execute(f"CREATE INDEX part ON seed.{columns} WHERE {where}".encode())
        [whole, part] = conn.execute(
            "SELECT pg_catalog.pg_relation_size('seed.whole'), pg_catalog.pg_relation_size('seed.part')"
        ).fetchone() or (1, 1)
    return f"{100 * (1 - part / whole):.0f} %"


def _index_only(conn: psycopg.Connection[Any], arguments: Mapping[str, Any]) -> float:
    """How many times faster the covering index answers."""
    asked = "SELECT id, status FROM seed.job_queue WHERE user_id = %(user_1k)s"
    took = []
    for columns in ("user_id", "user_id, status, id"):
        conn.execute(f"CREATE INDEX only_this ON seed.job_queue ({columns})".encode())
        try:
            # Other indexes that begin with the user would answer as well.
            with conn.transaction(force_rollback=True):
                for other in ("idx_job_queue_user_status_created", "idx_job_queue_user_active"):
                    conn.execute(f"DROP INDEX seed.{other}".encode())
                took.append(_median(conn, asked, arguments))
        finally:
            conn.execute("DROP INDEX seed.only_this")
    return took[0] / took[1]


def _row_security(conn: psycopg.Connection[Any], arguments: Mapping[str, Any]) -> float:
    """How many times faster a page comes from a function that bypasses the policy, than under it."""
    page = "SELECT q FROM seed.job_queue q WHERE {} ORDER BY q.created_at DESC LIMIT 50"
    with conn.transaction(force_rollback=True):
        conn.execute(
            "CREATE FUNCTION seed.page(p uuid) RETURNS SETOF seed.job_queue LANGUAGE plpgsql STABLE SECURITY DEFINER"
            " AS $$ BEGIN RETURN QUERY SELECT * FROM seed.job_queue q WHERE q.user_id = p AND q.status = 'completed'"
            " ORDER BY q.created_at DESC LIMIT 50; END $$"
        )
        conn.execute("CREATE ROLE streamvibe_bench_user")
        conn.execute("GRANT SELECT ON seed.job_queue TO streamvibe_bench_user")
        conn.execute("SELECT pg_catalog.set_config('seed.uid', %(user_1k)s::text, true)", arguments)
        conn.execute("SET LOCAL ROLE streamvibe_bench_user")
        under = _median(conn, page.format("q.status = 'completed'"), arguments)
        beside = _median(conn, "SELECT * FROM seed.page(%(user_1k)s)", arguments)
        conn.execute("RESET ROLE")
    return under / beside


def _median(conn: psycopg.Connection[Any], asked: str, arguments: Mapping[str, Any]) -> float:
    took = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        conn.execute(asked.encode(), arguments, prepare=True).fetchall()
        took.append(time.perf_counter() - begun)
    return percentile(took, 50)
