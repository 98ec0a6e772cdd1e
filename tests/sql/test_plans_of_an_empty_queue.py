"""What a session planned while the queue was empty does not read the whole queue once it is full."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from benchmarks.pickup import SCENES, fill, nodes
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.plans import nested_plans, rows_read
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server

BACKLOG = 5_000
FINISHED = 30_000
# The calls below move a handful of jobs; none needs more than a few hundred rows, nor pages: what an index scan passes
# over is no row of any node.
ROWS, BLOCKS = 500, 300
ADD_FINISHED = """
INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, scheduled_for, started_at, completed_at)
SELECT m.id, streamvibe.id_time(m.id), streamvibe.make_id(now()), 'foreign', 'completed', now(), now(), now()
FROM (SELECT streamvibe.make_id(clock_timestamp() - n * interval '1 microsecond') AS id
      FROM generate_series(1, %s) n OFFSET 0) m
"""
# After five executions a session may settle for a plan that it keeps.
WARM_UP = 7

ADD_MINE = """
INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, scheduled_for, started_at, completed_at)
SELECT m.id, streamvibe.id_time(m.id), %(user)s, 'mine', %(status)s, now(), e.at, e.at
FROM (SELECT streamvibe.make_id(clock_timestamp() - n * interval '1 microsecond') AS id
      FROM generate_series(1, %(jobs)s) n OFFSET 0) m,
     (SELECT CASE WHEN %(status)s = 'completed' THEN now() END AS at) e
"""


class Watched:
    """A session that notes the most rows a scan inside each of its calls looked at, and the most pages."""

    def __init__(self, conn: Connection[Any]) -> None:
        self.conn = conn
        self.most: dict[str, tuple[int, str]] = {}
        self.blocks: dict[str, tuple[int, str]] = {}
        self._plans: list[dict[str, Any]] = []

    def watch(self) -> None:
        """From now on."""
        self.most.clear()
        self.conn.execute("LOAD 'auto_explain'")
        for name, value in {
            "log_min_duration": "0",
            "log_analyze": "on",
            "log_nested_statements": "on",
            "log_timing": "off",
            "log_buffers": "on",
            "log_format": "json",
            "log_level": "notice",
        }.items():
            self.conn.execute("SELECT set_config(%s, %s, false)", [f"auto_explain.{name}", value])
        self.conn.add_notice_handler(self._keep)

    def _keep(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            self._plans.append(json.loads(text[text.index("{") :]))

    def call(self, function: str, **arguments: Any) -> list[kit.Row]:
        """One call."""
        self._plans.clear()
        rows = kit.call(self.conn, function, **arguments)
        for plan in self._plans:
            for node in nodes(plan["Plan"]):
                filtered = node.get("Rows Removed by Filter", 0) + node.get(
                    "Rows Removed by Index Recheck", 0
                )
                read = round((node["Actual Rows"] + filtered) * node["Actual Loops"])
                if node.get("Relation Name", "pg_").startswith("pg_"):
                    continue
                what = f"{node['Node Type']} {node.get('Index Name', '')}: {plan['Query Text'][:200]}"
                self.most[function] = max(self.most.get(function, (0, "")), (read, what))
                if node["Node Type"] != "ModifyTable":
                    touched = blocks(node) - sum(map(blocks, node.get("Plans", [])))
                    self.blocks[function] = max(self.blocks.get(function, (0, "")), (touched, what))
        return rows


def blocks(node: dict[str, Any]) -> int:
    """How many pages a node and those below it touched."""
    touched = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
    assert isinstance(touched, int)
    return touched


def use_everything(session: Watched) -> None:
    """Every function that looks at single jobs, once or more."""
    call, user_id = session.call, uuid4()
    asked: kit.Row = {"p_user_id": user_id, "p_job_type": "mine"}
    ids = []
    for n in range(4):
        [row] = call("request_job", **asked, p_params={"n": n}, p_priority=9, p_idempotency_key=f"{n}")
        ids.append(row["job_id"])
    session.conn.execute(
        "UPDATE job_queue SET scheduled_for = '2000-01-01' WHERE id IN (SELECT unnest(%s::uuid[]))", [ids]
    )
    call("find_or_create_job", **asked, p_params={"n": 1})
    call("get_cached_job_result", **asked, p_params={"n": 1})
    jobs = call("claim_jobs", p_worker_id="pickup", p_limit=4)
    assert {job["job_id"] for job in jobs} == set(ids)
    held = kit.held(jobs, "pickup")
    call("heartbeat_worker", **held, p_lease="1 day")
    call("lease_jobs", **held, p_started_at=[None] * 4)
    call("report_job_progress", **held, p_progress=[0.5] * 4, p_messages=["half"] * 4)
    call("append_job_logs", **held, p_levels=["info"] * 4, p_messages=["line"] * 4)
    assert call("complete_jobs", **kit.held(jobs[:1], "pickup"), p_results=[{"n": 1}]) == []
    later = {**kit.ERROR, "retry_after_seconds": 3600}
    call("fail_jobs", **kit.held(jobs[1:2], "pickup"), p_failures=[later])
    assert call("release_jobs", **kit.held(jobs[2:3], "pickup")) == []
    for function in ("get_job", "get_job_result", "get_job_logs"):
        call(function, p_job_id=ids[0])
    for function in ("get_user_jobs", "get_user_jobs_by_cursor", "get_user_jobs_by_bucket"):
        call(function, p_user_id=user_id)
        call(function, p_user_id=user_id, p_status="completed")
        call(function, p_user_id=user_id, p_status="processing", p_job_type="mine")
    call("search_jobs", p_user_id=user_id, p_params=Jsonb({"n": 1}))
    call("explain_job_wait", p_job_id=ids[3])
    call("get_job_queue_metrics")
    call("get_job_queue_stats")
    call("retry_jobs", p_user_id=user_id, p_job_ids=[jobs[1]["job_id"]])
    call("cancel_jobs", p_user_id=user_id, p_job_ids=ids)
    for function in ("recover_stuck_jobs", "retry_failed_jobs", "expire_stale_jobs"):
        call(function)
    some = [{"user_id": str(user_id), "job_type": "mine", "params": {"n": n}} for n in range(3)]
    call("create_jobs", p_jobs=Jsonb(some), p_dedupe=True, p_enforce_limit=True)
    session.conn.execute("DELETE FROM job_queue WHERE user_id = %s", [user_id])
    session.conn.execute("DELETE FROM streamvibe.claim")


@pytest.fixture
def empty(server: Server) -> Iterator[Database]:
    """A database with the two job types of the pickup scenes and a worker."""
    with new_database(server, TEMPLATE) as database:
        conn = database.connect()
        for name in ("mine", "foreign"):
            kit.register(conn, name)
        kit.worker(conn, "pickup", p_lease="1 day")
        yield database


def look(conn: Connection[Any], how: str) -> None:
    """What maintenance does every night, or an operator."""
    if how == "vacuumed":
        conn.execute("VACUUM ANALYZE public.job_queue")
    elif how == "analyzed":
        for (command,) in conn.execute("SELECT streamvibe.parents_to_analyze()").fetchall():
            conn.execute(command)


ENDED = """
INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, completed_at)
SELECT m.id, streamvibe.id_time(m.id), CASE WHEN n %% 2 = 0 THEN %s ELSE gen_random_uuid() END, 'mine', 'completed',
       streamvibe.now()
FROM (SELECT n, streamvibe.make_id(streamvibe.now() - n * interval '1 us') AS id
      FROM generate_series(1, %s) n OFFSET 0) m
"""


@pytest.mark.parametrize("before", ["new", "analyzed", "vacuumed", "emptied"])
def test_a_list_that_grew_long_after_it_was_empty(empty: Database, before: str) -> None:
    """Of thousands of jobs that ended since, a page reads what it shows, and sorts nothing."""
    session, other, user_id = empty.connect(), empty.connect(), uuid4()
    if before == "emptied":
        other.execute(ENDED, [user_id, 3 * BACKLOG])
        other.execute("VACUUM ANALYZE public.job_queue")
        other.execute("DELETE FROM public.job_queue")
        other.execute("VACUUM public.job_queue")
    look(other, before)
    page: kit.Row = {"p_user_id": user_id, "p_status": "completed", "p_limit": 20}
    for _ in range(WARM_UP):
        assert kit.call(session, "get_user_jobs", **page) == []
    other.execute(ENDED, [user_id, 3 * BACKLOG])
    with nested_plans(session) as found:
        assert len(kit.call(session, "get_user_jobs", **page)) == 20
    inner = [node for plan in found for node in nodes(plan)]
    # The total is counted in the index alone.
    assert sum(rows_read(node) for node in inner if node["Node Type"] == "Index Scan") == 20
    assert [node for node in inner if "Sort" in node["Node Type"]] == []


@pytest.mark.parametrize("before", ["new", "analyzed", "vacuumed", "emptied"])
def test_full_after_empty(empty: Database, before: str) -> None:
    """Of 45,000 jobs that came since, no call that concerns a handful reads more than a few hundred.

    With a partition that was never looked at, with one that maintenance has found empty, as each new week's is, with
    one that was vacuumed, and with one whose jobs all left: it has no page, while its indexes have some, and
    statistics tell what was there.
    """
    session = Watched(empty.connect())
    other = empty.connect()
    if before == "emptied":
        for backlog in SCENES["all three"]:
            fill(other, backlog, BACKLOG)
        other.execute("VACUUM ANALYZE public.job_queue")
        other.execute("DELETE FROM public.job_queue")
        other.execute("VACUUM public.job_queue")
    look(other, before)
    for _ in range(WARM_UP):
        use_everything(session)
    for backlog in SCENES["all three"]:
        fill(other, backlog, BACKLOG)
    other.execute(ADD_FINISHED, [FINISHED])
    session.watch()
    use_everything(session)
    assert len(session.most) >= 23
    assert {name: found for name, found in session.most.items() if found[0] > ROWS} == {}
    assert {name: found for name, found in session.blocks.items() if found[0] > BLOCKS} == {}


@pytest.mark.parametrize("before", ["new", "analyzed", "vacuumed", "emptied"])
def test_lists_after_nothing(empty: Database, before: str) -> None:
    """A list that was planned before there was any job looks each job of a page up by its id."""
    session, other, user_id = Watched(empty.connect()), empty.connect(), uuid4()
    if before == "emptied":
        other.execute(ADD_FINISHED, [FINISHED])
        other.execute("VACUUM ANALYZE public.job_queue")
        other.execute("DELETE FROM public.job_queue")
        other.execute("VACUUM public.job_queue")
    look(other, before)
    for _ in range(WARM_UP):
        read_lists(session, user_id)
    other.execute(ADD_FINISHED, [FINISHED])
    for status in ("completed", "pending"):
        other.execute(ADD_MINE, {"user": user_id, "status": status, "jobs": 100})
    session.watch()
    read_lists(session, user_id)
    assert len(session.blocks) == 4
    assert {name: found for name, found in session.blocks.items() if found[0] > BLOCKS} == {}


def read_lists(session: Watched, user_id: UUID) -> None:
    """Every list of jobs, of whatever status."""
    for function in ("get_user_jobs", "get_user_jobs_by_cursor", "get_user_jobs_by_bucket"):
        for status in (None, "completed", "pending"):
            session.call(function, p_user_id=user_id, p_status=status)
    session.call("search_jobs", p_user_id=user_id, p_params=Jsonb({"n": 1}))
    session.call("get_user_jobs", p_user_id=user_id, p_order_by="completed_at")
