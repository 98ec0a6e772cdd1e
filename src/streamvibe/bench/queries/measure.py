"""Asks the questions, and says how long each took."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from streamvibe.bench.queries.catalog import Question, Samples
from streamvibe.bench.queries.plans import parents, watched
from streamvibe.bench.stage import percentile

Row = dict[str, Any]
#: How often a question is asked before it counts: its session has planned it then.
WARM_UP = 6
#: How long one question is asked of a baseline at most, once it was asked so often.
BASELINE_SECONDS, BASELINE_CALLS = 20.0, 5


def measure(
    conn: psycopg.Connection[Any],
    questions: Sequence[Question],
    samples: Samples,
    most_calls: int,
    report: Callable[[str], None],
    baseline: Mapping[str, str],
) -> list[Row]:
    """A row per question: milliseconds as a caller sees them, and the index of the function's statements.

    ``baseline``: the SQL of another design's answer to some of them, which is asked in turns with ours.
    """
    conn.execute("SELECT heartbeat_worker('bench', p_lease := '1 day')")
    found = []
    for question in questions:
        report(question.name)
        calls = min(question.calls, most_calls)
        found.append(_measured(conn, question, samples, calls, baseline.get(question.name)))
        if question.disturbs:
            # What was rolled back is not the next question's to walk over.
            conn.execute("VACUUM streamvibe.stat_delta")
    return found


def _measured(
    conn: psycopg.Connection[Any], question: Question, samples: Samples, calls: int, baseline: str | None
) -> Row:
    warm = min(WARM_UP, calls)
    times: list[float] = []
    others: list[float] = []
    for number, arguments in enumerate(samples.each(calls + warm)):
        took = ask(conn, question, arguments)
        if number >= warm:
            times.append(took)
        if baseline and (len(others) < BASELINE_CALLS or sum(others) < BASELINE_SECONDS * 1000):
            took = ask(conn, replace(question, sql=baseline), arguments)
            if number >= warm or calls <= BASELINE_CALLS:
                others.append(took)
    found: Row = {
        "name": question.name,
        "dataset": question.dataset.format(**next(samples.each(1))),
        "target_ms": question.target_ms,
        **_percentiles(times),
        "index": index_of(conn, question, next(samples.each(1))),
        "ok": None,
    }
    if question.target_ms is not None:
        found["ok"] = found["p99_ms"] <= question.target_ms and found["p50_ms"] <= question.target_ms / 10
    if others:
        found["baseline"] = _percentiles(others)
        found["ratio"] = round(found["baseline"]["p50_ms"] / found["p50_ms"], 2)
    return found


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    return {f"p{part}_ms": round(percentile(times, part), 3) for part in (50, 95, 99)}


def ask(conn: psycopg.Connection[Any], question: Question, arguments: dict[str, Any]) -> float:
    """Ask once, and read the answer in binary as our clients do; milliseconds. The connection is in autocommit mode."""
    with _taken_back(conn) if question.writes else contextlib.nullcontext():
        if question.before is not None:
            conn.execute(question.before.encode(), arguments)
        begun = time.perf_counter()
        conn.execute(question.sql.encode(), arguments, prepare=True, binary=True).fetchall()
        return (time.perf_counter() - begun) * 1000


@contextlib.contextmanager
def _taken_back(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction that is rolled back.

    Past psycopg, which forgets what it has prepared whenever it sees a ROLLBACK: the next call would be measured with a
    statement that is made ready anew, 0.1 ms that nobody pays who commits.
    """
    conn.execute("BEGIN")
    try:
        yield
    finally:
        conn.pgconn.exec_(b"ROLLBACK")


def index_of(conn: psycopg.Connection[Any], question: Question, arguments: dict[str, Any]) -> str:
    """The indexes of job_queue and job_log that answer it."""
    with watched(conn) as plans:
        ask(conn, question, arguments)
    used = parents(conn, [name for plan in plans for name in plan.indexes()])
    ours = [name for name in used if name.startswith(("idx_job_", "job_queue_", "job_log_"))]
    return ", ".join(ours) or "-"
