"""One run of ``bench queries``: fills the database, asks the questions, and makes the document."""

from collections.abc import Callable
from typing import Any

import psycopg

from streamvibe.bench.databases import Server
from streamvibe.bench.machine import machine, versions
from streamvibe.bench.queries.catalog import QUESTIONS, Samples
from streamvibe.bench.queries.fill import fill, size
from streamvibe.bench.queries.measure import measure

Document = dict[str, Any]


def run(
    scale: str, most_calls: int, report: Callable[[str], None], progress: Callable[[int], None]
) -> Document:
    """The document of one scale: machine, sizes, and a row per question, which is asked ``most_calls`` times at most.

    ``report`` is told what is asked, ``progress`` how many jobs were added.
    """
    server = Server()
    settings = server.settings()
    about = machine()
    filled = fill(server, scale, progress)
    with psycopg.connect(filled.url, autocommit=True) as conn:
        rows = measure(conn, QUESTIONS, Samples(conn), most_calls, report)
        return {
            "machine": {**about, "postgres": settings},
            "versions": {"harness": versions()},
            "scale": scale,
            "size": size(conn),
            "rows": rows,
        }


def table(found: Document) -> list[tuple[str, ...]]:
    """A line per question: name, what of, target, p50, p95, p99, verdict, index."""
    return [
        (
            row["name"],
            row["dataset"],
            "" if row["target_ms"] is None else f"{row['target_ms']:g}",
            *(f"{row[f'p{part}_ms']:.2f}" for part in (50, 95, 99)),
            "" if row["ok"] is None else "met" if row["ok"] else "missed",
            row["index"],
        )
        for row in found["rows"]
    ]
