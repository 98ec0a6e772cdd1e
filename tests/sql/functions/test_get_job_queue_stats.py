"""get_job_queue_stats: one row that equals a count by hand, whatever became of the jobs, and reads none of them."""

import json
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from benchmarks.pickup import nodes
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.plans import nested_plans

STATES = ("pending", "processing", "completed", "failed", "cancelled")
WINDOWS = ("1 hour", "1 day", "7 days")


def count_by_hand(jobs: list[kit.Row]) -> kit.Row:
    """What the function must say of these jobs, but for percentiles and windows."""
    by_state = {state: [job for job in jobs if job["status"] == state] for state in STATES}
    done, failed = by_state["completed"], by_state["failed"]
    counted: dict[str, dict[str, int]] = {}
    for job in jobs:
        states = counted.setdefault(job["job_type"], {})
        states[job["status"]] = states.get(job["status"], 0) + 1
    return {
        "total_jobs": len(jobs),
        **{f"{state}_jobs": len(found) for state, found in by_state.items()},
        "avg_processing_seconds": _average([_processed(job) for job in done]),
        "avg_wait_seconds": _average([_waited(job) for job in done]),
        "error_rate": len(failed) / (len(done) + len(failed)) if done or failed else None,
        "jobs_by_type": counted,
    }


def _processed(job: kit.Row) -> float:
    return float((job["completed_at"] - job["started_at"]).total_seconds())


def _waited(job: kit.Row) -> float:
    return float((job["started_at"] - job["scheduled_for"]).total_seconds())


def _average(values: list[float]) -> Any:
    return pytest.approx(math.fsum(values) / len(values), abs=1e-6) if values else None


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[math.ceil(part * len(values)) - 1]


def all_jobs(conn: Connection[Any]) -> list[kit.Row]:
    """Every job as readers see it."""
    return kit.query(conn, "SELECT * FROM streamvibe.job")


def stats(queue: Queue, **arguments: Any) -> kit.Row:
    """The only row."""
    return kit.call_one(queue.service, "get_job_queue_stats", **arguments)


def history(queue: Queue, count: int = 60) -> list[UUID]:
    """Jobs of two types in every state."""
    conn = queue.conn
    for name in ("email", "sms"):
        kit.register(conn, name)
    kit.worker(conn)
    ids = [kit.job_id(conn, job_type=("email", "sms")[n % 3 == 0]) for n in range(count)]
    jobs = kit.claim(conn, limit=count - 10)
    kit.complete(conn, jobs[:20])
    kit.fail(conn, jobs[20:24], failure=kit.PERMANENT)
    kit.lease(conn, jobs[24:34])
    kit.complete(conn, jobs[24:27])
    kit.release(conn, jobs[27:29])
    kit.fail(conn, jobs[34:36])
    kit.fail(conn, jobs[36:38], failure={**kit.ERROR, "retry_after_seconds": 3600})
    gone = jobs[38]
    kit.call(conn, "cancel_jobs", p_user_id=gone["user_id"], p_job_ids=[gone["job_id"], gone["job_id"]])
    back = jobs[36]
    kit.call(conn, "retry_jobs", p_user_id=back["user_id"], p_job_ids=[back["job_id"]])
    conn.execute("UPDATE public.job_queue SET expires_at = scheduled_for WHERE id = %s", [ids[-1]])
    kit.call(conn, "expire_stale_jobs")
    new = [{"user_id": str(uuid4()), "job_type": "sms"} for _ in range(5)]
    for promises in (False, True):
        kit.call(conn, "create_jobs", p_jobs=Jsonb(new), p_dedupe=promises, p_enforce_limit=promises)
    return ids


def test_empty(queue: Queue) -> None:
    """Nothing counted, nothing divided by zero."""
    found = stats(queue)
    assert found == {
        "total_jobs": 0,
        **{f"{state}_jobs": 0 for state in STATES},
        "avg_processing_seconds": None,
        "avg_wait_seconds": None,
        "error_rate": None,
        "jobs_by_type": {},
        "error_rates": dict.fromkeys(WINDOWS),
        **{f"{measure}_p{part}_seconds": None for measure in ("processing", "wait") for part in (50, 95, 99)},
    }


@pytest.mark.parametrize("compacted", [False, True])
def test_equals_a_count_by_hand(queue: Queue, compacted: bool) -> None:
    """Totals, averages, error rates and the table by type, from the jobs one by one; compact_stats changes nothing."""
    history(queue)
    if compacted:
        assert kit.value(queue.service, "SELECT compact_stats(7)") == 7
        assert kit.value(queue.service, "SELECT compact_stats()") > 0
        assert kit.value(queue.service, "SELECT compact_stats()") == 0
    jobs = all_jobs(queue.conn)
    found, expected = stats(queue), count_by_hand(jobs)
    assert {name: found[name] for name in expected} == expected
    assert found["error_rates"] == dict.fromkeys(WINDOWS, pytest.approx(expected["error_rate"]))
    assert {job["status"] for job in jobs} == set(STATES)
    mine = count_by_hand([job for job in jobs if job["job_type"] == "sms"])
    found = stats(queue, p_job_type="sms")
    assert {name: found[name] for name in mine} == mine


@pytest.mark.parametrize(
    "zone, changes",
    [
        ("Europe/Berlin", ["2027-03-28", "2027-10-31"]),
        ("America/New_York", ["2027-03-14", "2027-11-07"]),
        ("Australia/Sydney", ["2027-04-04", "2027-10-03"]),
    ],
)
def test_where_clocks_change(clocked: Queue, zone: str, changes: list[str]) -> None:
    """Days of 23 and 25 hours in the session's time zone count no hour twice and leave none out."""
    kit.register(clocked.conn)
    clocked.service.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    try:
        for day in changes:
            change = datetime.fromisoformat(f"{day}T00:00Z")
            clocked.advance(change + timedelta(days=3) - kit.value(clocked.conn, "SELECT streamvibe.now()"))
            ended = [change + n * timedelta(minutes=10) for n in range(-6 * 24 * 9, 6 * 24 * 3)]
            clocked.conn.execute(
                "INSERT INTO streamvibe.stat_delta (job_type, status, minute, jobs, waiting_us, processing_us)"
                " SELECT 'email', CASE WHEN extract(hour FROM a AT TIME ZONE 'UTC') = 3 THEN 'failed'"
                " ELSE 'completed' END, a, 1, 0, 0 FROM unnest(%s::timestamptz[]) a",
                [ended],
            )
            while kit.value(clocked.service, "SELECT compact_stats()"):
                pass
            for hours in range(-60, 60):
                since = change + timedelta(hours=hours, minutes=30)
                found = stats(clocked, p_since=since)["total_jobs"]
                assert found == sum(moment >= since for moment in ended), since
            now = kit.value(clocked.conn, "SELECT streamvibe.minute_of(streamvibe.now())")
            for name, length in zip(WINDOWS, (kit.HOUR, kit.DAY, 7 * kit.DAY), strict=True):
                late = [moment for moment in ended if moment >= now - length]
                rate = sum(moment.hour == 3 for moment in late) / len(late)
                assert stats(clocked)["error_rates"][name] == pytest.approx(rate)
    finally:
        clocked.service.execute("RESET TimeZone")


@pytest.mark.parametrize("compacted", [False, True])
def test_since(clocked: Queue, compacted: bool) -> None:
    """Only what ended since that minute counts, or was asked for since, when it has not ended."""
    conn = clocked.conn
    kit.register(conn)
    marks = []
    for minutes in (0, 17, 44, 60, 125, 1440, None, 17, 14, 60, 1348, 1, 3 * 1440 + 60):
        now = kit.value(conn, "SELECT streamvibe.now()")
        # None: until the day (UTC) begins.
        clocked.advance(
            kit.DAY
            - timedelta(hours=now.hour, minutes=now.minute, seconds=now.second, microseconds=now.microsecond)
            if minutes is None
            else minutes * kit.MINUTE
        )
        marks.append(kit.value(conn, "SELECT streamvibe.now()"))
        kit.worker(conn)
        for _ in range(4):
            kit.job_id(conn)
        jobs = kit.claim(conn, limit=3)
        kit.complete(conn, jobs[:1])
        kit.fail(conn, jobs[1:2], failure=kit.PERMANENT)
        kit.release(conn, jobs[2:])
        if compacted:
            kit.call(clocked.service, "compact_stats")
    every = all_jobs(conn)
    for mark in marks:
        since = mark.replace(second=0, microsecond=0)
        expected = count_by_hand(
            [job for job in every if (job["completed_at"] or job["created_at"]) >= since]
        )
        found = kit.call_one(clocked.service, "get_job_queue_stats", p_since=mark)
        assert {name: found[name] for name in expected} == expected
    now = marks[-1]
    windows = {}
    for name, length in zip(WINDOWS, (kit.HOUR, kit.DAY, 7 * kit.DAY), strict=True):
        since = (now - length).replace(second=0, microsecond=0)
        expected = count_by_hand(
            [job for job in every if job["completed_at"] and job["completed_at"] >= since]
        )
        windows[name] = pytest.approx(expected["error_rate"])
    assert stats(clocked)["error_rates"] == windows


@pytest.mark.parametrize("compacted", [False, "half", True])
def test_percentiles_are_within_one_percent(queue: Queue, compacted: bool | str) -> None:
    """Of durations from a microsecond to weeks, every percentile is within 1 % of the exact one, by type or of all."""
    conn = queue.conn
    kit.register(conn)
    kit.register(conn, "sms")
    chance = random.Random(4)
    waited = [max(1e-6, round(chance.lognormvariate(0, 5), 6)) for _ in range(3000)]
    processed = [max(1e-6, round(chance.lognormvariate(-4, 3), 6)) for _ in range(3000)]
    conn.execute(
        "INSERT INTO public.job_queue"
        " (id, created_at, user_id, job_type, status, scheduled_for, started_at, completed_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(clock_timestamp()) + n, n), clock_timestamp(),"
        " gen_random_uuid(), CASE WHEN p < 0.03 THEN 'sms' ELSE 'email' END, 'completed',"
        " streamvibe.now() - make_interval(secs => w), streamvibe.now(), streamvibe.now() + make_interval(secs => p)"
        " FROM unnest(%s::float[], %s::float[]) WITH ORDINALITY u(w, p, n)",
        [waited, processed],
    )
    wrong = kit.call(queue.service, "recount_stats")
    assert {row["job_type"]: row["jobs_before"] for row in wrong} == {"email": 0, "sms": 0}
    assert sum(row["jobs_now"] for row in wrong) == 3000
    notes = kit.value(conn, "SELECT count(*) FROM streamvibe.stat_delta")
    if compacted:
        kit.call(queue.service, "compact_stats", p_limit=notes // 2 if compacted == "half" else 10_000)
    left = kit.value(conn, "SELECT count(*) FROM streamvibe.stat_delta")
    assert left == {False: notes, "half": notes - notes // 2, True: 0}[compacted]
    assert notes >= 2
    jobs = all_jobs(conn)
    for job_type in (None, "email", "sms"):
        found = stats(queue, p_job_type=job_type)
        since = stats(queue, p_job_type=job_type, p_since=min(job["completed_at"] for job in jobs))
        for measure, of in (("wait", _waited), ("processing", _processed)):
            values = [of(job) for job in jobs if job_type in (None, job["job_type"])]
            assert len(values) > 1000
            for part in (50, 95, 99):
                exact = _percentile(values, part / 100)
                assert found[f"{measure}_p{part}_seconds"] == pytest.approx(exact, rel=0.01)
                assert since[f"{measure}_p{part}_seconds"] == found[f"{measure}_p{part}_seconds"]


def test_percentiles_of_nothing(queue: Queue) -> None:
    """Once the last completed job is deleted there is no duration any more, also where that is only noted yet."""
    note = (
        "INSERT INTO streamvibe.stat_delta"
        " (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)"
        " VALUES (7, 'email', 'completed', '2026-01-05 10:07+00', %s, 0, 0, '{5}', '{-7}')"
    )
    names = [f"{measure}_p{part}_seconds" for measure in ("wait", "processing") for part in (50, 95, 99)]
    queue.conn.execute(note, [1])
    kit.call(queue.service, "compact_stats")
    found = stats(queue)
    assert [found[name] for name in names] == [
        kit.value(queue.conn, "SELECT streamvibe.sketch_seconds(5::int2)")
    ] * 3 + [kit.value(queue.conn, "SELECT streamvibe.sketch_seconds((-7)::int2)")] * 3
    queue.conn.execute(note, [-1])
    for _ in range(2):
        found = stats(queue)
        assert [found[name] for name in names] == [None] * 6
        kit.call(queue.service, "compact_stats")


def test_few_of_the_durations_are_read(queue: Queue) -> None:
    """Of durations from a microsecond to a month, it reads those where percentiles are, not all buckets."""
    conn = queue.conn
    kit.register(conn)
    buckets = list(range(-690, 750))
    conn.execute(
        "INSERT INTO streamvibe.stat_delta"
        " (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)"
        " VALUES (7, 'email', 'completed', '2026-01-05 10:07+00', %s, 0, 0, %s, %s)",
        [len(buckets), buckets, buckets],
    )
    kit.call(queue.service, "compact_stats")
    conn.execute("ANALYZE streamvibe.stat_sketch")
    for arguments in ({}, {"p_job_type": "email"}):
        with nested_plans(conn) as found:
            answer = kit.call_one(conn, "get_job_queue_stats", **arguments)
        assert answer["wait_p50_seconds"] == kit.value(conn, "SELECT streamvibe.sketch_seconds(29::int2)")
        read = sum(
            node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
            for plan in found
            for node in nodes(plan)
            if node.get("Relation Name") == "stat_sketch"
        )
        assert 2 * 91 <= read <= 2 * (91 + 3 * 16)


def test_recounting_mends_what_was_changed_by_hand(queue: Queue) -> None:
    """After rows were deleted past the functions it names each wrong number, and from then on all are right."""
    history(queue)
    kit.call(queue.service, "compact_stats", p_limit=10)
    assert kit.call(queue.service, "recount_stats") == []
    queue.conn.execute(
        "DELETE FROM public.job_queue WHERE id IN (SELECT id FROM public.job_queue WHERE status = 'completed' LIMIT 3)"
    )
    wrong = kit.call(queue.service, "recount_stats")
    assert sum(row["jobs_before"] - row["jobs_now"] for row in wrong) == 3
    assert {row["status"] for row in wrong} == {"completed"}
    assert kit.call(queue.service, "recount_stats") == []
    found, expected = stats(queue), count_by_hand(all_jobs(queue.conn))
    assert {name: found[name] for name in expected} == expected


def test_recounting_mends_times(queue: Queue) -> None:
    """What was changed by hand of a job's times is said and mended, too."""
    history(queue)
    queue.conn.execute(
        "UPDATE public.job_queue SET started_at = started_at - interval '1 hour' WHERE status = 'completed'"
    )
    wrong = kit.call(queue.service, "recount_stats")
    assert {row["status"] for row in wrong} == {"completed"}
    assert all(row["jobs_before"] == row["jobs_now"] for row in wrong)
    assert kit.call(queue.service, "recount_stats") == []
    expected = count_by_hand(all_jobs(queue.conn))
    assert stats(queue)["avg_processing_seconds"] == expected["avg_processing_seconds"]


def test_an_id_given_twice_counts_once(queue: Queue) -> None:
    """A worker that names a job twice changes one row, and the numbers by one."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    for _ in range(4):
        kit.job_id(conn)
    jobs = kit.claim(conn, limit=4)
    kit.fail(conn, [jobs[0], jobs[0]], failure=kit.PERMANENT)
    kit.lease(conn, [jobs[1], jobs[1]])
    kit.complete(conn, [jobs[1], jobs[1]])
    kit.release(conn, [jobs[2], jobs[2]])
    found, expected = stats(queue), count_by_hand(all_jobs(conn))
    assert {name: found[name] for name in expected} == expected
    assert kit.call(queue.service, "recount_stats") == []


@pytest.mark.parametrize("many", [False, True])
def test_the_last_hour_of_a_leaf(clocked: Queue, many: bool) -> None:
    """What is asked for when the next leaf is about to begin is noted in the one that it is in."""
    conn = clocked.conn
    kit.register(conn)
    [leaf] = kit.query(
        conn,
        "SELECT leaf_number, upper_at FROM streamvibe.partition WHERE parent_name = 'job_queue'"
        " AND lower_at <= streamvibe.now() AND upper_at > streamvibe.now()",
    )
    clocked.advance(leaf["upper_at"] - kit.value(conn, "SELECT streamvibe.now()") - 10 * kit.MINUTE)
    if many:
        kit.call(conn, "create_jobs", p_jobs=Jsonb([{"user_id": str(uuid4()), "job_type": "email"}] * 3))
    else:
        kit.job_id(conn)
    noted = kit.query(conn, "SELECT DISTINCT leaf_number FROM streamvibe.stat_delta")
    assert noted == [{"leaf_number": leaf["leaf_number"]}]


def test_zeroes_of_one_leaf(queue: Queue) -> None:
    """Where jobs of one leaf moved on, another's sums of the same type, status and minute stay."""
    conn = queue.conn
    note = (
        "INSERT INTO streamvibe.stat_delta"
        " (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)"
        " SELECT u.leaf, 'email', 'completed', '2026-01-05 10:07+00', u.jobs, 0, 0, '{5}', '{7}'"
        " FROM unnest(%s::int[], %s::int[]) u(leaf, jobs)"
    )
    conn.execute(note, [[7, 8], [1, 1]])
    kit.call(queue.service, "compact_stats")
    conn.execute(note, [[7], [-1]])
    kit.call(queue.service, "compact_stats")
    sums = "SELECT leaf_number, minutes FROM streamvibe.{} WHERE jobs = 1 ORDER BY 2, 1"
    for table, levels, times in (
        ("stat", (-1, 0, 1, 10, 60, 1440), 1),
        ("stat_sketch", (-2, -2, -1, -1, 0, 0, 60), 2),
    ):
        found = conn.execute(sums.format(table).encode()).fetchall()
        # Of all leaves together, or of one.
        assert found == [(0 if level in (0, -2) else 8, level) for level in levels for _ in range(times)]
        assert kit.value(conn, f"SELECT count(*) FROM streamvibe.{table}") == len(found)


def test_handing_back_unleased_jobs_notes_nothing(queue: Queue) -> None:
    """A job whose row is not written changes no number."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    kit.job_id(queue.conn)
    notes = "SELECT count(*) FROM streamvibe.stat_delta"
    before = kit.value(queue.conn, notes)
    kit.release(queue.conn, kit.claim(queue.conn))
    assert kit.value(queue.conn, notes) == before


def test_reads_no_jobs(queue: Queue) -> None:
    """However many jobs there are, it reads the sums, and of job_queue the jobs that workers hold, by their ids."""
    conn = queue.conn
    history(queue)
    plan = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM streamvibe.stat_since(NULL)"
    conn.execute(
        "INSERT INTO public.job_queue (id, created_at, user_id, job_type, status, completed_at, started_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(clock_timestamp()) + n, n), clock_timestamp(),"
        " gen_random_uuid(), 'email', 'completed', streamvibe.now(), streamvibe.now() FROM generate_series(1, 20000) n"
    )
    kit.call(queue.service, "recount_stats")
    kit.call(queue.service, "compact_stats")
    [row] = kit.query(conn, plan)
    node = row["QUERY PLAN"][0]["Plan"]
    assert "job_queue" not in json.dumps(node)
    assert node["Actual Rows"] <= 2 * len(STATES)
    scans = (
        "SELECT coalesce(sum(seq_scan), 0) AS whole, coalesce(sum(idx_scan), 0) AS looks"
        " FROM pg_stat_xact_all_tables WHERE relname LIKE 'job_queue%'"
    )
    held = kit.value(conn, "SELECT count(DISTINCT i) FROM streamvibe.live_claims() c, unnest(c.job_ids) i")
    with conn.transaction():
        # Not 0: what the session did before is counted there until it has been reported, once a second at most.
        [before] = kit.query(conn, scans)
        kit.call(conn, "get_job_queue_stats")
        [after] = kit.query(conn, scans)
    assert after["whole"] == before["whole"]
    assert after["looks"] - before["looks"] == held > 0


@pytest.mark.parametrize(
    ("arguments", "code", "field"),
    [
        ({"p_since": "infinity"}, "SV001", "p_since"),
        ({"p_since": "-infinity"}, "SV001", "p_since"),
        ({"p_since": "294276-12-31 23:59+00"}, "SV001", "p_since"),
        ({"p_job_type": "emial"}, "SV002", "p_job_type"),
    ],
)
def test_bad_arguments(queue: Queue, arguments: kit.Row, code: str, field: str) -> None:
    """A moment that is none and a type that nobody registered are refused by name."""
    kit.register(queue.conn)
    with kit.refused(code, field):
        stats(queue, **arguments)


def test_compacting_waits_for_nobody(queue: Queue) -> None:
    """While another session adds up, it returns 0; of what is not committed yet it takes nothing."""
    kit.register(queue.conn)
    kit.job_id(queue.conn)
    with queue.database.connect() as other, other.transaction():
        kit.job_id(other)
        assert kit.value(queue.service, "SELECT compact_stats()") == 1
    with queue.database.connect() as other, other.transaction():
        # What a vacuum locks.
        other.execute("LOCK TABLE streamvibe.stat, streamvibe.stat_delta IN SHARE UPDATE EXCLUSIVE MODE")
        kit.job_id(other)
        kit.job_id(queue.conn)
        assert kit.value(queue.service, "SELECT compact_stats()") > 0
    with queue.database.connect() as other, other.transaction():
        kit.call(other, "compact_stats")
        assert kit.value(queue.service, "SELECT compact_stats()") == 0
    assert stats(queue)["pending_jobs"] == 4
    for limit in (None, 0, 10001):
        with kit.refused("SV001", "p_limit"):
            kit.call(queue.service, "compact_stats", p_limit=limit)


def test_minutes(queue: Queue) -> None:
    """A minute begins with second 0."""
    at = datetime(2026, 2, 3, 4, 5, 59, 999999, UTC)
    assert kit.value(queue.conn, "SELECT streamvibe.minute_of(%s)", at) == at.replace(second=0, microsecond=0)
