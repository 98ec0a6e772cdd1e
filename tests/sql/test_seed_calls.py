"""The calls and queries of the design document StreamVibe grew from run as they are printed there.

Mended where they could never run: the statistics view has no column `tablename` (it is `relname`), `priority` is
`job_priority`. Placeholders stand for values of the same kind; `cursor_created_at`, `cursor_id` and `page` too.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server

USER = UUID("11111111-1111-4111-8111-111111111111")
PARAMS = {"social_account_id": "abc123"}

# Each with what it has to find: the jobs are those of `seeded`.
AS_USER: dict[str, tuple[str, int]] = {
    "cached result": (
        """
        SELECT * FROM get_cached_job_result(
            p_user_id := auth.uid(),
            p_job_type := 'sync_youtube',
            p_params := '{"social_account_id": "abc123"}'::jsonb,
            p_cache_ttl := INTERVAL '1 hour'
        );
        """,
        1,
    ),
    "find or create": (
        """
        SELECT * FROM find_or_create_job(
            p_user_id := auth.uid(),
            p_job_type := 'sync_youtube',
            p_params := '{"social_account_id": "abc123"}'::jsonb,
            p_dedupe_window := INTERVAL '5 minutes'
        );
        """,
        1,
    ),
    "offset page": (
        """
        SELECT * FROM get_user_jobs(
            p_user_id := auth.uid(),
            p_status := 'completed',
            p_limit := 50,
            p_offset := 0, -- Page 1: 0, Page 2: 50, Page 3: 100
            p_order_by := 'created_at',
            p_order_dir := 'DESC'
        );
        """,
        1,
    ),
    "first cursor page": (
        """
        SELECT * FROM job_queue
        WHERE user_id = auth.uid()
        ORDER BY created_at DESC, id DESC
        LIMIT 50;
        """,
        4,
    ),
    "next cursor page": (
        """
        SELECT * FROM job_queue
        WHERE user_id = auth.uid()
          AND (created_at, id) < ((SELECT max(created_at) FROM job_queue), (SELECT max(id::text)::uuid FROM job_queue))
        ORDER BY created_at DESC, id DESC
        LIMIT 50;
        """,
        3,
    ),
    "bucket page": (
        """
        SELECT * FROM job_queue
        WHERE user_id = auth.uid()
          AND created_at >= date_trunc('day', NOW()) - (1 * INTERVAL '1 day')
        ORDER BY created_at DESC
        LIMIT 50;
        """,
        4,
    ),
    "index-only, one index": (f"SELECT id, status FROM job_queue WHERE user_id = '{USER}';", 4),
    "explain": (
        """
        EXPLAIN (ANALYZE, BUFFERS, VERBOSE)
        SELECT * FROM get_user_jobs(
            auth.uid(), 'completed', NULL, 50, 0
        );
        """,
        0,
    ),
}

AS_OWNER: dict[str, tuple[str, int]] = {
    "autovacuum": (
        """
        SELECT relname, last_autovacuum, last_autoanalyze, n_tup_ins, n_tup_upd, n_tup_del
        FROM pg_stat_user_tables
        WHERE relname = 'job_queue';
        """,
        1,
    ),
    # `tablename` and `indexname` mended to the view's own names.
    "index usage": (
        """
        SELECT
            schemaname,
            relname,
            indexrelname,
            idx_scan,
            idx_tup_read,
            idx_tup_fetch,
            pg_size_pretty(pg_relation_size(indexrelid)) AS index_size
        FROM pg_stat_user_indexes
        WHERE schemaname = 'public'
          AND relname IN ('job_queue', 'job_log')
        ORDER BY idx_scan DESC;
        """,
        0,
    ),
    "index health": (
        """
        SELECT
            indexrelname AS index_name,
            pg_size_pretty(pg_relation_size(indexrelid)) AS index_size,
            idx_scan,
            idx_tup_read,
            idx_tup_fetch,
            ROUND(100.0 * idx_tup_fetch / NULLIF(idx_tup_read, 0), 2) AS hit_rate
        FROM pg_stat_user_indexes
        WHERE schemaname = 'public'
        ORDER BY pg_relation_size(indexrelid) DESC;
        """,
        0,
    ),
    "stats": ("SELECT * FROM get_job_queue_stats();", 1),
    # The patterns of the index section, as whole queries.
    "user list": (
        f"""SELECT * FROM job_queue
        WHERE user_id = '{USER}' AND status = 'completed' ORDER BY created_at DESC LIMIT 50""",
        1,
    ),
    "pickup": (
        "SELECT * FROM job_queue WHERE status = 'pending' ORDER BY job_priority DESC, scheduled_for ASC",
        2,
    ),
    "worker's jobs": ("SELECT * FROM job_queue WHERE worker_id = 'w1' AND status = 'processing'", 1),
    "cleanup": (
        """SELECT * FROM job_queue
        WHERE status = 'completed' AND completed_at < NOW() - INTERVAL '7 days'""",
        0,
    ),
    "retries": ("SELECT * FROM job_queue WHERE status = 'failed' AND retry_count < 3", 1),
    "by type": ("SELECT job_type, status, count(*) FROM job_queue GROUP BY job_type, status", 4),
    "live jobs": (
        f"""SELECT COUNT(*) FROM job_queue
        WHERE user_id = '{USER}' AND status IN ('pending', 'processing')""",
        1,
    ),
    "stale": ("SELECT * FROM job_queue WHERE status = 'pending' AND expires_at < NOW()", 0),
    "stuck": (
        """SELECT * FROM job_queue
        WHERE status = 'processing' AND started_at < NOW() - INTERVAL '30 minutes'""",
        0,
    ),
    "params": ("""SELECT * FROM job_queue WHERE params @> '{"social_account_id": "123"}'""", 1),
    "results": ("""SELECT * FROM job_queue WHERE result @> '{"videos_synced": 250}'""", 1),
    "job's log": (
        "SELECT * FROM job_log WHERE job_id = (SELECT job_id FROM job_log LIMIT 1) "
        "ORDER BY created_at DESC LIMIT 100",
        2,
    ),
    "recent errors": (
        "SELECT * FROM job_log WHERE log_level = 'error' AND created_at > NOW() - INTERVAL '1 hour'",
        1,
    ),
    "words": (
        "SELECT * FROM job_log WHERE to_tsvector('english', message) @@ to_tsquery('error & timeout')",
        1,
    ),
    "metadata": ("""SELECT * FROM job_log WHERE metadata @> '{"error_code": "RATE_LIMIT"}'""", 1),
    "user's jobs, wide index": (f"SELECT id, status FROM job_queue WHERE user_id = '{USER}'", 4),
}


def seed(conn: Connection[Any]) -> None:
    """One user's completed, processing, failed and pending job, the log of one, and another user's job."""
    kit.register(conn, "sync_youtube")
    kit.worker(conn)

    def ask(**arguments: Any) -> None:
        kit.job_id(conn, USER, "sync_youtube", **arguments)

    ask(p_params=PARAMS)
    jobs = kit.claim(conn)
    lines: kit.Row = {
        "p_levels": ["info", "error"],
        "p_messages": ["started", "error: timeout while reading"],
        "p_metadata": [None, {"error_code": "RATE_LIMIT"}],
    }
    kit.call(conn, "append_job_logs", **kit.held(jobs * 2), **lines)
    kit.complete(conn, jobs, result={"videos_synced": 250})
    ask()
    kit.lease(conn, kit.claim(conn))
    ask()
    kit.fail(conn, kit.claim(conn), failure={**kit.ERROR, "retry_after_seconds": 3600})
    ask(p_params={"social_account_id": "123"})
    kit.job_id(conn, uuid4(), "sync_youtube")


@pytest.fixture(scope="module")
def seeded(server: Server) -> Iterator[Database]:
    """A database with the rows of `seed`."""
    with new_database(server, TEMPLATE) as database:
        seed(database.connect())
        yield database


def run(conn: Connection[Any], text: str) -> list[kit.Row]:
    """The statement as printed; what it writes is taken back."""
    with conn.transaction(force_rollback=True):
        return kit.query(conn, text)


@pytest.mark.parametrize("name", AS_USER)
def test_as_the_user(seeded: Database, name: str) -> None:
    """A signed-in user runs it as printed and finds their own rows."""
    text, rows = AS_USER[name]
    found = run(seeded.as_user(USER), text)
    assert len(found) == rows or (rows == 0 and found)


@pytest.mark.parametrize("name", AS_OWNER)
def test_as_the_owner(seeded: Database, name: str) -> None:
    """The owner or an operator runs it as printed."""
    text, rows = AS_OWNER[name]
    assert len(run(seeded.connect(), text)) == rows


def test_what_the_calls_answer(queue: Queue) -> None:
    """find_or_create_job: (job_id, is_new, existing_status); get_user_jobs: the job's data and total_count."""
    kit.register(queue.conn, "sync_youtube")
    conn = queue.as_user(USER)
    [first] = kit.query(conn, AS_USER["find or create"][0])
    [second] = kit.query(conn, AS_USER["find or create"][0])
    assert list(first) == ["job_id", "is_new", "existing_status"]
    assert (first["is_new"], second["is_new"], second["existing_status"]) == (True, False, "pending")
    assert second["job_id"] == first["job_id"]
    [page] = kit.query(conn, "SELECT * FROM get_user_jobs(auth.uid())")
    assert (page["id"], page["total_count"]) == (first["job_id"], 1)
    stats = kit.query(queue.service, AS_OWNER["stats"][0])[0]
    assert (stats["total_jobs"], stats["pending_jobs"]) == (1, 1)
