"""The document that --json writes, and the tables made from it."""

import json
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamvibe.bench.cells import Store
from streamvibe.bench.floors import BATCHES
from streamvibe.bench.systems import OURS
from streamvibe.errors import InvalidArgument

Document = dict[str, Any]


def document(
    store: Store,
    machine: Mapping[str, object],
    settings: Mapping[str, str],
    versions: Mapping[str, Mapping[str, str]],
) -> Document:
    """Machine, versions, and a row per system and measure: ``value`` is the median of ``runs``."""
    runs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for (system, _, _), figures in sorted(store.figures.items(), key=lambda item: item[0][2]):
        for figure in figures:
            runs[system, figure.measure, figure.unit].append(round(figure.value, 4))
    rows = [
        {
            "system": system,
            "measure": measure,
            "value": round(statistics.median(values), 4),
            "unit": unit,
            "runs": values,
        }
        for (system, measure, unit), values in runs.items()
    ]
    rows += _shares(rows)
    return {
        "machine": {**machine, "postgres": dict(settings)},
        "versions": dict(versions),
        "sizes": asdict(store.sizes),
        "rows": rows,
        "failures": [
            {"system": system, "scenario": scenario, "run": run, "error": error}
            for (system, scenario, run), error in store.failures.items()
        ],
    }


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Python's share: the drain as a part of what SQL alone does."""
    ours = {row["measure"]: row["value"] for row in rows if row["system"] == OURS}
    found = []
    for batch in BATCHES:
        if "drain" in ours and ours.get(f"floor_{batch}"):
            share = round(ours["drain"] / ours[f"floor_{batch}"], 4)
            found.append(
                {
                    "system": OURS,
                    "measure": f"drain_by_floor_{batch}",
                    "value": share,
                    "unit": "ratio",
                    "runs": [share],
                }
            )
    return found


def table(found: Document) -> list[tuple[str, str, str, str, str]]:
    """A line per row: system, measure, median, unit, and every run."""
    return [
        (
            row["system"],
            row["measure"],
            number(row["value"]),
            row["unit"],
            ", ".join(map(number, row["runs"])),
        )
        for row in found["rows"]
    ]


#: The columns of the comparison: heading, measures, and which end is better.
COLUMNS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("drain, jobs/s", ("drain",), True),
    ("enqueue one by one, 1 / 10 in flight", ("enqueue_1", "enqueue_10"), True),
    ("bulk, jobs/s, 1 / 2 clients", ("bulk", "bulk_2_clients"), True),
    ("start p50 / p99, ms", ("start_p50", "start_p99"), False),
    ("sustained, jobs/s", ("sustained",), True),
    ("pinned, last/first", ("pinned",), True),
    ("WAL/job, bytes", ("wal",), False),
    ("worker MiB", ("worker_memory",), False),
)


def comparison(found: Document) -> tuple[list[str], list[list[str]]]:
    """The comparison: headings, and a line per system, the fastest drain first; the best of each is starred."""
    values = {(row["system"], row["measure"]): float(row["value"]) for row in found["rows"]}
    systems = sorted({system for system, _ in values}, key=lambda system: -values.get((system, "drain"), 0))
    best = {
        measure: (max if more else min)(
            (values[system, measure] for system in systems if (system, measure) in values), default=None
        )
        for _, measures, more in COLUMNS
        for measure in measures
    }

    def cell(system: str, measure: str) -> str:
        value = values.get((system, measure))
        if value is None:
            return "-"
        return number(value) + ("*" if value == best[measure] else "")

    lines = []
    for system in systems:
        version = found["versions"].get(system, {})
        name = f"{system} {next(iter(version.values()), '')}".strip()
        lines.append(
            [name, *(" / ".join(cell(system, measure) for measure in measures) for _, measures, _ in COLUMNS)]
        )
    return ["", *(heading for heading, _, _ in COLUMNS)], lines


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def number(value: float) -> str:
    """Three or more digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def dumped(found: object) -> str:
    """The text of a document: a line per row, so that a diff shows what changed."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return (
        re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda match: "[" + " ".join(match[1].split()) + "]", text) + "\n"
    )


def check_writable(paths: list[Path]) -> None:
    """Before an hour is spent on what cannot be kept. Raises InvalidArgument."""
    for path in paths:
        if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise InvalidArgument(
                "that file cannot be written",
                field="--json or --plot",
                received=str(path),
                fix="Name a file in a directory that exists and that you may write to",
            )
