"""Rewrite the tables of docs/explanation/queries.md from benchmarks/results/queries-*.json.

.venv/bin/python tools/query_tables.py

A test (tests/docs/test_query_tables.py) compares them, so that the page never shows other figures than the results.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "explanation" / "queries.md"
SCALES = ("10k", "100k", "1m", "10m")

Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    """A result's questions, in their order."""
    found: list[Row] = json.loads((RESULTS / f"queries-{name}.json").read_text())["rows"]
    return found


def number(milliseconds: float) -> str:
    """With as many digits as mean something."""
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def both(figures: Row, target: float | None) -> str:
    """p50 and p99; bold what is beyond the target."""
    p50, p99 = number(figures["p50_ms"]), number(figures["p99_ms"])
    return f"{p50} / **{p99}**" if target is not None and figures["p99_ms"] > target else f"{p50} / {p99}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first of them the head, as Markdown."""
    head, *others = lines
    text = [f"| {' | '.join(line)} |\n" for line in (head, *others)]
    return text[0] + "|---" * len(head) + "|\n" + "".join(text[1:])


def measured() -> str:
    """Every question at every scale."""
    by_scale = [{row["name"]: row for row in rows(scale)} for scale in SCALES]
    lines = [
        [
            "question",
            "of",
            "target",
            "10,000 jobs",
            "100,000",
            "1 million",
            "10 million, 20 million lines",
            "index",
        ]
    ]
    for name, row in by_scale[-1].items():
        of = [found[name]["dataset"] for found in by_scale]
        if len(set(of)) > 1:
            of = ["a leaf of finished jobs: " + ", ".join(one.split()[0] for one in of)]
        indexes = dict.fromkeys(
            index for found in by_scale for index in found[name]["index"].split(", ") if index != "-"
        )
        lines.append(
            [
                name,
                of[0],
                str(row["target_ms"] or ""),
                *(both(found[name], row["target_ms"]) for found in by_scale),
                ", ".join(f"`{index}`" for index in indexes) or "-",
            ]
        )
    return table(lines)


def beside_the_seed() -> str:
    """What both designs answer, and how many times as fast ours is."""
    lines = [["question", "of", "target", "ours", "seed", "seed / ours"]]
    for row in rows("1m-seed"):
        if "baseline" in row:
            target = row["target_ms"]
            lines.append(
                [
                    row["name"],
                    row["dataset"],
                    str(target or ""),
                    both(row, target),
                    both(row["baseline"], target),
                    str(row["ratio"]),
                ]
            )
    return table(lines)


def claims() -> str:
    """What the design says of itself."""
    found = json.loads((RESULTS / "queries-1m-seed.json").read_text())["claims"]
    lines = [["the document says", "", "measured", "of"]]
    return table(lines + [[one["claim"], one["said"], one["measured"], one["of"]] for one in found])


def rewritten(page: str) -> str:
    """The page with these tables in place of those it has; each is known by its head."""
    for new in (measured(), beside_the_seed(), claims()):
        head = new.partition("\n")[0]
        if page.count(head + "\n") != 1:
            raise SystemExit(f"{PAGE} has no table, or more than one, that begins with {head}")
        page = re.sub(re.escape(head) + r"\n(\|.*\n)+", new.replace("\\", r"\\"), page)
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
