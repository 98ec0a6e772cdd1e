"""What moves claimed jobs reads in proportion to their number, though the statistics say that nothing is pending."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from benchmarks.pickup import READY, fill, nodes
from psycopg import Connection
from tests.sql import kit
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server

FINISHED = 5_000
PENDING = 10_000
CLAIMED = 500
MOVED = 100
USER = UUID("018f4e2a-7c31-7b0e-9d51-3f5d1c2b6a90")
# Of one statement: a job's row is found by its id, in each partition at worst; the claim's list is read with it.
BUFFERS_A_JOB = 15
ROWS = 2 * MOVED + CLAIMED


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Connection[Any]]:
    """5,000 finished jobs, ANALYZE, then 10,000 pending ones that no statistics know."""
    with new_database(server, TEMPLATE) as database:
        conn = database.connect()
        prepare(conn)
        yield conn


@pytest.fixture
def session(filled: Connection[Any]) -> Iterator[Connection[Any]]:
    """A session of that database; what it does is taken back."""
    with filled.transaction(force_rollback=True):
        yield filled


def prepare(conn: Connection[Any]) -> None:
    """Fill the queue; let the session show the plans inside functions."""
    for table in kit.query(conn, "SELECT partition_name AS name FROM streamvibe.partition"):
        conn.execute(f"ALTER TABLE streamvibe.{table['name']} SET (autovacuum_enabled = off)".encode())
    kit.register(conn, "mine", p_backoff_base="1 hour")
    kit.worker(conn, p_lease="1 day")
    fill(conn, READY, FINISHED)
    conn.execute("UPDATE public.job_queue SET status = 'completed', completed_at = streamvibe.now()")
    conn.execute("VACUUM ANALYZE public.job_queue, streamvibe.claim")
    fill(conn, READY, PENDING)
    conn.execute("LOAD 'auto_explain'")
    for name, value in {
        "log_min_duration": "0",
        "log_analyze": "on",
        "log_buffers": "on",
        "log_nested_statements": "on",
        "log_timing": "off",
        "log_format": "json",
        "log_level": "notice",
    }.items():
        conn.execute("SELECT set_config(%s, %s, false)", [f"auto_explain.{name}", value])


def cost(plan: dict[str, Any]) -> tuple[int, int]:
    """Blocks and rows of tables that the scans of one statement read; pairs of rows that were compared count too."""
    blocks = rows = 0
    for node in nodes(plan):
        removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Join Filter"))
        is_scan = "Relation Name" in node and node["Node Type"] != "ModifyTable"
        if is_scan:
            blocks += node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        if is_scan or removed:
            rows += round((node["Actual Rows"] + removed) * node["Actual Loops"])
    return blocks, rows


CALLS: dict[str, kit.Row] = {
    "complete_jobs": {"p_results": [{"n": 1}] * MOVED},
    "fail_jobs": {"p_failures": [kit.ERROR] * MOVED},
    "lease_jobs": {"p_started_at": [None] * MOVED},
    "release_jobs": {},
    "report_job_progress": {"p_progress": [0.5] * MOVED, "p_messages": ["half"] * MOVED},
    "append_job_logs": {"p_levels": ["info"] * MOVED, "p_messages": ["line"] * MOVED},
    "heartbeat_worker": {},
    "recover_stuck_jobs": {},
    "cancel_jobs": {},
}


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("function", CALLS)
def test_cost(session: Connection[Any], function: str, plans: str) -> None:
    """Moving 100 of 500 claimed jobs reads neither the other pending jobs nor every pair of job and list entry."""
    jobs = kit.claim(session, limit=CLAIMED)
    assert len(jobs) == CLAIMED
    if function in ("release_jobs", "report_job_progress", "recover_stuck_jobs"):
        kit.lease(session, jobs[:MOVED])
    arguments = {**kit.held(jobs[:MOVED]), **CALLS[function]}
    if function == "recover_stuck_jobs":
        kit.release(session, jobs[MOVED:])
        kit.kill_worker(session)
        arguments = {}
    if function == "cancel_jobs":
        ids = [job["job_id"] for job in jobs[:MOVED]]
        session.execute("UPDATE public.job_queue SET user_id = %s WHERE id = ANY (%s)", [USER, ids])
        arguments = {"p_user_id": USER, "p_job_ids": ids}
    found: list[dict[str, Any]] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            found.append(json.loads(text[text.index("{") :]))

    session.execute("SELECT set_config('plan_cache_mode', %s, true)", [plans])
    session.add_notice_handler(keep)
    kit.call(session, function, **arguments)
    session.remove_notice_handler(keep)
    assert len(found) > 1
    costs = {plan["Query Text"][:300]: cost(plan["Plan"]) for plan in found}
    assert {
        text: (blocks, rows)
        for text, (blocks, rows) in costs.items()
        if blocks > BUFFERS_A_JOB * MOVED or rows > ROWS
    } == {}
