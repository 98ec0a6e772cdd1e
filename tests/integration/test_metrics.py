"""/metrics and `stats --prometheus`: what Prometheus is told of a real queue, and what when there is none."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from tests.sql import kit
from tests.support.cli import command, environment, streamvibe
from tests.support.databases import Database, temporary_roles
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.unit.test_deploy import OF_PROCESSES, known

from streamvibe.cli.metrics import next_turn
from streamvibe.db.migrate import migrate
from streamvibe.db.migrate_files import SQL_ROOT
from streamvibe.errors import ConfigurationError, DatabaseUnreachable, NotAllowed
from streamvibe.monitoring.metrics import QueueCollector, Source

#: More than anything here takes; what must not be waited for is never there.
PATIENT = 60.0
Samples = dict[tuple[str, ...], float]


ALL_HAVE_RUN = """
SELECT count(*) > 5 AND bool_and(last_ended_at IS NOT NULL)
       AND NOT EXISTS (SELECT 1 FROM streamvibe.stat_delta UNION ALL SELECT 1 FROM streamvibe.counter_note)
FROM streamvibe.duty
"""


def samples(text: str) -> Samples:
    """Every sample by name and the values of its labels, in the order of their names."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} has no help text"
        assert family.type != "unknown"
        for sample in family.samples:
            key = (sample.name, *(sample.labels[name] for name in sorted(sample.labels)))
            assert key not in found
            found[key] = sample.value
    return found


def collected(collector: QueueCollector) -> Samples:
    """One scrape."""
    registry = CollectorRegistry()
    registry.register(collector)
    return samples(generate_latest(registry).decode())


@contextlib.contextmanager
def collecting(dsn: str, patience_seconds: float = PATIENT) -> Iterator[QueueCollector]:
    """A collector whose connection is closed after the block."""
    collector = QueueCollector(dsn, next_turn, patience_seconds=patience_seconds)
    with contextlib.closing(collector):
        yield collector


def scraped(url: str, path: str = "/metrics") -> Samples:
    """One scrape by HTTP."""
    with urllib.request.urlopen(url.removesuffix("/metrics") + path, timeout=PATIENT) as answer:
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
        return samples(answer.read().decode())


@contextlib.contextmanager
def serving(dsn: str, folder: Path, *arguments: str, **env: str) -> Iterator[str]:
    """The address of the metrics of a command that runs as long as the block; Ctrl-C ends it with 0."""
    output = folder / "output"
    with (
        output.open("w") as file,
        subprocess.Popen(
            command(*arguments),
            env=environment(dsn, PYTHONUNBUFFERED="1", **env),
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            found = wait_until(
                lambda: re.search(r"Metrics: (\S+)", output.read_text()) or process.poll(),
                "metrics are served",
            )
            assert isinstance(found, re.Match), output.read_text()
            yield found[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENT) == 0, output.read_text()
        finally:
            process.kill()


def fill(conn: Connection[Any]) -> None:
    """Jobs in every state, of two types."""
    for name in ("email", "sms"):
        kit.register(conn, name)
    kit.worker(conn, p_lease="1 hour")
    for n in range(30):
        kit.job_id(conn, job_type=("email", "sms")[n % 3 == 0])
    jobs = kit.claim(conn, limit=20)
    kit.complete(conn, jobs[:9])
    kit.fail(conn, jobs[9:12], failure=kit.PERMANENT)
    kit.lease(conn, jobs[12:15])
    kit.call(conn, "cancel_jobs", p_user_id=jobs[12]["user_id"], p_job_ids=[jobs[12]["job_id"]])
    user_id = uuid4()
    for _ in range(3):
        kit.request(conn, user_id, p_params={"n": 1})
    kit.worker(conn, "w2")
    kit.claim(conn, "w2", limit=2)
    kit.kill_worker(conn, "w2")
    kit.call(conn, "recover_stuck_jobs")


def check(found: Samples, conn: Connection[Any]) -> None:
    """What Prometheus gets is what the tables hold, counted by hand."""
    rows = kit.query(conn, "SELECT job_type, status, count(*) AS n FROM streamvibe.job GROUP BY 1, 2")
    counted = {(row["job_type"], row["status"]): row["n"] for row in rows}
    assert {
        key[1:]: value for key, value in found.items() if key[0] == "streamvibe_jobs" and value
    } == counted
    ended = {key: n for key, n in counted.items() if key[1] not in ("pending", "processing")}
    name = "streamvibe_jobs_ended_total"
    assert {key[1:]: value for key, value in found.items() if key[0] == name and value} == ended
    for row in kit.query(conn, "SELECT job_type, count(*) AS n FROM job_queue GROUP BY 1"):
        assert found["streamvibe_jobs_created_total", row["job_type"]] == row["n"]
    for name, duration in (
        ("streamvibe_job_waiting_seconds", "started_at - scheduled_for"),
        ("streamvibe_job_processing_seconds", "completed_at - started_at"),
    ):
        by_hand = (
            f"SELECT job_type, count(*) AS n, sum(extract(epoch FROM {duration}))::float8 AS total,"
            f" max(extract(epoch FROM {duration}))::float8 AS longest"
            " FROM job_queue WHERE status = 'completed' GROUP BY 1"
        )
        rows = kit.query(conn, by_hand)
        assert len(rows) == 2
        for row in rows:
            job_type = row["job_type"]
            assert found[f"{name}_count", job_type] == found[f"{name}_bucket", job_type, "+Inf"] == row["n"]
            assert found[f"{name}_sum", job_type] == pytest.approx(row["total"], abs=1e-4)
            buckets = {
                float(key[2]): value
                for key, value in found.items()
                if key[:2] == (f"{name}_bucket", job_type)
            }
            assert list(buckets.values()) == sorted(buckets.values())
            assert all(value == row["n"] for bound, value in buckets.items() if bound > row["longest"] * 1.02)
    assert found["streamvibe_job_failures_total", "email", "permanent"] + found.get(
        ("streamvibe_job_failures_total", "sms", "permanent"), 0
    ) == counted.get(("email", "failed"), 0) + counted.get(("sms", "failed"), 0)
    assert found["streamvibe_requests_deduplicated_total", "email", "joined"] == 2
    assert found["streamvibe_workers", "alive"] >= 1


def test_a_scrape_says_what_the_tables_hold(database: Database, tmp_path: Path) -> None:
    """By HTTP from `maintain run`, read with Prometheus' own parser: equal to counts by hand."""
    conn = database.connect()
    fill(conn)
    with serving(database.dsn, tmp_path, "maintain", "run", "--metrics-port", "0") as url:
        wait_until(lambda: kit.value(conn, ALL_HAVE_RUN), "maintenance has done everything once")
        found = scraped(url)
        assert url.startswith("http://127.0.0.1:") and found["streamvibe_up",] == 1
        check(found, conn)
        assert found["streamvibe_maintenance_leader",] == 1
        assert found["streamvibe_duty_lateness_seconds", "drop_old_partitions"] == 0
        assert found["process_start_time_seconds",] > 0
        # Nothing that alerts and dashboard may name is missing, nor is anything else there.
        assert {
            key[0] for key in found if key[0].startswith("streamvibe_")
        } == known().keys() - OF_PROCESSES.keys()
        # An answer may be asked to have one metric only.
        assert {key[0] for key in scraped(url, "/metrics?name[]=streamvibe_jobs")} == {"streamvibe_jobs"}


def test_a_queue_that_is_older_than_its_counters(database: Database) -> None:
    """An upgrade begins with what the queue holds, noted or added up, and goes on from there."""
    conn = database.connect()
    fill(conn)
    while kit.value(conn, "SELECT compact_stats()"):
        pass
    kit.complete(conn, kit.claim(conn, limit=2))
    conn.execute(
        "DROP VIEW streamvibe.counter_now; DROP TABLE streamvibe.counter, streamvibe.counter_note;"
        " DROP FUNCTION streamvibe.counts_of, streamvibe.histogram_bound, streamvibe.histogram_bounds;"
        " ALTER TABLE public.job_queue DROP COLUMN traceparent CASCADE;"
        " UPDATE streamvibe.schema_migration SET checksum = 'another' WHERE kind = 'function'"
    )
    conn.execute((SQL_ROOT / "migrations" / "0015_metrics.sql").read_bytes())
    migrate(database.dsn)
    found = samples(streamvibe(database.dsn, "stats", "--prometheus").out)
    ended = (
        "SELECT job_type, status, count(*) AS n FROM job_queue WHERE completed_at IS NOT NULL GROUP BY 1, 2"
    )
    rows = kit.query(conn, ended)
    name = "streamvibe_jobs_ended_total"
    assert {key[1:]: value for key, value in found.items() if key[0] == name and value} == {
        (row["job_type"], row["status"]): row["n"] for row in rows
    }
    for row in rows:
        if row["status"] == "completed":
            assert found["streamvibe_job_processing_seconds_count", row["job_type"]] == row["n"]
    [job] = kit.claim(conn)
    kit.complete(conn, [job])
    found = samples(streamvibe(database.dsn, "stats", "--prometheus").out)
    completed = sum(
        row["n"] for row in rows if (row["job_type"], row["status"]) == (job["job_type"], "completed")
    )
    assert found[name, job["job_type"], "completed"] == completed + 1


def test_the_command_prints_the_same(database: Database) -> None:
    """`stats --prometheus` has every metric of the queue."""
    conn = database.connect()
    fill(conn)
    ran = streamvibe(database.dsn, "stats", "--prometheus")
    assert (ran.status, ran.err) == (0, "")
    found = samples(ran.out)
    check(found, conn)
    with collecting(database.dsn) as collector:
        served = collected(collector)
    assert {key[0] for key in served} - {"streamvibe_up"} == {key[0] for key in found}


@pytest.mark.parametrize(
    "option", [["--json"], ["--type", "email"], ["--since", "2030-01-01Z"], ["--recount"], ["--slow"]]
)
def test_options_that_do_not_go_with_it(database18: Database, option: list[str]) -> None:
    """Refused by name."""
    ran = streamvibe(database18.dsn, "stats", "--prometheus", *option)
    assert ran.status == 2 and option[0] in ran.err and not ran.out


def test_a_worker_serves_its_own_numbers_too(database18: Database, tmp_path: Path) -> None:
    """`up` and `worker`, at the address of the settings: handlers that run, beside the queue's."""
    with serving(database18.dsn, tmp_path, "up", STREAMVIBE_METRICS_ADDRESS="[::1]:0") as url:
        assert url.startswith("http://[::1]:")
        found = scraped(url)
        assert found["streamvibe_worker_handlers_running",] == 0
        assert found["streamvibe_jobs", "sync_youtube", "pending"] == 0
    with serving(database18.dsn, tmp_path, "worker", "--metrics-port", "0") as url:
        assert ("streamvibe_worker_handlers_running",) in scraped(url)


def test_an_address_that_is_taken(database18: Database, tmp_path: Path) -> None:
    """Named, with the option or setting that said so; nothing runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        by_option = streamvibe(database18.dsn, "maintain", "run", "--metrics-port", port)
        address = f"127.0.0.1:{port}"
        by_setting = streamvibe(database18.dsn, "maintain", "run", STREAMVIBE_METRICS_ADDRESS=address)
    assert by_option.status == by_setting.status == 2
    assert f"for --metrics-port: {address}" in by_option.err
    assert f"for STREAMVIBE_METRICS_ADDRESS: {address}" in by_setting.err
    assert kit.query(database18.connect(), "SELECT 1 FROM streamvibe.duty") == []


@pytest.mark.parametrize("address", ["somewhere", "127.0.0.1:", "1.2.3.4:70000", "http://a:1", "::1:80"])
def test_an_address_that_is_none(database18: Database, address: str) -> None:
    """Refused with the value and what to write."""
    ran = streamvibe(database18.dsn, "maintain", "run", STREAMVIBE_METRICS_ADDRESS=address)
    assert ran.status == 2 and address in ran.err and "such as 0.0.0.0:9187" in ran.err


def test_nothing_listens_unless_asked_for(database18: Database) -> None:
    """Off by default; settings with only a port mean this machine alone."""
    from streamvibe.config import Address, Settings

    assert Settings(database_url=database18.dsn).metrics_address is None
    assert Settings(metrics_address="9187").metrics_address == Address("127.0.0.1", 9187)
    assert str(Settings(metrics_address="[::]:9187").metrics_address) == "[::]:9187"


def test_only_the_service_reads_them(pg18: Server, database18: Database) -> None:
    """A role without the right gets an error from the command, and from the endpoint no number but up 0."""
    with temporary_roles(pg18, "visitor"):
        dsn = make_conninfo(database18.dsn, user="visitor")
        ran = streamvibe(dsn, "stats", "--prometheus")
        assert ran.status == 1 and not ran.out
        with collecting(dsn) as collector:
            assert collected(collector) == {("streamvibe_up",): 0}
        source = Source(dsn)
        with contextlib.closing(source), pytest.raises(NotAllowed):
            source.read()


def test_no_database(database18: Database) -> None:
    """Nobody listens: up 0, and the command ends with 3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dsn = f"postgresql://nobody@127.0.0.1:{free.getsockname()[1]}/none"
        with collecting(dsn) as collector:
            assert collected(collector) == {("streamvibe_up",): 0}
        assert streamvibe(dsn, "stats", "--prometheus").status == 3
        source = Source(dsn)
        with contextlib.closing(source), pytest.raises(DatabaseUnreachable):
            source.read()


def metrics_backends(conn: Connection[Any]) -> list[int]:
    """The server's processes for the metrics' connections."""
    rows = kit.query(conn, "SELECT pid FROM pg_stat_activity WHERE application_name = 'streamvibe metrics'")
    return [row["pid"] for row in rows]


def test_a_server_that_does_not_answer(database18: Database) -> None:
    """Frozen in the middle, as a machine that is gone: every scrape ends, none opens another connection, and the first
    after it goes on has the numbers again.
    """
    conn = database18.connect()
    kit.register(conn)
    with collecting(database18.dsn, patience_seconds=0.2) as collector:
        wait_until(lambda: collected(collector)["streamvibe_up",] == 1, "it was read")
        [backend] = metrics_backends(conn)
        os.kill(backend, signal.SIGSTOP)
        try:
            found: list[Samples] = []
            scrapes = [threading.Thread(target=lambda: found.append(collected(collector))) for _ in range(5)]
            for scrape in scrapes:
                scrape.start()
            for scrape in scrapes:
                scrape.join()
            assert found == [{("streamvibe_up",): 0}] * 5
            assert metrics_backends(conn) == [backend]
        finally:
            os.kill(backend, signal.SIGCONT)
        wait_until(lambda: collected(collector)["streamvibe_up",] == 1, "it is read again")
        assert metrics_backends(conn) == [backend]


def test_a_server_that_was_started_again(database18: Database) -> None:
    """The first scrape after it has the numbers."""
    conn = database18.connect()
    with collecting(database18.dsn) as collector:
        assert collected(collector)["streamvibe_up",] == 1
        [backend] = metrics_backends(conn)
        conn.execute("SELECT pg_terminate_backend(%s, 30000)", [backend])
        assert collected(collector)["streamvibe_up",] == 1
        assert metrics_backends(conn) != [backend]


def test_ages_that_take_too_long(database18: Database) -> None:
    """What a forgotten transaction makes slow is left out; everything else is there, also of the next scrape."""
    conn = database18.connect()
    kit.register(conn)
    kit.job_id(conn)
    conn.execute(
        "CREATE OR REPLACE FUNCTION streamvibe.oldest_due(p_job_types text[])"
        " RETURNS TABLE (job_type text, due_at timestamptz)"
        " LANGUAGE sql STABLE AS $$ SELECT 'email', now() FROM pg_sleep(3600) $$"
    )
    source = Source(database18.dsn, statement_seconds=2)
    with contextlib.closing(source):
        for _ in range(2):
            found = {row[0] for row in source.read()}
            assert "oldest_due_seconds" not in found and found >= {"jobs", "horizon_seconds", "table_rows"}


def test_lateness() -> None:
    """From when a duty should have begun again, by either kind of schedule; unknown for one that nobody can read."""
    last = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)
    assert next_turn("every 30 seconds", last) == last + timedelta(seconds=30)
    assert next_turn("0 * * * *", last) == datetime(2030, 1, 1, 13, tzinfo=UTC)
    assert next_turn("what?", last) is None


def test_a_duty_that_is_late(database18: Database) -> None:
    """The collector compares schedules with the database's clock."""
    conn = database18.connect()
    conn.execute(
        "INSERT INTO streamvibe.duty (name, usual_schedule, last_started_at) VALUES"
        " ('late', 'every 60 seconds', streamvibe.now() - interval '1 hour'), ('odd', 'what?', streamvibe.now()),"
        " ('due', 'every 9 hours', streamvibe.now())"
    )
    with collecting(database18.dsn) as collector:
        found = collected(collector)
    late = {key[1]: value for key, value in found.items() if key[0] == "streamvibe_duty_lateness_seconds"}
    assert late == {"late": pytest.approx(3540, abs=60), "due": 0}
    assert ("streamvibe_duty_last_start_timestamp_seconds", "odd") in found


def test_a_host_that_nobody_knows(database18: Database) -> None:
    """A name that does not resolve is a setting that cannot be used."""
    from streamvibe.cli.metrics import metrics_served

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigurationError) as caught:
        patch.setenv("STREAMVIBE_METRICS_ADDRESS", "no-such-host.invalid:9187")
        with metrics_served(database18.dsn, None):
            raise AssertionError("it listens")
    assert caught.value.field == "STREAMVIBE_METRICS_ADDRESS"
    assert caught.value.received == "no-such-host.invalid:9187"


def test_nothing_can_be_changed(database18: Database, tmp_path: Path) -> None:
    """By whoever reaches the port: only GET is answered."""
    with serving(database18.dsn, tmp_path, "maintain", "run", "--metrics-port", "0") as url:
        request = urllib.request.Request(url, data=b"x", method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=PATIENT)
        assert caught.value.code == 405
        caught.value.close()
