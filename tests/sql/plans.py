"""What a statement reads of the two big tables, by its plan and those of all statements inside it."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from benchmarks.pickup import nodes
from psycopg import Connection, sql
from tests.sql import kit

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
# The pages that a transaction wrote last are not all known to be visible to everybody.
HEAP_FETCHES = 5
REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck")

Node = dict[str, Any]


@dataclass(frozen=True)
class Leaves:
    """The partitions of job_queue and job_log, and what their indexes are called."""

    count: int
    """Of the table that has more, empty ones included."""
    filled: frozenset[str]
    """Those that have rows."""
    indexes: Mapping[str, tuple[str, str]]
    """By the name of a partition's index: the named index that it belongs to, and the partition."""


@dataclass(frozen=True)
class Wanted:
    """What a statement has to use, and the most that it may read."""

    uses: Collection[str]
    may_use: Collection[str]
    index_only: bool
    rows: float
    buffers: float
    sorted: float


@dataclass(frozen=True)
class Reading:
    """What one execution read."""

    rows_returned: int
    buffers: int
    plans: Sequence[Node]


def leaves_of(conn: Connection[Any]) -> Leaves:
    """As the last ANALYZE saw them."""
    tables = kit.query(
        conn,
        """SELECT c.relname, c.reltuples > 0 AS is_filled, count(*) OVER (PARTITION BY i.inhparent) AS siblings
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent IN ('public.job_queue'::regclass, 'public.job_log'::regclass)""",
    )
    indexes = kit.query(
        conn,
        """SELECT leaf.relname AS leaf, parent.relname AS parent, x.indrelid::regclass::text AS partition
           FROM pg_index x
           JOIN pg_class leaf ON leaf.oid = x.indexrelid
           JOIN pg_inherits i ON i.inhrelid = x.indexrelid JOIN pg_class parent ON parent.oid = i.inhparent""",
    )
    return Leaves(
        max(table["siblings"] for table in tables),
        frozenset(table["relname"] for table in tables if table["is_filled"]),
        {row["leaf"]: (row["parent"], row["partition"].removeprefix("streamvibe.")) for row in indexes},
    )


@contextmanager
def nested_plans(conn: Connection[Any]) -> Iterator[list[Node]]:
    """The plans of the statements that functions run inside the block, as they end."""
    conn.execute("LOAD 'auto_explain'")
    for name, value in {
        "log_min_duration": "0",
        "log_analyze": "on",
        "log_buffers": "on",
        "log_nested_statements": "on",
        "log_timing": "off",
        "log_format": "json",
        "log_level": "notice",
    }.items():
        conn.execute("SELECT set_config(%s, %s, false)", [f"auto_explain.{name}", value])
    found: list[Node] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            found.append(json.loads(text[text.index("{") :])["Plan"])

    conn.add_notice_handler(keep)
    try:
        yield found
    finally:
        conn.remove_notice_handler(keep)
        conn.execute("SELECT set_config('auto_explain.log_min_duration', '-1', false)")


def _explained(run: Callable[[], psycopg.Cursor[Any]]) -> Node:
    """The outermost plan, of the second execution: the first also reads the catalogue."""
    run()
    [row] = run().fetchall()
    found: Node = row[0][0]["Plan"]
    return found


def _reading(outer: Node, plans: Sequence[Node]) -> Reading:
    return Reading(
        round(outer["Actual Rows"] * outer["Actual Loops"]),
        outer["Shared Hit Blocks"] + outer["Shared Read Blocks"],
        plans,
    )


def read_by_statement(conn: Connection[Any], text: str, values: Sequence[Any]) -> Reading:
    """A prepared statement with these values."""
    conn.execute(f"PREPARE read_by_statement AS {text}".encode())
    try:
        execute = sql.SQL("{} EXECUTE read_by_statement {}").format(
            sql.SQL(EXPLAIN),
            sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, values))) if values else sql.SQL(""),
        )
        outer = _explained(lambda: conn.execute(execute))
    finally:
        conn.execute("DEALLOCATE read_by_statement")
    return _reading(outer, [outer])


def read_by_function(conn: Connection[Any], function: str, arguments: Mapping[str, Any]) -> Reading:
    """A call, and all statements inside it; what it writes is taken back."""
    text = EXPLAIN.encode() + b"SELECT * FROM " + kit.call_text(conn, function, arguments)

    def run() -> psycopg.Cursor[Any]:
        with conn.transaction(force_rollback=True):
            plans.clear()
            return conn.execute(text, arguments)

    with nested_plans(conn) as plans:
        outer = _explained(run)
        return _reading(outer, list(plans))


def scans(reading: Reading, leaves: Leaves) -> Iterator[tuple[str, str | None, Node]]:
    """The scans of partitions that have rows, as far as they ran: the partition, the named index, the node."""
    for plan in reading.plans:
        for node in nodes(plan):
            if node["Node Type"] == "ModifyTable" or not node["Actual Loops"]:
                continue
            index, partition = leaves.indexes.get(node.get("Index Name", ""), (None, None))
            partition = node.get("Relation Name", partition)
            if partition in leaves.filled:
                yield partition, index, node


def rows_read(node: Node) -> int:
    """How many rows a scan looked at."""
    rows: float = (node["Actual Rows"] + sum(node.get(key, 0) for key in REMOVED)) * node["Actual Loops"]
    return round(rows)


def rows_sorted(node: Node) -> float:
    """How many rows each run of a sort was given."""
    [given] = [inner for inner in node["Plans"] if inner["Parent Relationship"] == "Outer"]
    loops: float = node["Actual Loops"]
    return given["Actual Rows"] * given["Actual Loops"] / loops if loops else 0


def problems(reading: Reading, leaves: Leaves, wanted: Wanted) -> dict[str, str]:
    """What is wrong with it, by kind: index, table, sequential, rows, buffers, sort.

    An index in which nothing was found does not matter: where a partition has none of something, two are alike.
    """
    found: dict[str, str] = {}
    seen = list(scans(reading, leaves))
    if missed := set(wanted.uses) - {index for _, index, _ in seen}:
        found["index"] = f"does not use {sorted(missed)}"
    if other := {index for _, index, node in seen if index and rows_read(node)} - {
        *wanted.uses,
        *wanted.may_use,
    }:
        found["index"] = f"uses {sorted(other)}, not {sorted(wanted.uses)}"
    fetched = sum(node.get("Heap Fetches", rows_read(node)) for _, _, node in seen)
    if wanted.index_only and fetched > HEAP_FETCHES:
        found["table"] = f"fetches {fetched} rows from the table"
    whole = [partition for partition, _, node in seen if node["Node Type"] == "Seq Scan"]
    if whole:
        found["sequential"] = f"reads all of {whole}"
    rows = sum(rows_read(node) for _, _, node in seen)
    if rows > wanted.rows:
        found["rows"] = f"looks at {rows} rows, not {wanted.rows:.0f}"
    if reading.buffers > wanted.buffers:
        found["buffers"] = f"reads {reading.buffers} buffers, not {wanted.buffers:.0f}"
    for plan in reading.plans:
        for node in nodes(plan):
            if node["Node Type"] in ("Sort", "Incremental Sort") and rows_sorted(node) > wanted.sorted:
                found["sort"] = f"sorts {rows_sorted(node):.0f} rows, not {wanted.sorted:.0f}"
    return found
