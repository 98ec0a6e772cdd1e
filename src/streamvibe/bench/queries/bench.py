"""One run of ``bench queries``: fills the database, asks the questions, and makes the document."""

from collections.abc import Callable
from typing import Any

import psycopg

from streamvibe.bench.databases import Server
from streamvibe.bench.machine import machine, versions
from streamvibe.bench.queries.baseline import build, questions
from streamvibe.bench.queries.catalog import QUESTIONS, Samples
from streamvibe.bench.queries.claims import claims
from streamvibe.bench.queries.fill import fill, size
from streamvibe.bench.queries.measure import measure
from streamvibe.db.pool import configure

Document = dict[str, Any]


def run(
    scale: str,
    data: str,
    most_calls: int,
    baseline: str | None,
    report: Callable[[str], None],
    progress: Callable[[int], None],
) -> Document:
    """The document of one scale: machine, sizes, and a row per question, which is asked ``most_calls`` times at most.

    ``data``: a name of fill.DATA. ``baseline``: the name of another design that answers the same questions in turns.
    ``report`` is told what is asked, ``progress`` how many jobs were added.
    """
    others = questions(baseline) if baseline else {}
    server = Server()
    settings = server.settings()
    about = machine()
    filled = fill(server, scale, data, progress)
    with psycopg.connect(filled.url, autocommit=True) as conn:
        configure(conn)  # JSON is read as a client of ours reads it
        if baseline:
            build(conn, baseline, report)
        samples = Samples(conn)
        rows = measure(conn, QUESTIONS, samples, most_calls, report, others)
        found = {
            "machine": {**about, "postgres": settings},
            "versions": {"harness": versions()},
            "scale": scale,
            "data": data,
            "size": size(conn),
            "rows": rows,
        }
        if baseline:
            found |= {"baseline": baseline, "claims": claims(conn, samples, rows, report)}
        return found


#: What is said under the table.
VERDICTS = "met: p99 is within the target, and p50 within a tenth of it; p99 met: only that."
BASELINES = {
    "seed": "seed: the design this queue grew out of, with its own indexes and functions and the same jobs; it checks"
    " no roles, knows no claims, leases and attempts, and promises less. Above 1, ours is faster."
}


def server(found: Document) -> str:
    """A line about what the figures depend on most, past the machine itself."""
    settings = found["machine"]["postgres"]
    pages = settings["huge_pages_status"]
    advice = (
        ""
        if pages == "on"
        else " (with them, bulk creation beside ten million jobs takes a third less or half)"
    )
    buffers = settings["shared_buffers"]
    return f"PostgreSQL {settings['server_version']}, shared buffers {buffers}, huge pages {pages}{advice}."


def headings(found: Document) -> tuple[str, ...]:
    """Of `table`."""
    name = found.get("baseline")
    beside = (f"{name}, p50", "p99", f"{name} / ours") if name else ()
    return ("question", "of", "target, ms", "p50", "p95", "p99", "", *beside, "index")


def table(found: Document) -> list[tuple[str, ...]]:
    """A line per question: name, what of, target, p50, p95, p99, verdict, the baseline's p50, p99 and ratio, index."""
    return [
        (
            row["name"],
            row["dataset"],
            "" if row["target_ms"] is None else f"{row['target_ms']:g}",
            *(f"{row[f'p{part}_ms']:.2f}" for part in (50, 95, 99)),
            _verdict(row),
            *(_beside(row) if "baseline" in found else ()),
            row["index"],
        )
        for row in found["rows"]
    ]


def _verdict(row: dict[str, Any]) -> str:
    if row["ok"] is None:
        return ""
    return "met" if row["ok"] else "p99 met" if row["p99_ms"] <= row["target_ms"] else "missed"


def _beside(row: dict[str, Any]) -> tuple[str, str, str]:
    if "baseline" not in row:
        return ("", "", "")
    return (f"{row['baseline']['p50_ms']:.2f}", f"{row['baseline']['p99_ms']:.2f}", f"{row['ratio']:.2f}")
