"""The counters while other sessions do all that changes a job: equal to an audit by triggers in every snapshot."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection, IsolationLevel
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.test_races_stats import ROUNDS, Everything

SNAPSHOTS = 8
# What happened, as rows say, written by whoever wrote the row, in the same transaction.
AUDIT = """
CREATE TABLE public.audit (what text, job_type text, detail text, seconds float8);
CREATE FUNCTION public.audit_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF tg_op = 'INSERT' THEN
        INSERT INTO public.audit VALUES ('created', new.job_type, '', NULL);
    ELSE
        IF new.status <> old.status AND new.completed_at IS NOT NULL THEN
            INSERT INTO public.audit VALUES ('ended', new.job_type, new.status, NULL);
        END IF;
        IF new.status <> old.status AND new.status = 'completed' THEN
            INSERT INTO public.audit VALUES
                ('waiting', new.job_type, '', extract(epoch FROM new.started_at - new.scheduled_for)),
                ('processing', new.job_type, '', extract(epoch FROM new.completed_at - new.started_at));
        END IF;
        IF new.retry_count > old.retry_count OR new.status = 'failed' AND new.failure_kind = 'expired' THEN
            INSERT INTO public.audit VALUES ('failed', new.job_type, new.failure_kind, NULL);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_job AFTER INSERT OR UPDATE ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.audit_job();
"""


class Audited(Everything):
    """The leaf that `_drop` makes is filled before it has the trigger."""

    def _drop(self, conn: Connection[Any], chance: random.Random, _name: str) -> None:
        super()._drop(conn, chance, _name)
        conn.execute(
            "INSERT INTO public.audit SELECT what, 'email', detail, NULL FROM (VALUES ('ended', 'cancelled'),"
            " ('ended', 'completed'), ('ended', 'completed'), ('created', ''), ('created', ''), ('created', ''))"
            " made(what, detail)"
        )
        # Its two completed jobs count as started before they were due, and ended within 3 us.
        conn.execute(
            "INSERT INTO public.audit SELECT m, 'email', '', 0 FROM unnest('{waiting,processing}'::text[]) m,"
            " generate_series(1, 2)"
        )


@contextlib.contextmanager
def audited(conn: Connection[Any]) -> Iterator[None]:
    """The shared database keeps an audit in this block."""
    conn.execute(AUDIT.encode())
    try:
        yield
    finally:
        conn.execute("DROP TRIGGER audit_job ON public.job_queue")
        conn.execute("DROP FUNCTION public.audit_job(); DROP TABLE public.audit")


def metrics(conn: Connection[Any]) -> dict[tuple[str, ...], float]:
    """Every number, by metric and labels."""
    rows = kit.call(conn, "get_job_queue_metrics", p_ages=False)
    found = {(row["metric"], *row["labels"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def compare(conn: Connection[Any]) -> dict[tuple[str, ...], float]:
    """All counters against the audit, in the transaction's snapshot."""
    found = metrics(conn)
    events = Counter(
        (row["what"], row["job_type"], row["detail"]) for row in kit.query(conn, "SELECT * FROM public.audit")
    )
    for (what, *labels), value in found.items():
        if what in ("ended", "failed"):
            assert value == events[what, labels[0], labels[1]], (what, labels)
        elif what == "created":
            assert value == events[what, labels[0], ""], labels
    assert {key for key in events if key[0] in ("ended", "failed")} <= found.keys()
    for row in kit.query(
        conn,
        "SELECT what, job_type, bound, count(*) FILTER (WHERE seconds <= bound * 0.98) AS least,"
        " count(*) FILTER (WHERE seconds <= bound * 1.02) AS most"
        " FROM public.audit, unnest(streamvibe.histogram_bounds()) bound WHERE seconds IS NOT NULL GROUP BY 1, 2, 3",
    ):
        below = sum(
            value
            for (what, *labels), value in found.items()
            if [what, *labels[:1]] == [row["what"], row["job_type"]] and float(labels[1]) <= row["bound"]
        )
        assert row["least"] <= below <= row["most"], row
    for row in kit.query(
        conn,
        "SELECT what, job_type, sum(seconds) AS total FROM public.audit"
        " WHERE seconds IS NOT NULL AND job_type = 'sms' GROUP BY 1, 2",
    ):
        assert found[f"{row['what']}_seconds", row["job_type"]] == pytest.approx(row["total"], abs=1e-4)
    return found


@pytest.mark.timeout(300)
def test_counters_are_exact_in_every_snapshot_and_never_fall(queue: Queue) -> None:
    """What was created, ended, failed, and for how long it took: through retries, recovery, cancelling of what a worker
    holds, dropped leaves, rollbacks, recounting and compaction.
    """
    for name in ("email", "sms"):
        kit.register(queue.conn, name, p_cache_ttl="0")
    everything = Audited(queue)
    snapshots = 0
    before: dict[tuple[str, ...], float] = {}
    with audited(queue.conn), everything.running(), queue.database.connect() as reader:
        reader.isolation_level = IsolationLevel.REPEATABLE_READ
        deadline = time.monotonic() + 240
        while not (snapshots >= SNAPSHOTS and set(everything.rounds) >= ROUNDS):
            assert time.monotonic() < deadline, (snapshots, everything.rounds)
            if everything.errors:
                break
            with reader.transaction():
                now = compare(reader)
            for key, value in before.items():
                if key[0] in ("created", "ended", "failed", "asked", "recovered", "waiting", "processing"):
                    assert now.get(key, 0) >= value, key
            if now != before:
                snapshots += 1
            before = now
    assert {key[0] for key, value in before.items() if value} >= {"created", "ended", "failed", "waiting"}
