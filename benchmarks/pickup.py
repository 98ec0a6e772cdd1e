"""What one claim reads, whatever the backlog: the figures behind "pickup does not get slower".

    .venv/bin/python -m benchmarks.pickup [--jobs 1000000] [--postgres 18] [--write]

Fills a fresh database with each backlog in turn, then claims under EXPLAIN (ANALYZE, BUFFERS), with every kind of
plan, right after loading and again after VACUUM ANALYZE. The session has claimed before, from the empty queue, so
that plans made for an empty table show. `--write` keeps the figures in benchmarks/results/.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

RESULTS = Path(__file__).parent / "results"
WORKER = "pickup"
PLANS = ("auto", "force_custom_plan", "force_generic_plan")
LIMITS = (1, 100)
# After five executions a session may settle for a plan that it keeps.
WARM_UP = 8

# The worker handles `mine`; 200 jobs of it are due, and last in line.
FILL_DUE = """
INSERT INTO public.job_queue (created_at, user_id, job_type, params, job_priority, scheduled_for)
SELECT pg_catalog.now(), gen_random_uuid(), 'mine', jsonb_build_object('due', n), 5, pg_catalog.now()
FROM generate_series(1, 200) n
"""
FILL = """
INSERT INTO public.job_queue (created_at, user_id, job_type, params, job_priority, scheduled_for)
SELECT pg_catalog.now(), pg_catalog.md5((n / 10)::text)::uuid, %(job_type)s, jsonb_build_object('n', n),
       %(priority)s + n %% 3,
       pg_catalog.now() + %(due)s::interval - n * interval '1 ms'
FROM generate_series(1, %(jobs)s) n
"""


@dataclass(frozen=True)
class Backlog:
    """Jobs that stand in the queue when the worker claims."""

    name: str
    job_type: str
    due: str
    priority: int
    """The lowest of three priorities in a row."""


READY = Backlog("ready", "mine", "-1 hour", 4)
TOMORROW = Backlog("scheduled for tomorrow at top priority", "mine", "1 day", 7)
FOREIGN = Backlog("ready, of a type this worker does not handle", "foreign", "-1 hour", 4)
SCENES: dict[str, tuple[Backlog, ...]] = {
    "none": (),
    READY.name: (READY,),
    TOMORROW.name: (TOMORROW,),
    FOREIGN.name: (FOREIGN,),
    "all three": (READY, TOMORROW, FOREIGN),
}


@dataclass(frozen=True)
class Cost:
    """What one claim cost on the server."""

    limit: int
    plan: str
    claimed: int
    buffers: int
    """Shared buffers hit and read by everything inside claim_jobs."""
    rows: int
    """Rows that index and table scans inside it looked at, filtered ones included."""
    milliseconds: float
    sequential: tuple[str, ...]
    """Partitions of the queue that were read from end to end and had rows."""


def prepare(conn: Connection[Any]) -> None:
    """Register the two job types and a worker; let this session plan its claims while the queue is empty.

    Then add the jobs that are due, and let the session see the plans inside functions.
    """
    conn.execute("SELECT register_job_type('mine'), register_job_type('foreign')")
    conn.execute("SELECT * FROM heartbeat_worker(%s, ARRAY['mine'], '1 day')", [WORKER])
    conn.execute("VACUUM ANALYZE public.job_queue")
    for _ in range(WARM_UP):
        for job_types in (["mine"], None):
            conn.execute("SELECT * FROM claim_jobs(%s, 1, %s)", [WORKER, job_types])
    conn.execute(FILL_DUE)
    conn.execute("LOAD 'auto_explain'")
    for name, value in {
        "log_min_duration": "0",
        "log_analyze": "on",
        "log_nested_statements": "on",
        "log_timing": "off",
        "log_format": "json",
        "log_level": "notice",
    }.items():
        conn.execute("SELECT pg_catalog.set_config(%s, %s, false)", [f"auto_explain.{name}", value])


def fill(conn: Connection[Any], backlog: Backlog, jobs: int) -> None:
    """Add a backlog. The rows go straight into the table, all indexes on it."""
    conn.execute(
        FILL,
        {"job_type": backlog.job_type, "priority": backlog.priority, "due": backlog.due, "jobs": jobs},
    )


def measure(conn: Connection[Any], limit: int, plan: str, job_types: Sequence[str] | None) -> Cost:
    """Claim, look at what it cost, and take it back. The connection is in autocommit mode."""
    plans: list[dict[str, Any]] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            plans.append(json.loads(text[text.index("{") :])["Plan"])

    conn.add_notice_handler(keep)
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SELECT pg_catalog.set_config('plan_cache_mode', %s, true)", [plan])
            plans.clear()
            row = conn.execute(
                "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT * FROM claim_jobs(%s, %s, %s)",
                [WORKER, limit, None if job_types is None else list(job_types)],
            ).fetchone()
    finally:
        conn.remove_notice_handler(keep)
    assert row is not None
    answer = row[0][0]
    every = [node for inner in plans for node in nodes(inner)]
    scans = [node for node in every if "Relation Name" in node and node["Node Type"] != "ModifyTable"]
    return Cost(
        limit=limit,
        plan=plan,
        claimed=int(answer["Plan"]["Actual Rows"]),
        buffers=answer["Plan"]["Shared Hit Blocks"] + answer["Plan"]["Shared Read Blocks"],
        rows=sum(
            round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
            for node in scans
        ),
        milliseconds=round(answer["Execution Time"], 3),
        sequential=tuple(
            node["Relation Name"]
            for node in scans
            if node["Node Type"] == "Seq Scan"
            and node["Relation Name"].startswith("job_queue_")
            and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 0
        ),
    )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan in EXPLAIN's JSON, itself first."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def costs(conn: Connection[Any], job_types: Sequence[str] | None, repeat: int = 3) -> list[Cost]:
    """The median claim for every limit and kind of plan; the first of each is not counted."""
    found = []
    for plan in PLANS:
        for limit in LIMITS:
            measure(conn, limit, plan, job_types)
            several = [measure(conn, limit, plan, job_types) for _ in range(repeat)]
            found.append(sorted(several, key=lambda cost: cost.buffers)[repeat // 2])
    return found


def main() -> int:
    """Print the table."""
    from tests.support.databases import TEMPLATE, make_template, new_database
    from tests.support.servers import pg15_bin, pg18_bin, running

    parser = argparse.ArgumentParser(description="What one claim reads, whatever the backlog.")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs in each backlog (default: 1000000)")
    parser.add_argument("--postgres", choices=["15", "18"], default="18")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    programs = pg18_bin() if arguments.postgres == "18" else pg15_bin()
    with running(f"pg{arguments.postgres}", programs) as server:
        make_template(server)
        print(
            f"{'backlog':46} {'statistics':10} {'plan':20} {'limit':>5} {'buffers':>8} {'rows':>6} {'ms':>8}"
        )
        for name, backlogs in SCENES.items():
            with new_database(server, TEMPLATE) as database:
                conn = database.connect()
                prepare(conn)
                started = time.perf_counter()
                for backlog in backlogs:
                    fill(conn, backlog, arguments.jobs)
                loaded = time.perf_counter() - started
                for state in ("none", "fresh"):
                    if state == "fresh":
                        conn.execute("VACUUM ANALYZE public.job_queue")
                    for cost in costs(conn, ["mine"]):
                        print(
                            f"{name:46} {state:10} {cost.plan:20} {cost.limit:5} {cost.buffers:8} {cost.rows:6} "
                            f"{cost.milliseconds:8.2f}"
                        )
                        found.append({"backlog": name, "statistics": state, **asdict(cost)})
                print(f"  ({loaded:.0f} s to load {arguments.jobs * len(backlogs)} jobs)", file=sys.stderr)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"pickup-pg{arguments.postgres}.json"
        path.write_text(
            json.dumps({"jobs": arguments.jobs, "machine": platform.machine(), "claims": found}, indent=1)
            + "\n"
        )
        print(f"Wrote {path.relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
