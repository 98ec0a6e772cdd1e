"""Pictures of a document: a panel per measure, a bar per system, runs as dots."""

from pathlib import Path
from typing import Any

from streamvibe.bench.results import Document, number
from streamvibe.bench.systems import OURS
from streamvibe.errors import ConfigurationError, InvalidArgument

PANELS = (
    ("drain", "Drain, jobs/s"),
    ("sustained", "Sustained, jobs/s"),
    ("bulk", "Bulk enqueue, jobs/s"),
    ("enqueue_1", "Enqueue, one caller, jobs/s"),
    ("enqueue_10", "Enqueue, ten callers, jobs/s"),
    ("start_p50", "Start p50, ms (less is better)"),
    ("start_p99", "Start p99, ms (less is better)"),
    ("wal", "WAL, bytes/job (less is better)"),
    ("worker_memory", "Worker, MiB (less is better)"),
    ("urgent_p99", "Urgent start p99, ms (less is better)"),
)
FORMATS = (".png", ".svg")
OUR_COLOUR, THEIR_COLOUR = "#0a7d5a", "#9aa5b1"


def check_plot(path: Path) -> list[Path]:
    """The files that a plot is written to: both formats when ``path`` names none.

    Raises InvalidArgument for another format, ConfigurationError without matplotlib.
    """
    if path.suffix and path.suffix not in FORMATS:
        raise InvalidArgument(
            "a plot cannot be written in that format",
            field="--plot",
            received=str(path),
            fix="End the name in .png or .svg, or in neither for both",
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "matplotlib is not installed, so nothing can be plotted",
            field="--plot",
            received=str(path),
            fix="Install it: pip install 'streamvibe[bench]'",
        ) from None
    return [path] if path.suffix else [path.with_name(path.name + suffix) for suffix in FORMATS]


def plot(found: Document, paths: list[Path]) -> None:
    """Draw what the document has; the same document gives the same picture."""
    import matplotlib
    from matplotlib.figure import Figure

    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        rows.setdefault(row["measure"], []).append(row)
    panels = [(measure, title) for measure, title in PANELS if measure in rows]
    if not panels:
        panels = [(measure, f"{measure}, {rows[measure][0]['unit']}") for measure in rows]
    columns = min(2, len(panels)) or 1
    lines = -(-len(panels) // columns) or 1
    most = max((len(rows[measure]) for measure, _ in panels), default=1)
    with matplotlib.rc_context({"svg.hashsalt": "streamvibe", "font.size": 9}):
        figure = Figure(figsize=(5.5 * columns, lines * (0.9 + 0.28 * most)), layout="constrained")
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axis, (measure, title) in zip(axes, panels, strict=False):
            # The best stands on top.
            less = "less is better" in title
            _draw(axis, title, sorted(rows[measure], key=lambda row: float(row["value"]), reverse=less))
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=150, metadata=metadata)


def _draw(axis: Any, title: str, rows: list[dict[str, Any]]) -> None:
    names = [row["system"] for row in rows]
    values = [float(row["value"]) for row in rows]
    colours = [OUR_COLOUR if name == OURS else THEIR_COLOUR for name in names]
    axis.barh(names, values, color=colours, height=0.7)
    for place, row in enumerate(rows):
        axis.plot(row["runs"], [place] * len(row["runs"]), ".", color="#1f2933", markersize=3)
        axis.annotate(
            " " + number(values[place]),
            (max([values[place], *row["runs"]]), place),
            va="center",
            xytext=(3, 0),
            textcoords="offset points",
        )
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlim(0, max([*values, *(run for row in rows for run in row["runs"])], default=1) * 1.18 or 1)
    axis.spines[["top", "right"]].set_visible(False)
