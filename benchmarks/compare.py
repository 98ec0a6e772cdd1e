"""The whole comparison: ours beside every peer, in one resumable run.

    .venv/bin/python -m benchmarks.compare [--runs 3] [--peers all] [--results benchmarks/results]

Runs `streamvibe bench throughput` and `streamvibe bench latency` with peers, keeps every cell in
``compare-throughput.cells.jsonl`` and ``compare-latency.cells.jsonl`` as soon as it is measured, and writes
``compare.json``, ``compare.md``, ``compare.png`` and ``compare.svg`` from them. Interrupted, it goes on where it was.
"""

import argparse
import sys
import time
from pathlib import Path

from streamvibe.bench import plot, results
from streamvibe.bench.bench import Bench
from streamvibe.bench.cells import LATENCY, THROUGHPUT, Scenario
from streamvibe.bench.results import Document
from streamvibe.bench.stage import Sizes
from streamvibe.cli.output import plain, print_hint
from streamvibe.config import Settings
from streamvibe.errors import StreamVibeError

RESULTS = Path(__file__).parent / "results"


def merged(documents: list[Document]) -> Document:
    """Two documents of one machine as one; what the first says of the machine counts."""
    first, *others = documents
    for other in others:
        first["versions"] |= other["versions"]
        first["sizes"] = {**first["sizes"], **{key: other["sizes"][key] for key in ("samples", "backlog")}}
        first["rows"] += other["rows"]
        first["failures"] += other["failures"]
    return first


def main() -> int:
    """Measure, write the files, print the table."""
    parser = argparse.ArgumentParser(description="StreamVibe beside other queues, on this machine.")
    parser.add_argument("--runs", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs in a backlog (default: 20000)")
    parser.add_argument(
        "--backlog", type=int, default=1_000_000, help="jobs behind `urgent` (default: 1000000)"
    )
    parser.add_argument("--samples", type=int, default=250, help="jobs whose start is timed (default: 250)")
    parser.add_argument("--window", type=float, default=8.0, help="seconds of each offered rate (default: 8)")
    parser.add_argument("--peers", default="all", help="all, none, or names with commas (default: all)")
    parser.add_argument("--peers-dir", type=Path, help="where they are installed")
    parser.add_argument("--measures", help="only these, with commas, of both commands")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    given = parser.parse_args()

    plots = plot.check_plot(given.results / "compare")
    names = [] if given.peers == "all" else given.peers.split(",")
    wanted = given.measures.split(",") if given.measures else [*THROUGHPUT, *LATENCY]
    begun = time.monotonic()
    groups: dict[str, tuple[dict[str, Scenario], Sizes]] = {
        "throughput": (THROUGHPUT, Sizes(jobs=given.jobs, window_seconds=given.window)),
        "latency": (LATENCY, Sizes(samples=given.samples, backlog=given.backlog)),
    }
    documents = [
        Bench(
            [scenario for name, scenario in group.items() if name in wanted],
            sizes,
            given.runs,
            peers=None if given.peers == "none" else names,
            peers_directory=given.peers_dir or Settings().home / "bench-peers",
            cells=given.results / f"compare-{name}.cells.jsonl",
            report=print_hint,
        ).run()
        for name, (group, sizes) in groups.items()
    ]
    found = merged(documents)
    headings, lines = results.comparison(found)
    table = results.markdown(headings, lines)
    (given.results / "compare.json").write_text(results.dumped(plain(found)))
    (given.results / "compare.md").write_text(table)
    plot.plot(found, plots)
    print(table)
    print_hint(f"{(time.monotonic() - begun) / 60:.0f} minutes; the files are in {given.results}")
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamVibeError as error:
        from streamvibe.cli.output import print_error

        print_error(error, as_json=False)
        sys.exit(error.exit_status)
