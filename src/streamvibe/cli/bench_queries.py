"""``streamvibe bench queries``: how long each question takes on a queue of a given size."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamvibe.cli.output import error_console, plain, print_hint, print_json, print_rows
from streamvibe.errors import InvalidArgument


def queries(
    scale: Annotated[str, typer.Option(help="How many jobs: 10k, 100k, 1m or 10m.")] = "100k",
    data: Annotated[
        str,
        typer.Option(help="What the jobs are like: mixed, one-user, same-time, scheduled or large-params."),
    ] = "mixed",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Ask another design the same questions in turns: seed. From a checkout of the repository."
        ),
    ] = None,
    calls: Annotated[
        int, typer.Option(min=1, max=100_000, help="How often each question is asked at most.")
    ] = 300,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write JSON to a file; - prints it.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a plot: .png or .svg; both without an ending. Draws all of --with as well.",
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="JSON of another scale, to be drawn beside this one's."),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop the database of this scale and data, and measure nothing.")
    ] = False,
) -> None:
    """Milliseconds that each question takes on a queue of this size with its logs, and the index that answers it.

    The database is made on the embedded server and kept for the next run; filling it goes on where it stopped. Ten
    million jobs take about 15 GB. The queue's own database is not touched. A figure is met when p99 is within it and
    p50 within a tenth; ends with 1 when one is not.

    JSON: machine, versions, scale, data, size, rows (name, dataset, target_ms, p50_ms, p95_ms, p99_ms, index, ok).
    """
    from streamvibe.bench.databases import Server
    from streamvibe.bench.plot import check_plot
    from streamvibe.bench.queries import bench, fill, plot_queries
    from streamvibe.bench.results import check_writable, dumped

    if scale not in fill.SCALES:
        raise InvalidArgument(
            "there is no such scale", field="--scale", received=scale, fix=f"Use {', '.join(fill.SCALES)}"
        )
    if data not in fill.DATA:
        raise InvalidArgument(
            "there is no such data", field="--data", received=data, fix=f"Use {', '.join(fill.DATA)}"
        )
    if drop:
        fill.drop(Server(), scale, data)
        print_hint(f"Dropped {fill.database_name(scale, data)}.")
        return
    others = [plot_queries.read(path) for path in beside or ()]
    files = check_plot(plot) if plot is not None else []
    check_writable([*files, *([Path(as_json)] if as_json not in (None, "-") else [])])
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} jobs"),
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
    ) as progress:
        task = progress.add_task("Filling", total=fill.SCALES[scale])
        found = bench.run(
            scale,
            data,
            calls,
            baseline,
            lambda name: progress.update(task, description=name),
            lambda n: progress.advance(task, n),
        )
    if as_json == "-":
        print_json(found)
    else:
        print_rows(bench.headings(found), bench.table(found), named=True)
        print_hint(bench.server(found))
        print_hint(bench.VERDICTS)
        if baseline:
            print_hint(bench.BASELINES[baseline])
            print_rows(
                (f"what {baseline}'s document says", "", "measured", "of"),
                ((row["claim"], row["said"], row["measured"], row["of"]) for row in found["claims"]),
                named=True,
            )
    if as_json not in (None, "-"):
        Path(str(as_json)).write_text(dumped(plain(found)))
    if files:
        plot_queries.plot([*others, found], files)
    if any(row["ok"] is False for row in found["rows"]):
        raise typer.Exit(1)
