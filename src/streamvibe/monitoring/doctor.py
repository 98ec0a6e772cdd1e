"""What is wrong with the queue and its database, worst first.

Each check is a file in ``sql/lints``: its first comment line says what is wrong, those below why that matters, and its
one SELECT returns a row per finding: severity, subject, measured, fix. Checks write nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import psycopg

from streamvibe.db.migrate import LedgerUnreadable, pending_on
from streamvibe.errors import MigrationRefused

SEVERITIES = ("critical", "warning", "notice")
#: What a check meets where what it asks is not there: no such schema, function, table or column.
_NOT_THERE = frozenset({"3F000", "42883", "42P01", "42703"})
#: A check that reads this long says so, and the next one is asked.
PATIENCE = "15s"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong."""

    check: str
    """The name of the check."""
    severity: str
    """critical: the queue does not work, or soon will not; warning: it costs or loses something; notice: to know."""
    title: str
    subject: str
    measured: str
    why: str
    fix: str
    """SQL or a shell command, to be run as it is."""


@dataclass(frozen=True, slots=True)
class Check:
    """A file of sql/lints."""

    name: str
    title: str
    why: str
    sql: str


def checks() -> Sequence[Check]:
    """All of them, by name."""
    return sorted(_read(), key=lambda check: check.name)


def _read() -> Iterator[Check]:
    for file in files("streamvibe").joinpath("sql", "lints").iterdir():
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            head = [line[3:] for line in text.splitlines() if line.startswith("-- ")]
            # Comments further down belong to the SQL.
            length = next(place for place, line in enumerate(text.splitlines()) if not line.startswith("-- "))
            yield Check(file.name.removesuffix(".sql"), head[0], " ".join(head[1:length]), text)


def examine(conn: psycopg.Connection[Any]) -> list[Finding]:
    """Everything that is wrong, worst first. ``conn`` is in autocommit mode; each check is a transaction of its own.

    A check that could not be made is a finding as well, unless it is for want of the schema, which is one finding for
    all. Raises psycopg.OperationalError when the connection breaks.
    """
    schema = _schema(conn)
    found = [finding for check in checks() for finding in _findings(conn, check, is_complete=not schema)]
    # What else is wrong may be for want of the schema.
    return schema + sorted(found, key=lambda finding: (SEVERITIES.index(finding.severity), finding.check))


def _schema(conn: psycopg.Connection[Any]) -> list[Finding]:
    """Whether the schema is not there, or not this release's."""
    try:
        files = pending_on(conn)
    except LedgerUnreadable:  # nobody can tell; what the checks ask for may be there all the same
        return []
    except MigrationRefused as error:
        title, fix = "The schema does not fit this release", error.fix or "streamvibe migrate"
        measured = f"{error.message}: {error.received}" if error.received else error.message
    else:
        if not files:
            return []
        is_there = any(conn.execute("SELECT to_regclass('streamvibe.schema_migration')").fetchone() or ())
        title = "The schema is older than this release" if is_there else "There is no schema"
        count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
        measured, fix = f"{count} pending, the first {files[0]}", "streamvibe migrate"
    why = "Commands, workers and maintenance of this release fail where what they ask for is not there."
    return [Finding("schema", "critical", title, f"database {conn.info.dbname}", measured, why, fix)]


def _findings(conn: psycopg.Connection[Any], check: Check, *, is_complete: bool) -> list[Finding]:
    try:
        with conn.transaction():
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute(f"SET LOCAL statement_timeout = '{PATIENCE}'".encode())
            # A leaf that is just being dropped.
            conn.execute("SET LOCAL lock_timeout = '2s'")
            rows = conn.execute(check.sql.encode()).fetchall()
    except psycopg.OperationalError as error:
        if conn.closed:
            raise
        return [_unchecked(check, error)]
    except psycopg.Error as error:
        return [_unchecked(check, error)] if is_complete or error.sqlstate not in _NOT_THERE else []
    return [
        Finding(check.name, severity, check.title, subject, measured, check.why, fix)
        for severity, subject, measured, fix in rows
    ]


def _unchecked(check: Check, error: psycopg.Error) -> Finding:
    what = str(error.diag.message_primary or error)
    fix = (
        "Run streamvibe doctor as the owner of the tables, with the role pg_monitor"
        if isinstance(error, psycopg.errors.InsufficientPrivilege)
        else "Run streamvibe doctor again; report it if that does not help"
    )
    return Finding(
        check.name, "warning", f"Not checked: {check.title}", check.name, what[:300], check.why, fix
    )
