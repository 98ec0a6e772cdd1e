"""make_report, get_reports: what a period's report says is what happened in it, once, also after the jobs have left."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.waiting import wait_until

WEEK = 7 * kit.DAY


def installed_now(queue: Queue) -> None:
    """No day has ended since the schema came: the template of these databases may have been made before midnight."""
    queue.conn.execute("UPDATE streamvibe.schema_migration SET applied_at = streamvibe.now()")


def to_monday(queue: Queue, *, hours: float = 1) -> datetime:
    """Move the clock to so many hours after the next Monday's begin; returns that begin."""
    monday: datetime = kit.value(
        queue.conn, "SELECT date_trunc('week', streamvibe.now() + interval '7 days', 'UTC')"
    )
    queue.advance(monday + hours * kit.HOUR - kit.value(queue.conn, "SELECT streamvibe.now()"))
    return monday


def ended(queue: Queue, how: str, count: int = 1, job_type: str = "email", **failure: Any) -> list[UUID]:
    """Jobs that ended now, each of a new user."""
    if not count:
        return []
    kit.worker(queue.conn, p_lease="1 hour", p_job_types=[job_type])
    jobs = [kit.job_id(queue.conn, uuid4(), job_type) for _ in range(count)]
    if how == "cancelled":
        for job_id in jobs:
            user_id = kit.stored(queue.conn, job_id)["user_id"]
            kit.call(queue.conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[job_id])
        return jobs
    claimed = kit.claim(queue.conn, limit=count)
    assert len(claimed) == count
    if how == "failed":
        kit.fail(queue.conn, claimed, failure={**kit.PERMANENT, **failure})
    else:
        kit.complete(queue.conn, claimed)
    return jobs


def make(queue: Queue, kind: str) -> bool:
    made: bool = kit.call_one(queue.service, "make_report", p_kind=kind)["make_report"]
    return made


def latest(queue: Queue, kind: str = "weekly") -> kit.Row:
    return kit.call_one(queue.service, "get_reports", p_kind=kind)


def named(lines: Sequence[kit.Row], key: str, name: str) -> kit.Row:
    [line] = [line for line in lines if line[key] == name]
    return line


def test_a_week_is_what_happened_in_it(clocked: Queue) -> None:
    """Counts, error rates, percentiles and failures of every type are those of a brute-force count of the week."""
    for name in ("email", "sync"):
        kit.register(clocked.conn, name, p_retention="10 days")
    to_monday(clocked, hours=-1)
    ended(clocked, "completed", 3)  # of the week before
    monday = kit.value(
        clocked.conn, "SELECT date_trunc('week', streamvibe.now() + interval '2 hours', 'UTC')"
    )
    clocked.advance(2 * kit.HOUR)
    for day, (mails, bad, slow) in enumerate([(4, 1, 0), (0, 0, 2), (3, 2, 5)]):
        ended(clocked, "completed", mails)
        ended(clocked, "failed", bad, kind="permanent")
        jobs = [kit.job_id(clocked.conn, uuid4(), "sync") for _ in range(slow)]
        kit.worker(clocked.conn, p_lease="1 day", p_job_types=["sync"])
        claimed = kit.claim(clocked.conn, limit=10)
        assert len(claimed) == len(jobs)
        clocked.advance(timedelta(seconds=10 + 50 * day))
        if claimed:
            kit.complete(clocked.conn, claimed)
        if day == 1:
            ended(clocked, "cancelled", 2)
            kit.call(clocked.service, "compact_stats")
        clocked.advance(kit.DAY)
    clocked.advance(monday + WEEK + kit.MINUTE - kit.value(clocked.conn, "SELECT streamvibe.now()"))
    ended(clocked, "failed", 4, kind="permanent")  # of the week after
    assert make(clocked, "weekly")
    report = latest(clocked)
    assert (report["kind"], report["period_start"], report["period_end"]) == ("weekly", monday, monday + WEEK)
    said = report["content"]
    assert (said["days"], said["in_part"], said["compared_with"], said["jobs"]["before"]) == (
        7,
        [],
        None,
        None,
    )
    brute = (
        "SELECT job_type, count(*) FILTER (WHERE status = 'completed') AS completed,"
        " count(*) FILTER (WHERE status = 'failed') AS failed,"
        " count(*) FILTER (WHERE status = 'cancelled') AS cancelled,"
        " percentile_disc(ARRAY[0.5, 0.95])"
        "  WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - started_at)::float)"
        "  FILTER (WHERE status = 'completed') AS processing,"
        " avg(extract(epoch FROM completed_at - started_at)::float) FILTER (WHERE status = 'completed') AS mean"
        " FROM job_queue WHERE completed_at >= %s AND completed_at < %s GROUP BY GROUPING SETS ((job_type), ())"
    )
    rows = kit.query(clocked.conn, brute, monday, monday + WEEK)
    assert len(rows) == 3
    for row in rows:
        line = (
            said["jobs"] if row["job_type"] is None else named(said["job_types"], "job_type", row["job_type"])
        )
        assert [line[name] for name in ("completed", "failed", "cancelled")] == [
            row[name] for name in ("completed", "failed", "cancelled")
        ]
        assert line["error_rate"] == pytest.approx(row["failed"] / (row["completed"] + row["failed"]))
        assert line["avg_processing_seconds"] == pytest.approx(row["mean"], abs=1e-5)
        for name, exact in zip(("p50", "p95"), row["processing"], strict=True):
            assert line[f"processing_{name}_seconds"] == pytest.approx(exact, rel=0.011)
    assert said["job_types"][0]["job_type"] == "email", "the one that fails most stands first"
    assert said["errors"] == [{"job_type": "email", "failure_kind": "permanent", "jobs": 3, "before": None}]
    assert said["queue"] == {
        "pending": 0,
        "processing": 0,
        "jobs": kit.value(clocked.conn, "SELECT count(*) FROM job_queue"),
    }


def test_one_report_a_period(clocked: Queue) -> None:
    """Made once; the next week's stands beside it, compared with it; of a time before the schema was there is none."""
    installed_now(clocked)
    kit.register(clocked.conn)
    assert [make(clocked, kind) for kind in ("daily", "weekly", "monthly")] == [False] * 3
    to_monday(clocked)
    assert [make(clocked, "weekly") for _ in range(2)] == [True, False]
    ended(clocked, "completed", 5)
    ended(clocked, "failed", 1, kind="timeout")
    clocked.advance(WEEK)
    assert [make(clocked, "weekly") for _ in range(2)] == [True, False]
    clocked.advance(WEEK)
    ended(clocked, "completed", 2)
    clocked.advance(-kit.MINUTE)
    assert make(clocked, "weekly")
    newest, middle, oldest = kit.call(clocked.service, "get_reports", p_kind="weekly", p_limit=10)
    assert newest["period_start"] - WEEK == middle["period_start"] == oldest["period_start"] + WEEK
    assert newest["content"]["compared_with"] is not None
    for report, completed, before in ((middle, 5, 0), (newest, 0, 5)):
        jobs = report["content"]["jobs"]
        assert (jobs["completed"], jobs["before"]["completed"]) == (completed, before)
        assert "before" not in jobs["before"]
    [error] = middle["content"]["errors"]
    assert (error["failure_kind"], error["jobs"]) == ("timeout", 1)


def test_figures_stay_when_jobs_leave(clocked: Queue) -> None:
    """A month is added up from its days: what was deleted meanwhile is in it, a day nobody looked at is made up for."""
    kit.register(clocked.conn, p_retention="3 days")
    kit.register(clocked.conn, "short", p_retention="1 hour")
    first: datetime = kit.value(
        clocked.conn, "SELECT date_trunc('month', streamvibe.now() + interval '1 month', 'UTC')"
    )
    clocked.advance(first + 2 * kit.HOUR - kit.value(clocked.conn, "SELECT streamvibe.now()"))
    kit.call(clocked.service, "ensure_partitions", p_ahead="9 weeks")
    days = kit.value(
        clocked.conn, "SELECT extract(day FROM %s::timestamptz + interval '1 month - 1 day')::int", first
    )
    for day in range(days):
        jobs = ended(clocked, "completed", 2) if day != 5 else []
        clocked.advance(kit.DAY)
        if day != 7:
            assert make(clocked, "daily"), "the day before was missing"
        if jobs and day < 4:
            clocked.conn.execute("SELECT streamvibe.delete_jobs(%s)", [jobs])
    assert make(clocked, "monthly")
    said = latest(clocked, "monthly")["content"]
    assert (said["days"], said["jobs"]["completed"]) == (days, 2 * (days - 1))
    assert said["in_part"] == ["short"]
    assert kit.value(clocked.conn, "SELECT count(*) FROM streamvibe.report WHERE kind = 'daily'") >= days


def test_two_at_once_make_one(clocked: Queue) -> None:
    """While one session makes it another waits for it, and makes none."""
    to_monday(clocked)
    answers: list[bool] = []
    with clocked.database.as_service(autocommit=False) as first, clocked.database.as_service() as second:
        first_made = kit.call_one(first, "make_report", p_kind="weekly")["make_report"]

        def other() -> None:
            answers.append(kit.call_one(second, "make_report", p_kind="weekly")["make_report"])

        thread = threading.Thread(target=other)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        wait_until(lambda: kit.value(clocked.conn, waiting, second.info.backend_pid), "the second waits")
        first.commit()
        thread.join()
    assert (first_made, answers) == (True, [False])
    assert kit.value(clocked.conn, "SELECT count(*) FROM streamvibe.report WHERE kind = 'weekly'") == 1


def test_the_state_of_tables_and_indexes(clocked: Queue) -> None:
    """Sizes, growth, scans since the report before, partitions, alerts and duties that failed."""
    kit.register(clocked.conn)
    to_monday(clocked)
    make(clocked, "weekly")
    user_id = uuid4()
    jobs = [kit.job_id(clocked.conn, user_id) for _ in range(7)]
    scans = "SELECT scans FROM get_index_usage() WHERE index_name = 'idx_job_queue_user_status_created'"
    before = kit.value(clocked.conn, scans)
    for _ in range(3):
        kit.call(clocked.conn, "get_user_jobs", p_user_id=user_id)
    clocked.conn.execute("SELECT pg_stat_force_next_flush()")
    assert kit.value(clocked.conn, scans) > before
    clocked.conn.execute(
        "INSERT INTO streamvibe.duty_run (duty, fence, leader_id, started_at, ended_at, error)"
        " SELECT 'mend', 1, 'host', streamvibe.now(), streamvibe.now(), e FROM unnest('{first,last}'::text[]) e"
    )
    clocked.advance(WEEK)
    make(clocked, "weekly")
    said = latest(clocked)["content"]
    health = named(kit.call(clocked.service, "get_table_health"), "table_name", "job_queue")
    queue = named(said["tables"], "table_name", "job_queue")
    assert queue["verdict"] == "ok" and queue["advice"] is None
    assert queue["size_bytes"] == health["size_bytes"] and queue["live_rows"] == health["live_rows"]
    assert queue["before"]["table_name"] == "job_queue" and "before" not in queue["before"]
    used = named(said["indexes"], "index_name", "idx_job_queue_user_status_created")
    assert used["scans"] > 0 and used["scans_total"] == kit.value(clocked.conn, scans)
    assert used["bloat_bytes"] is not None and used["size_bytes_before"] is not None
    growth = said["growth"]
    assert (growth["jobs"], growth["before"]["jobs"]) == (len(jobs), 0)
    assert growth["jobs_per_day"] == pytest.approx(1, rel=0.01)
    assert growth["days_until_10m_jobs"] == pytest.approx(9_999_993, rel=0.01)
    assert growth["database_bytes"] > 0 and growth["database_bytes_per_day"] is not None
    leaves = kit.query(
        clocked.conn, "SELECT parent_name, count(*) AS leaves FROM streamvibe.partition GROUP BY 1"
    )
    assert {line["parent_name"]: line["leaves"] for line in said["partitions"]} == {
        row["parent_name"]: row["leaves"] for row in leaves
    }
    assert said["duties"] == [{"duty": "mend", "failures": 2, "last_error": "last"}]
    assert said["queue"] == {"pending": 7, "processing": 0, "jobs": 7}
    assert "pg_stat_statements" in said["statements"]["problem"]
    assert said["statements"]["items"] == []


def test_what_is_wrong_with_a_table_has_advice(clocked: Queue) -> None:
    """A table that is mostly dead rows stands first, and the report names the command."""
    to_monday(clocked)
    # What other tests left behind is not worse.
    clocked.conn.execute("VACUUM (ANALYZE)")
    clocked.conn.execute("ALTER TABLE streamvibe.account SET (autovacuum_enabled = off)")
    clocked.conn.execute(
        "INSERT INTO streamvibe.account (user_id) SELECT gen_random_uuid() FROM generate_series(1, 60000)"
    )
    clocked.conn.execute("DELETE FROM streamvibe.account WHERE uuid_hash(user_id) % 32 <> 1")
    clocked.conn.execute("SELECT pg_stat_force_next_flush()")
    make(clocked, "weekly")
    first = latest(clocked)["content"]["tables"][0]
    assert (first["table_name"], first["verdict"]) == ("account", "bloated")
    assert "VACUUM FULL streamvibe.account" in first["advice"] and "locks everybody out" in first["advice"]
    clocked.conn.execute("ALTER TABLE streamvibe.account RESET (autovacuum_enabled)")


def test_scans_are_unknown_after_a_reset(clocked: Queue) -> None:
    """Statistics that began anew say nothing of the period; neither does the first report."""
    to_monday(clocked)
    make(clocked, "weekly")
    first = latest(clocked)["content"]
    assert {line["scans"] for line in first["indexes"]} == {None}
    clocked.conn.execute("SELECT pg_stat_reset()")
    clocked.advance(WEEK)
    make(clocked, "weekly")
    said = latest(clocked)["content"]
    assert {line["scans"] for line in said["indexes"]} == {None}
    assert {line["scans_total"] for line in said["indexes"]} != {None}


def test_reports_are_kept_for_their_time(clocked: Queue) -> None:
    """Days for 100 days, weeks for 2 years, months for 10; the others go when the next report is made."""
    installed_now(clocked)
    clocked.conn.execute(
        "INSERT INTO streamvibe.report SELECT k.kind, streamvibe.now() - k.age - interval '1 day',"
        " streamvibe.now() - k.age, streamvibe.now(), '{}'"
        " FROM (VALUES ('daily', interval '101 days'), ('daily', '99 days'), ('weekly', '731 days'),"
        " ('weekly', '729 days'), ('monthly', '3654 days'), ('monthly', '3650 days')) k(kind, age)"
    )
    make(clocked, "weekly")
    kept = "SELECT kind, round(extract(epoch FROM streamvibe.now() - period_end) / 86400)::int AS age"
    kept += " FROM streamvibe.report"
    found = {(row["kind"], row["age"]) for row in kit.query(clocked.conn, kept)}
    assert found == {("daily", 99), ("weekly", 729), ("monthly", 3650)}


def test_figures_of_a_day_read_that_day(clocked: Queue) -> None:
    """The failures of a day are found by their index, however many other jobs there are."""
    leaf = kit.value(
        clocked.conn,
        "SELECT partition_name FROM streamvibe.partition WHERE parent_name = 'job_queue' ORDER BY lower_at LIMIT 1",
    )
    clocked.conn.execute(
        f"INSERT INTO streamvibe.{leaf} (id, created_at, user_id, job_type, status, started_at, completed_at)"
        " SELECT streamvibe.make_id(streamvibe.microseconds(p.lower_at) + n, n), p.lower_at, gen_random_uuid(),"
        " 'email', CASE WHEN n % 2 = 0 THEN 'completed' ELSE 'failed' END, p.lower_at,"
        " p.lower_at - n * interval '1 minute'"
        f" FROM streamvibe.partition p, generate_series(1, 20000) n WHERE p.partition_name = '{leaf}'".encode()
    )
    clocked.conn.execute(f"ANALYZE streamvibe.{leaf}".encode())
    read = (
        "SELECT i.n + t.seq_tup_read FROM pg_stat_user_tables t,"
        f" (SELECT sum(idx_tup_read) AS n FROM pg_stat_user_indexes WHERE relname = '{leaf}') i"
        f" WHERE t.relname = '{leaf}'"
    )
    with clocked.database.connect() as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        before = kit.value(clocked.conn, read)
        day = "SELECT date_trunc('day', (SELECT min(lower_at) FROM streamvibe.partition) - interval '2 days', 'UTC')"
        figures = kit.value(conn, f"SELECT streamvibe.day_figures(({day}))")
        assert sum(line["jobs"] for line in figures["errors"]) == 720
        conn.execute("SELECT pg_stat_force_next_flush()")
        assert kit.value(clocked.conn, read) - before <= 2000


@pytest.mark.parametrize("function", ["make_report", "get_reports"])
@pytest.mark.parametrize("kind", ["yearly", "", None])
def test_unknown_kinds(queue: Queue, function: str, kind: str | None) -> None:
    """Refused by name."""
    with kit.refused("SV001", "p_kind", "NULL" if kind is None else kind):
        kit.call(queue.service, function, p_kind=kind)


@pytest.mark.parametrize("limit", [0, 1001, None])
def test_limits(queue: Queue, limit: int | None) -> None:
    """1 to 1000 reports."""
    with kit.refused("SV001", "p_limit"):
        kit.call(queue.service, "get_reports", p_limit=limit)
