"""Split SQL text into statements, for files that must run outside a transaction."""

import re

_STRING = r"'(?:[^']|'')*'"
_ESCAPE = r"'(?:[^'\\]|\\.|'')*'"
# An E'' string goes on, with its escapes, in the next quotes after white space with a newline in it.
_CONTINUED = rf"(?:(?:[^\S\n]*(?:--[^\n]*)?\n)+[^\S\n]*{_ESCAPE})*"

_TOKEN = re.compile(
    rf"""
    (?P<line_comment>--[^\n]*)
  | (?P<block_comment>/\*)
  | (?P<escape_string>[eE]{_ESCAPE}{_CONTINUED})
  | (?P<string>{_STRING})
  | (?P<quoted_name>"(?:[^"]|"")*")
  | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
  | (?P<parameter>\$?[0-9][0-9A-Za-z_.]*)
  | (?P<space>\s+)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_ROUTINE = re.compile(r"^create (or replace )?(function|procedure)\b")


def split_statements(text: str) -> list[str]:
    """The statements of `text`, in order, without their closing semicolons; comments stay with what follows.

    A semicolon ends a statement unless it stands in a string (plain, E'' or dollar-quoted), a quoted name,
    a comment (block comments nest), parentheses (CREATE RULE), or a BEGIN ATOMIC body.

    Raises ValueError for a quote, comment or parenthesis that never closes.
    """
    statements: list[str] = []
    start = position = 0
    depth = 0
    words: list[str] = []
    blocks = 0
    empty = True
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # "other" takes any character
        kind, piece = match.lastgroup, match.group()
        end = match.end()
        if kind == "block_comment":
            end = _end_of_comment(text, position)
        elif kind == "dollar":
            end = _end_of_quote(text, piece, end)
        elif kind == "other" and piece in "'\"":
            raise ValueError(f"unterminated {piece} at line {_line(text, position)}")
        elif kind == "word":
            words.append(piece.lower())
            blocks += _block_change(words)
        elif piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
        elif piece == ";" and depth <= 0 and blocks == 0:
            if not empty:
                statements.append(text[start:position].strip())
            start, depth, words, empty = end, 0, [], True
            position = end
            continue
        if kind not in ("line_comment", "block_comment", "space"):
            empty = False
        position = end
    if depth > 0 or blocks > 0:
        raise ValueError(
            f"unfinished statement from line {_line(text, start)}: a parenthesis or BEGIN never closes"
        )
    if not empty:
        statements.append(text[start:].strip())
    return statements


def _block_change(words: list[str]) -> int:
    """How the newest word changes the nesting of BEGIN ATOMIC blocks, inside CREATE FUNCTION only."""
    if not _ROUTINE.match(" ".join(words[:4])):
        return 0
    if words[-1] == "atomic" and words[-2] == "begin":
        return 1
    if "atomic" in words:
        return {"case": 1, "end": -1}.get(words[-1], 0)
    return 0


def _end_of_comment(text: str, position: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise ValueError(f"unterminated comment at line {_line(text, position)}")


def _end_of_quote(text: str, tag: str, body: int) -> int:
    close = text.find(tag, body)
    if close < 0:
        raise ValueError(f"unterminated {tag} at line {_line(text, body)}")
    return close + len(tag)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
