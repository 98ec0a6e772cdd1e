"""Links between pages lead somewhere."""

from pathlib import Path

import pytest
from tests.docs.pages import ROOT, anchors, links, markdown_files

PAGES = list(markdown_files())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    """Every relative link of every page names a file of the repository, and a heading that is there."""
    dead = []
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_of_docs_is_linked_from_its_index() -> None:
    """docs/README.md leads to every page below docs, so that none is forgotten."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    linked |= {
        (index.parent / "decisions" / link).resolve()
        for link in links(index.parent / "decisions" / "README.md")
    }
    assert {page for page in PAGES if page.is_relative_to(index.parent)} - linked - {index} == set()
