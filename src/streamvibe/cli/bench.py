"""``streamvibe bench throughput|latency|queries``: how fast this queue is on this machine, alone or beside others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from streamvibe.cli.bench_queries import queries
from streamvibe.cli.group import Commands
from streamvibe.cli.output import console, error_console, plain, print_hint, print_json, print_rows
from streamvibe.config import Settings
from streamvibe.errors import InvalidArgument

bench_app = typer.Typer(
    cls=Commands, help="Measure this queue on this machine, alone or beside others.", no_args_is_help=True
)
bench_app.command("queries")(queries)

Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write JSON to a file; - prints it.")
]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a plot: .png or .svg; both without an ending.")
]
Runs = Annotated[int, typer.Option(min=1, max=100, help="How often everything is measured; medians count.")]
Jobs = Annotated[int, typer.Option(min=100, max=10_000_000, help="Jobs in a backlog.")]
Concurrency = Annotated[
    int | None, typer.Option(min=1, max=10_000, help="How many handlers our worker runs at once.")
]
Measures = Annotated[str | None, typer.Option(metavar="NAMES", help="Only these measures, with commas.")]
Peers = Annotated[
    str | None,
    typer.Option(
        metavar="[NAMES]", help="Measure other queues in turns with ours: all, or names with commas."
    ),
]
PeersDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where peers are installed. Default: bench-peers in STREAMVIBE_HOME."),
]
Cells = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep what was measured there, and go on after it when run again."),
]


@bench_app.command("throughput")
def throughput(
    as_json: Json = None,
    plot: Plot = None,
    jobs: Jobs = 20_000,
    runs: Runs = 3,
    concurrency: Concurrency = None,
    workers: Annotated[str, typer.Option(metavar="COUNTS", help="Worker processes of `scale`.")] = "1,2,4,8",
    window: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds for which `sustained` offers each rate.")
    ] = 8.0,
    measures: Measures = None,
    peers: Peers = None,
    peers_dir: PeersDir = None,
    cells: Cells = None,
) -> None:
    """Jobs per second: drain, enqueue, bulk, sustained, pinned, WAL, memory, floors, several workers.

    Everything runs on the embedded server, each measure on a database of its own that is dropped afterwards; the
    queue's own database is not touched. Measures: drain, enqueue, bulk, sustained, pinned, bulk_guarded, asleep,
    floor, bare, scale.
    """
    from streamvibe.bench.cells import THROUGHPUT, chosen
    from streamvibe.bench.stage import Sizes

    sizes = Sizes(jobs=jobs, concurrency=concurrency, workers=_counts(workers), window_seconds=window)
    group = chosen(THROUGHPUT, _names(measures))
    _bench(group, sizes, runs, as_json, plot, peers, peers_dir, cells)


@bench_app.command("latency")
def latency(
    as_json: Json = None,
    plot: Plot = None,
    samples: Annotated[int, typer.Option(min=10, max=100_000, help="Jobs whose start is timed.")] = 250,
    backlog: Annotated[
        int, typer.Option(min=1000, max=100_000_000, help="Jobs that wait while `urgent` is measured.")
    ] = 1_000_000,
    runs: Runs = 3,
    concurrency: Concurrency = None,
    measures: Measures = None,
    peers: Peers = None,
    peers_dir: PeersDir = None,
    cells: Cells = None,
) -> None:
    """Milliseconds until a job starts: on an idle queue, urgent under a backlog, and fair between users.

    Everything runs on the embedded server, each measure on a database of its own that is dropped afterwards; the
    queue's own database is not touched. Measures: start, urgent, fair.
    """
    from streamvibe.bench.cells import LATENCY, chosen
    from streamvibe.bench.stage import Sizes

    sizes = Sizes(concurrency=concurrency, samples=samples, backlog=backlog)
    _bench(chosen(LATENCY, _names(measures)), sizes, runs, as_json, plot, peers, peers_dir, cells)


def with_values(arguments: list[str]) -> list[str]:
    """Of a bench command: bind --json to its file, and let --peers alone mean all."""
    found = []
    given = iter([*zip(arguments, [*arguments[1:], None], strict=True)])
    for argument, following in given:
        is_value = following is not None and (following == "-" or not following.startswith("-"))
        if argument in ("--json", "--peers") and is_value:
            found.append(f"{argument}={following}")
            next(given)
        elif argument == "--peers":
            found.append("--peers=all")
        else:
            found.append(argument)
    return found


def _bench(
    group: Sequence[object],
    sizes: object,
    runs: int,
    as_json: str | None,
    plot: Path | None,
    peers: str | None,
    peers_dir: Path | None,
    cells: Path | None,
) -> None:
    from streamvibe.bench import plot as plots
    from streamvibe.bench import results
    from streamvibe.bench.bench import Bench
    from streamvibe.bench.cells import Scenario
    from streamvibe.bench.stage import Sizes

    assert isinstance(sizes, Sizes)
    files = plots.check_plot(plot) if plot is not None else []
    results.check_writable([*files, *([Path(as_json)] if as_json not in (None, "-") else [])])
    bench = Bench(
        [scenario for scenario in group if isinstance(scenario, Scenario)],
        sizes,
        runs,
        peers=None if peers is None else [] if peers == "all" else _names(peers),
        peers_directory=peers_dir or Settings().home / "bench-peers",
        cells=cells,
        report=print_hint,
    )
    found = bench.run()
    if files:
        plots.plot(found, files)
    if as_json == "-":
        print_json(found)
    else:
        print_rows(("system", "measure", "median", "unit", "runs"), results.table(found))
        if peers is not None:
            headings, lines = results.comparison(found)
            console().print(results.markdown(headings, lines), markup=False, soft_wrap=True)
    if as_json not in (None, "-"):
        Path(str(as_json)).write_text(results.dumped(plain(found)))
    if found["failures"]:
        for failure in found["failures"]:
            error_console().print(
                f"Not measured: {failure['scenario']} of {failure['system']}, run {failure['run']}: {failure['error']}",
                markup=False,
            )
        raise typer.Exit(1)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _counts(text: str) -> tuple[int, ...]:
    names = _names(text)
    if not names or not all(name.isdecimal() and 1 <= int(name) <= 64 for name in names):
        raise InvalidArgument(
            "the numbers of workers cannot be read",
            field="--workers",
            received=text,
            fix="Write numbers from 1 to 64 with commas, like 1,2,4,8",
        )
    return tuple(int(name) for name in names)
