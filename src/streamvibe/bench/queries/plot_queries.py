"""Latency against the size of the queue: a panel per question, a line for p50 and one for p99."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamvibe.errors import InvalidArgument

Document = dict[str, Any]
P50, P99, TARGET = "#0a7d5a", "#c2571a", "#9aa5b1"


def read(path: Path) -> Document:
    """A document that ``bench queries --json`` wrote. Raises InvalidArgument."""
    try:
        found: Document = json.loads(path.read_text())
        found["size"]["jobs"], found["rows"][0]["p50_ms"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidArgument(
            "the file does not hold what `bench queries --json` writes",
            field="--with",
            received=f"{path}: {error}",
            fix="Name a file that `streamvibe bench queries --json FILE` wrote",
        ) from error
    return found


def plot(found: Sequence[Document], paths: Sequence[Path]) -> None:
    """Draw the documents, whatever their order; the same ones give the same picture."""
    import matplotlib
    from matplotlib.figure import Figure

    documents = sorted(found, key=lambda document: document["size"]["jobs"])
    names = [row["name"] for row in documents[-1]["rows"]]
    columns = 4
    lines = -(-len(names) // columns)
    with matplotlib.rc_context({"svg.hashsalt": "streamvibe", "font.size": 7}):
        figure = Figure(figsize=(3.2 * columns, 2.1 * lines), layout="constrained")
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axis, name in zip(axes, names, strict=False):
            points = [
                (document["size"]["jobs"], row)
                for document in documents
                for row in document["rows"]
                if row["name"] == name
            ]
            sizes = [jobs for jobs, _ in points]
            axis.plot(sizes, [row["p50_ms"] for _, row in points], ".-", color=P50, label="p50")
            axis.plot(sizes, [row["p99_ms"] for _, row in points], ".-", color=P99, label="p99")
            target = points[-1][1]["target_ms"]
            if target is not None:
                axis.axhline(target, color=TARGET, linestyle="--", linewidth=1, label="target")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_title(f"{name}, ms", loc="left", fontweight="bold")
            axis.spines[["top", "right"]].set_visible(False)
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        axes[0].legend(frameon=False)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=130, metadata=metadata)
