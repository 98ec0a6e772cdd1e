"""What moves or reads jobs, a page or the statistics is planned once for a session, not anew for every call."""

from typing import Any
from uuid import uuid4

import psycopg
from psycopg import Connection
from tests.sql import kit
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server

# After five executions a session may settle for a plan that it keeps.
WARM_UP = 7
ROUNDS = 3
#: PostgreSQL before 18 plans functions in SQL for every call: what is called finds a list of ids or a limit, no jobs.
FUNCTIONS_IN_SQL = 2
CALLS_NONE = {
    "cancel_jobs",
    "retry_jobs",
    "get_job",
    "get_job_result",
    "get_cached_job_result",
    "get_job_queue_stats",
}


class Counted:
    """A session that notes how often the planner ran in each of its calls."""

    def __init__(self, conn: Connection[Any]) -> None:
        self.conn = conn
        self.plans: dict[str, list[int]] = {}
        self._planned = 0
        conn.add_notice_handler(self._note)

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        self._planned += notice.message_primary == "PLANNER STATISTICS"

    def call(self, function: str, **arguments: Any) -> list[kit.Row]:
        """One call; the statement that makes it is prepared by the driver, and planned once as well."""
        self.conn.execute("SET client_min_messages = log")
        self.conn.execute("SET log_planner_stats = on")
        self._planned = 0
        rows = kit.call(self.conn, function, **arguments)
        self.plans.setdefault(function, []).append(self._planned)
        self.conn.execute("SET log_planner_stats = off")
        self.conn.execute("RESET client_min_messages")
        return rows


def use_everything(session: Counted) -> None:
    """Every function that keeps its plans, once or more."""
    call, user_id = session.call, uuid4()
    asked: kit.Row = {"p_user_id": user_id, "p_job_type": "mine"}
    ids = [call("request_job", **asked, p_params={"n": n})[0]["job_id"] for n in range(4)]
    jobs = call("claim_jobs", p_worker_id="w", p_limit=4)
    first = kit.held(jobs[:1], "w")
    call("heartbeat_worker", **first, p_lease="1 day")
    call("lease_jobs", **first, p_started_at=[None])
    call("report_job_progress", **first, p_progress=[0.5], p_messages=["half"])
    call("append_job_logs", **first, p_levels=["info"], p_messages=["line"])
    assert call("complete_jobs", **first, p_results=[{"n": 1}]) == []
    later = {**kit.ERROR, "retry_after_seconds": 3600}
    call("fail_jobs", **kit.held(jobs[1:2], "w"), p_failures=[later])
    assert call("release_jobs", **kit.held(jobs[2:3], "w")) == []
    call("cancel_jobs", p_user_id=user_id, p_job_ids=ids[3:])
    call("retry_jobs", p_user_id=user_id, p_job_ids=ids[3:])
    call("get_job", p_job_id=ids[0])
    call("get_job_result", p_job_id=ids[0])
    call("get_cached_job_result", **asked, p_params={"n": 0})
    call("get_user_jobs", p_user_id=user_id)
    call("get_user_jobs_by_cursor", p_user_id=user_id)
    call("get_user_jobs_by_bucket", p_user_id=user_id)
    call("get_job_queue_stats")
    session.conn.execute("DELETE FROM job_queue WHERE user_id = %s", [user_id])
    session.conn.execute("DELETE FROM streamvibe.claim")


def test_planned_once(server: Server) -> None:
    """Once a session is warm, no call for a job or a page runs the planner, which would take longer than its work."""
    with new_database(server, TEMPLATE) as database:
        conn = database.connect()
        # A vacuum makes all plans be made anew.
        for leaf in kit.query(conn, "SELECT partition_name AS name FROM streamvibe.partition"):
            conn.execute(f"ALTER TABLE streamvibe.{leaf['name']} SET (autovacuum_enabled = off)".encode())
        kit.register(conn, "mine")
        kit.worker(conn, "w", p_lease="1 day")
        conn.prepare_threshold = 0
        session = Counted(conn)
        for _ in range(WARM_UP + ROUNDS):
            use_everything(session)
        is_18 = conn.info.server_version >= 18_00_00
    assert len(session.plans) == 18
    assert max(counts[0] for counts in session.plans.values()) > FUNCTIONS_IN_SQL  # it does count
    # The least of several calls: what others do on this server may make a session plan anew.
    least = {function: min(counts[WARM_UP:]) for function, counts in session.plans.items()}
    most = {function: 0 if is_18 or function in CALLS_NONE else FUNCTIONS_IN_SQL for function in least}
    assert {function: count for function, count in least.items() if count > most[function]} == {}
