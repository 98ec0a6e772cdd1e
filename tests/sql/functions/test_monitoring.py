"""get_index_usage, get_index_bloat, get_table_health, get_job_queue_alerts: leaves are one line, figures are true."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.databases import Database


def by_name(rows: list[kit.Row], column: str) -> dict[str, kit.Row]:
    """Each name once."""
    assert len({row[column] for row in rows}) == len(rows)
    return {row[column]: row for row in rows}


def test_index_usage(database: Database) -> None:
    """Every index once, its leaves added up; what is scanned counts, what is not is unused, or a constraint."""
    conn = database.connect()
    kit.register(conn)
    user_id = uuid4()
    for n in range(3):
        kit.job_id(conn, user_id, p_params={"n": n})
    kit.call(conn, "get_user_jobs", p_user_id=user_id)
    conn.execute("SELECT pg_stat_force_next_flush()")
    usage = by_name(kit.call(conn, "get_index_usage"), "index_name")
    leaves = kit.value(conn, "SELECT count(*) FROM streamvibe.partition WHERE parent_name = 'job_queue'")
    listed = usage["idx_job_queue_user_status_created"]
    assert (listed["table_name"], listed["leaves"]) == ("job_queue", leaves)
    assert listed["scans"] > 0 and listed["tuples_read"] >= 3 and listed["size_bytes"] > 0
    assert listed["verdict"] in ("hot", "used")
    assert usage["idx_job_queue_cleanup"]["verdict"] == "unused"
    assert usage["job_log_pkey"]["verdict"] == "constraint"
    wanted = kit.query(
        conn,
        "SELECT indexrelid::regclass::text AS name FROM pg_index"
        " WHERE indrelid IN ('job_queue'::regclass, 'job_log'::regclass)",
    )
    assert {row["name"] for row in wanted} <= usage.keys()
    assert sum(row["scans"] for row in usage.values()) == kit.value(
        conn, "SELECT sum(idx_scan)::bigint FROM pg_stat_user_indexes WHERE schemaname = 'streamvibe'"
    )


def test_an_invalid_index_is_called_so(database: Database) -> None:
    """What an interrupted build left behind."""
    conn = database.connect()
    conn.execute(
        "INSERT INTO streamvibe.account (user_id) SELECT gen_random_uuid() FROM generate_series(1, 3)"
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY wrong ON streamvibe.account ((max_live_jobs IS NULL))")
    assert by_name(kit.call(conn, "get_index_usage"), "index_name")["wrong"]["verdict"] == "invalid"


@pytest.mark.parametrize("method", ["pgstattuple", "estimate"])
def test_index_bloat(database: Database, method: str) -> None:
    """A fresh index has next to none; nine of ten entries deleted, most of it is, by either method."""
    conn = database.connect()
    if method == "pgstattuple":
        conn.execute("CREATE SCHEMA extensions; CREATE EXTENSION pgstattuple SCHEMA extensions")
    name = kit.value(
        conn,
        "SELECT partition_name FROM streamvibe.partition WHERE parent_name = 'job_queue'"
        " ORDER BY lower_at LIMIT 1",
    )
    conn.execute(
        f"INSERT INTO streamvibe.{name} (id, created_at, user_id, job_type) SELECT streamvibe.make_id("
        "streamvibe.microseconds(p.lower_at) + n, n), p.lower_at + n * interval '1 us',"
        " md5((n % 997)::text)::uuid, 'email'"
        f" FROM streamvibe.partition p, generate_series(1, 40000) n WHERE p.partition_name = '{name}'".encode()
    )
    conn.execute(f"REINDEX TABLE streamvibe.{name}; ANALYZE streamvibe.{name}".encode())
    index = "job_queue_pkey"
    fresh = by_name(kit.call(conn, "get_index_bloat"), "index_name")[index]
    assert fresh["method"] == method
    assert fresh["bloat_bytes"] <= 0.25 * fresh["size_bytes"]
    conn.execute(f"DELETE FROM streamvibe.{name} WHERE uuid_hash(id) % 10 <> 0".encode())
    conn.execute(f"VACUUM (ANALYZE) streamvibe.{name}".encode())
    bloated = by_name(kit.call(conn, "get_index_bloat"), "index_name")[index]
    assert bloated["bloat_bytes"] > 0.6 * bloated["size_bytes"]
    assert name in bloated["worst_index"] and (bloated["leaf_density"] is None) == (method == "estimate")


def test_table_health(database: Database) -> None:
    """Each table once with the rows of its leaves, dead ones, and which leaf has the most of those."""
    conn = database.connect()
    kit.register(conn)
    conn.execute("ALTER TABLE streamvibe.account SET (autovacuum_enabled = off)")
    conn.execute(
        "INSERT INTO streamvibe.account (user_id) SELECT gen_random_uuid() FROM generate_series(1, 60000)"
    )
    conn.execute("DELETE FROM streamvibe.account WHERE uuid_hash(user_id) % 2 = 0")
    kit.job_id(conn)
    conn.execute("SELECT pg_stat_force_next_flush()")
    health = by_name(kit.call(conn, "get_table_health"), "table_name")
    queue = health["job_queue"]
    assert (queue["live_rows"], queue["dead_rows"], queue["verdict"]) == (1, 0, "ok")
    assert queue["leaves"] == kit.value(
        conn, "SELECT count(*) FROM streamvibe.partition WHERE parent_name = 'job_queue'"
    )
    accounts = health["account"]
    assert 25_000 < accounts["dead_rows"] < 35_000 and accounts["verdict"] == "not analyzed"
    conn.execute("DELETE FROM streamvibe.account WHERE uuid_hash(user_id) % 32 <> 1")
    conn.execute("SELECT pg_stat_force_next_flush()")
    accounts = by_name(kit.call(conn, "get_table_health"), "table_name")["account"]
    assert (accounts["verdict"], accounts["worst_table"]) == ("bloated", "streamvibe.account")
    conn.execute("VACUUM ANALYZE streamvibe.account")
    accounts = by_name(kit.call(conn, "get_table_health"), "table_name")["account"]
    assert (accounts["verdict"], accounts["dead_rows"]) == ("ok", 0)
    assert accounts["last_vacuum"] is not None and accounts["last_analyze"] is not None


def alerts(queue: Queue, **thresholds: Any) -> dict[str, kit.Row]:
    return by_name(kit.call(queue.service, "get_job_queue_alerts", **thresholds), "alert")


def test_alerts(queue: Queue) -> None:
    """Nothing is wrong with an empty queue; each alert comes when its threshold is passed, with value and fix."""
    assert alerts(queue) == {}
    kit.register(queue.conn, p_max_attempts=1)
    kit.worker(queue.conn)
    for _ in range(24):
        kit.job_id(queue.conn)
    assert alerts(queue, p_pending=24) == {}
    pending = alerts(queue, p_pending=23)["pending"]
    assert (pending["value"], pending["threshold"], pending["severity"]) == (24, 23, "notice")
    assert alerts(queue, p_pending=2)["pending"]["severity"] == "warning"
    jobs = kit.claim(queue.conn, limit=24)
    kit.fail(queue.conn, jobs[:3])
    kit.complete(queue.conn, jobs[3:])
    failed = alerts(queue)["failures"]
    assert (failed["value"], failed["threshold"]) == (0.125, 0.1) and "12.5 %" in failed["message"]
    assert alerts(queue, p_failure_rate=0.2) == {}
    slow = alerts(queue, p_failure_rate=1, p_processing="0")["processing_time"]
    assert slow["value"] > 0 and slow["fix"].startswith("SELECT job_type")
    for row in alerts(queue, p_pending=0, p_processing="0").values():
        queue.conn.execute(row["fix"].encode())


def test_stuck_jobs(queue: Queue) -> None:
    """Those of a worker whose lease is over, and those nobody claims for half an hour; gone when taken back."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    for _ in range(3):
        kit.job_id(queue.conn)
    kit.claim(queue.conn, limit=3)
    assert alerts(queue) == {}
    kit.kill_worker(queue.conn)
    assert alerts(queue)["stuck"]["value"] == 3
    queue.conn.execute(alerts(queue)["stuck"]["fix"].encode())
    assert alerts(queue) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("p_pending", None),
        ("p_pending", -1),
        ("p_processing", "-1 second"),
        ("p_failure_rate", 1.5),
        ("p_failure_rate", None),
    ],
)
def test_bad_thresholds(queue: Queue, name: str, value: object) -> None:
    """Refused by name."""
    with kit.refused("SV001", name):
        alerts(queue, **{name: value})
