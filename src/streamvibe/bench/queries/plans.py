"""What the server did inside one statement, the functions it called included, as auto_explain tells it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.errors import Diagnostic

from streamvibe.errors import NotAllowed

#: A plan that reads so many blocks for so few rows is worth a look.
MANY_BLOCKS, BLOCKS_PER_ROW = 1000, 50
#: Beyond this many rows a scan of a whole table is no small matter.
MANY_ROWS = 1000
LONG_PLANNING_MS = 10.0

_SETTINGS = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_buffers = on",
    "SET auto_explain.log_format = json",
    "SET client_min_messages = log",
)


@dataclass
class Plan:
    """One statement: its text, its plan tree, and what the tree says."""

    text: str
    tree: dict[str, Any]
    milliseconds: float
    nodes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = list(_walk(self.tree))

    @property
    def blocks(self) -> int:
        """Of 8 KiB, found in memory or read."""
        return int(self.tree.get("Shared Hit Blocks", 0)) + int(self.tree.get("Shared Read Blocks", 0))

    @property
    def rows(self) -> float:
        """How many rows it gave, or changed."""
        return max(float(node.get("Actual Rows", 0)) for node in self.nodes)

    def indexes(self) -> list[str]:
        """The indexes that were read, as leaves have them."""
        return [
            node["Index Name"] for node in self.nodes if "Index Name" in node and node.get("Actual Loops", 0)
        ]

    def verdicts(self) -> list[str]:
        """What is worth a look: see `MANY_BLOCKS` and its like."""
        found = []
        for node in self.nodes:
            looked_at = (
                float(node.get("Actual Rows", 0)) + float(node.get("Rows Removed by Filter", 0))
            ) * float(node.get("Actual Loops", 0))
            if node["Node Type"] == "Seq Scan" and looked_at > MANY_ROWS:
                found.append(
                    f"Seq Scan of {node.get('Relation Name')}, {looked_at:,.0f} rows: an index is missing"
                )
            removed = float(node.get("Rows Removed by Filter", 0)) * float(node.get("Actual Loops", 0))
            if "Index Name" in node and removed > MANY_ROWS and removed > 20 * self.rows:
                found.append(
                    f"{node['Node Type']} using {node['Index Name']} passed over {removed:,.0f} rows: "
                    "another index is missing"
                )
            if node["Node Type"] == "Nested Loop" and looked_at > 100 * MANY_ROWS:
                found.append(f"Nested Loop over {looked_at:,.0f} rows: another way to join would be faster")
        if self.blocks > MANY_BLOCKS and self.blocks > BLOCKS_PER_ROW * max(self.rows, 1):
            found.append(
                f"{self.blocks:,} blocks for {self.rows:,.0f} rows: the table or an index is bloated"
            )
        return found


@contextmanager
def watched(conn: psycopg.Connection[Any]) -> Iterator[list[Plan]]:
    """Fills the list it gives with the plan of every statement that ends on the connection in the block.

    For superusers, who may load auto_explain. Raises NotAllowed for others.
    """
    plans: list[Plan] = []

    def notice(diagnostic: Diagnostic) -> None:
        message = diagnostic.message_primary or ""
        if message.startswith("duration: ") and "plan:" in message:
            head, _, text = message.partition("plan:")
            document = json.loads(text)
            plans.append(Plan(document.get("Query Text", ""), document["Plan"], float(head.split()[1])))

    try:
        for setting in _SETTINGS:
            conn.execute(setting.encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotAllowed(
            "only a superuser may look into functions",
            received=conn.info.user,
            fix="Connect as a superuser, or add auto_explain to session_preload_libraries",
        ) from error
    conn.add_notice_handler(notice)
    try:
        yield plans
    finally:
        conn.remove_notice_handler(notice)
        conn.execute("SET auto_explain.log_min_duration = -1")
        conn.execute("RESET client_min_messages")


def parents(conn: psycopg.Connection[Any], leaves: Sequence[str]) -> list[str]:
    """The indexes of the partitioned tables that these belong to, each once, in order; others as they are."""
    found = conn.execute(
        """
        SELECT coalesce(p.relname, u.name) FROM unnest(%s::text[]) WITH ORDINALITY u(name, n)
        LEFT JOIN pg_catalog.pg_class c ON c.relname = u.name AND c.relkind = 'i'
        LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
        LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
        ORDER BY u.n
        """,
        [list(leaves)],
    )
    return list(dict.fromkeys(str(name) for (name,) in found))


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)
