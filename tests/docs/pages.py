"""Reading the documentation: its pages, marked blocks, and links."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HIDDEN = {".git", ".venv", "build", "node_modules"}


def markdown_files() -> Iterator[Path]:
    """Every page of the repository; not what was installed or built."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if name not in _HIDDEN and not name.endswith("_cache"))
        yield from (Path(folder) / name for name in sorted(files) if name.endswith(".md"))


def example(page: Path, name: str, language: str) -> str:
    """The code block that follows `<!-- example: name -->`."""
    _, marker, rest = page.read_text().partition(f"<!-- example: {name} -->\n")
    assert marker, f"{page.name} has no example {name}"
    fence = _FENCE.match(rest)
    assert fence is not None and fence[1] == language, (
        f"no {language} block follows the marker of {name} in {page.name}"
    )
    return fence[2]


def between(text: str, marker: str) -> str:
    """What stands between `<!-- marker: begin -->` and `<!-- marker: end -->`."""
    _, begin, rest = text.partition(f"<!-- {marker}: begin -->\n")
    found, end, _ = rest.partition(f"<!-- {marker}: end -->")
    assert begin and end, f"the markers of {marker} are missing"
    return found


def without_code(text: str) -> str:
    """A page's prose: without fenced blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return _LINK.findall(without_code(page.read_text()))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual Markdown sites make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
