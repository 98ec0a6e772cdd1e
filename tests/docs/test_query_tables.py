"""The page of measured questions shows the committed results, and no other figures."""

import pytest
from tools import query_tables


def test_the_page_shows_the_results() -> None:
    """Written anew from benchmarks/results, it is as it is."""
    page = query_tables.PAGE.read_text()
    assert query_tables.rewritten(page) == page, "Run .venv/bin/python tools/query_tables.py"


def test_another_figure_is_noticed() -> None:
    """A figure that was changed by hand is put right; a table that is gone is missed."""
    page = query_tables.PAGE.read_text()
    [figure] = [row for row in query_tables.rows("1m") if row["name"] == "User job list (paginated)"]
    shown = query_tables.both(figure, figure["target_ms"])
    assert shown in page
    assert query_tables.rewritten(page.replace(shown, "0.01 / 0.02")) == page
    with pytest.raises(SystemExit, match="has no table"):
        query_tables.rewritten("nothing")


def test_what_is_beyond_its_target_is_bold() -> None:
    """By p99; without a target nothing is."""
    figures = {"p50_ms": 9.876, "p99_ms": 101.26}
    assert query_tables.both(figures, 100) == "9.88 / **101.3**"
    assert query_tables.both(figures, None) == "9.88 / 101.3"
