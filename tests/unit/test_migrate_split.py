"""Splitting SQL text into statements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamvibe.db.migrate_split import split_statements


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a;b', 'it''s; fine', ''",
        r"SELECT E'it\'s; fine', e'\\', 'C:\'",
        "SELECT E'one'\n  -- a; comment\n  'tw\\'o;'",
        'SELECT 1 AS "a;""b;"',
        "SELECT $$a; 'b$$, $tag$ $$ ; $other$ ; $tag$",
        "SELECT a$b$c, $1 FROM t$x$",
        "-- leading; comment\nSELECT 1",
        "SELECT /* a; /* nested; ' */ still; */ 1 -- ends; here",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)",
        "CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; SELECT 2 $$",
        "SELECT 'größe;' AS größe, $größe$;$größe$",
    ],
)
def test_one_statement_stays_whole(statement: str) -> None:
    """Semicolons inside strings, names, comments, parentheses and bodies end nothing."""
    assert split_statements(statement) == [statement]
    assert split_statements(f"{statement}\n;\nSELECT 2;") == [statement, "SELECT 2"]


def test_begin_outside_a_routine_is_an_ordinary_statement() -> None:
    """BEGIN and END as transaction commands do not open a body."""
    assert split_statements("BEGIN; SELECT 1; END; SELECT 2") == ["BEGIN", "SELECT 1", "END", "SELECT 2"]


def test_nothing_but_comments_and_semicolons_is_no_statement() -> None:
    """Empty statements are dropped, and so are comments that no statement follows."""
    assert split_statements(" ;; -- nothing; here\n ; /* nor; here */") == []


@pytest.mark.parametrize(
    "text",
    ["SELECT 'open", 'SELECT "open', "SELECT $a$ open $b$", "SELECT 1 /* open /* */", "SELECT (1; SELECT 2"],
)
def test_what_never_closes_is_an_error(text: str) -> None:
    """A quote, comment or parenthesis that never closes is reported, not guessed at."""
    with pytest.raises(ValueError, match="line 1"):
        split_statements(text)


PIECES = st.sampled_from(
    [
        "SELECT",
        "a",
        "$1",
        "'x;'",
        "E'\\';'",
        '"n;"',
        "$$;$$",
        "$t$;$$;$t$",
        "(1; 2)",
        "/* ; /* ; */ */",
        "-- ;\n",
        "1.5",
    ]
)
STATEMENTS = st.lists(
    st.lists(PIECES, max_size=6).map(lambda pieces: " ".join(["SELECT", *pieces]).strip()), max_size=5
)


@given(STATEMENTS)
def test_joined_statements_come_apart_again(statements: list[str]) -> None:
    """Whatever the statements hold, joining and splitting gives them back."""
    assert split_statements("\n;".join(statements)) == statements
