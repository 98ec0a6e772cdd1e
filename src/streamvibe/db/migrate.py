"""Bring a database's schema to this release.

Files are applied in this order, under one advisory lock per database:

1. ``sql/migrations/NNNN_name.sql``: once each, in order, each in a transaction of its own. A released one is
   never edited. One that starts with ``-- streamvibe: no-transaction`` runs statement by statement outside a
   transaction; killed half-way it runs again from its start, so each of its statements must bear that.
2. ``sql/functions/**/*.sql``, when their checksum changed, and ``sql/policies/*.sql``, when anything before
   them changed: together in one transaction, so that no function is ever there without its grants.
3. ``ensure_partitions()``.

What was applied stands in ``streamvibe.schema_migration``. The connection must not go through a pooler in
transaction mode: the lock belongs to the session.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow

from streamvibe.db.migrate_files import SQL_ROOT, SqlFile, SqlTree, load_tree
from streamvibe.db.migrate_split import split_statements
from streamvibe.errors import MigrationRefused, from_postgres, translated
from streamvibe.masking import mask_url

LOCK_KEY = int.from_bytes(b"StreamVb")
"""The advisory lock that a migration holds: one at a time in each database."""

LOCK_POLL_SECONDS = 0.1
CONNECT_SECONDS = 10

# What the settings of a role or a database could spoil. Without a search_path, files name every schema.
SESSION_SETTINGS = {
    "statement_timeout": "0",
    "search_path": "",
    "client_min_messages": "warning",
    "default_table_access_method": "heap",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "standard_conforming_strings": "on",
}
DEFAULT_LOCK_TIMEOUT_SECONDS = 10.0
RECORD = """
INSERT INTO streamvibe.schema_migration (kind, name, version, checksum, release)
VALUES ({}, {}, {}, {}, {})
ON CONFLICT (kind, name) DO UPDATE
SET checksum = excluded.checksum, release = excluded.release, applied_at = pg_catalog.clock_timestamp()
"""

Report = Callable[[str], None]


class LedgerUnreadable(MigrationRefused):
    """This role cannot tell whether anything is pending; ``received`` is its name. Nothing was done."""


@dataclass(frozen=True)
class AppliedFile:
    """A file that was applied, and how long that took."""

    kind: Literal["migration", "function", "policy"]
    name: str
    seconds: float


@dataclass(frozen=True)
class MigrationReport:
    """What a migration did. ``partitions`` are the names of the leaves it made."""

    database: str
    server_version: str
    release: str
    applied: tuple[AppliedFile, ...]
    partitions: tuple[str, ...]


def migrate(
    dsn: str,
    *,
    root: Path = SQL_ROOT,
    wait_seconds: float = 60,
    lock_timeout_seconds: float = DEFAULT_LOCK_TIMEOUT_SECONDS,
    report: Report = lambda _line: None,
) -> MigrationReport:
    """Apply everything that is pending and make the partitions of the next weeks.

    Waits up to ``wait_seconds`` for another migration, and up to ``lock_timeout_seconds`` for each table that
    another session has locked: the application never queues behind a migration for longer than that.
    ``report`` gets one line per step. Run it as the role that shall own the schema.

    Raises MigrationRefused (field: the file, table, role or setting at fault), DatabaseUnreachable.
    """
    tree = load_tree(root)
    with _connection(dsn, lock_timeout_seconds) as conn:
        _lock(conn, wait_seconds, report)
        _check(conn, tree)
        plan = _plan(conn, tree)
        applied = []
        if plan.files:
            _run_checks(conn, "rights.sql")
            with conn.transaction():
                conn.execute(runner_sql("ledger.sql").encode())
            for file in plan.migrations:
                applied.append(_apply_migration(conn, file, tree.release))
                report(f"Applied migration {file.name} ({applied[-1].seconds:.2f} s)")
            applied += _apply_functions(conn, plan, tree)
            report(f"Applied functions: {len(plan.functions)}, policies: {len(plan.policies)}")
        partitions = _ensure_partitions(conn) if tree.makes_partitions else ()
        if partitions:
            report(f"Made {len(partitions)} partitions: {partitions[0]} to {partitions[-1]}")
        # Not left to the end of the session, which comes a moment after the connection is closed here.
        # Until then the next migration would be refused.
        conn.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", [LOCK_KEY])
        return MigrationReport(
            database=conn.info.dbname,
            server_version=conn.info.parameter_status("server_version") or "",
            release=tree.release,
            applied=tuple(applied),
            partitions=partitions,
        )


def pending(dsn: str, *, root: Path = SQL_ROOT) -> tuple[SqlFile, ...]:
    """The files that `migrate` would apply, in order; empty when the database is up to date. Writes nothing.

    Raises MigrationRefused where `migrate` would refuse the database, DatabaseUnreachable.
    """
    tree = load_tree(root)
    with _connection(dsn, DEFAULT_LOCK_TIMEOUT_SECONDS) as conn:
        _check(conn, tree)
        return _plan(conn, tree).files


def pending_on(conn: Connection[Any]) -> tuple[SqlFile, ...]:
    """As `pending`, over a connection that is there: also a standby's, which follows its primary.

    Raises MigrationRefused, LedgerUnreadable.
    """
    tree = load_tree(SQL_ROOT)
    with translated(), conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        if not _fetch_value(conn, "SELECT pg_catalog.pg_is_in_recovery()", []):
            _check(conn, tree)
        return _plan(conn, tree).files


@dataclass(frozen=True)
class _Plan:
    migrations: tuple[SqlFile, ...]
    functions: tuple[SqlFile, ...]
    policies: tuple[SqlFile, ...]

    @property
    def files(self) -> tuple[SqlFile, ...]:
        return self.migrations + self.functions + self.policies


def _plan(conn: Connection[TupleRow], tree: SqlTree) -> _Plan:
    ledger: dict[tuple[str, str], str] = {}
    if _exists(conn, "streamvibe.schema_migration"):
        rows = conn.execute("SELECT kind, name, checksum FROM streamvibe.schema_migration").fetchall()
        ledger = {(kind, name): checksum for kind, name, checksum in rows}

    def changed(files: tuple[SqlFile, ...]) -> tuple[SqlFile, ...]:
        return tuple(file for file in files if ledger.get((file.kind, file.name)) != file.checksum)

    migrations = changed(tree.migrations)
    # A migration may have dropped any function (to change its signature, say): then all are made again.
    functions = tree.functions if migrations else changed(tree.functions)
    policies = tree.policies if functions or migrations or changed(tree.policies) else ()
    return _Plan(migrations, functions, policies)


def _apply_migration(conn: Connection[TupleRow], file: SqlFile, release: str) -> AppliedFile:
    started = time.monotonic()
    if file.in_transaction:
        with _naming(file, "Nothing of this file was applied"), conn.transaction():
            conn.execute(file.text.encode())
            _record(conn, file, release)
    else:
        with _naming(file, "Statements before that line have run; the file runs again from its start"):
            # Building an index concurrently waits for all transactions of its time, and blocks none of them.
            with _setting(conn, "lock_timeout", "0"):
                for statement in split_statements(file.text):
                    conn.execute(statement.encode())
            _record(conn, file, release)
    return AppliedFile(file.kind, file.name, time.monotonic() - started)


def _apply_functions(conn: Connection[TupleRow], plan: _Plan, tree: SqlTree) -> list[AppliedFile]:
    applied = []
    with conn.transaction():
        # Functions call each other; none has to come before another.
        conn.execute("SET LOCAL check_function_bodies = off")
        for file in (*plan.functions, *plan.policies):
            started = time.monotonic()
            with _naming(file, "No function and no policy of this run was applied"):
                conn.execute(file.text.encode())
            _record(conn, file, tree.release)
            applied.append(AppliedFile(file.kind, file.name, time.monotonic() - started))
        conn.execute(
            "DELETE FROM streamvibe.schema_migration WHERE (kind = 'function' AND name <> ALL (%s))"
            " OR (kind = 'policy' AND name <> ALL (%s))",
            [[file.name for file in tree.functions], [file.name for file in tree.policies]],
        )
    return applied


@contextmanager
def _setting(conn: Connection[TupleRow], name: str, value: str) -> Iterator[None]:
    before = _fetch_value(conn, "SELECT pg_catalog.current_setting(%s)", [name])
    _set(conn, name, value)
    yield
    _set(conn, name, before)


def _set(conn: Connection[TupleRow], name: str, value: str) -> None:
    conn.execute("SELECT pg_catalog.set_config(%s, %s, false)", [name, value])


def _record(conn: Connection[TupleRow], file: SqlFile, release: str) -> None:
    values = [file.kind, file.name, file.version, file.checksum, release]
    conn.execute(RECORD.format(*["%s"] * len(values)).encode(), values)


def _ensure_partitions(conn: Connection[TupleRow]) -> tuple[str, ...]:
    rows = conn.execute("SELECT partition_name FROM public.ensure_partitions() ORDER BY 1").fetchall()
    return tuple(name for (name,) in rows)


def check_settings(tree: SqlTree) -> dict[str, str]:
    """What the statements in ``sql/runner/checks.sql`` read."""
    known = [
        {"version": file.version, "name": file.name, "checksum": file.checksum} for file in tree.migrations
    ]
    public = [Path(file.name).stem for file in tree.functions if Path(file.name).parent.name != "internal"]
    return {
        "streamvibe.known_migrations": orjson.dumps(known).decode(),
        "streamvibe.known_functions": orjson.dumps(public).decode(),
        "streamvibe.release": tree.release,
    }


def _check(conn: Connection[TupleRow], tree: SqlTree) -> None:
    for name, value in check_settings(tree).items():
        _set(conn, name, value)
    _run_checks(conn, "checks.sql")


def _run_checks(conn: Connection[TupleRow], name: str) -> None:
    try:
        conn.execute(runner_sql(name).encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise LedgerUnreadable(
            "This role may not read which migrations were applied",
            field="role",
            received=conn.info.user,
            fix="Run it as the role that owns the schema streamvibe",
        ) from error


def runner_sql(name: str) -> str:
    """A statement of the runner's own, from ``sql/runner``."""
    return (SQL_ROOT / "runner" / name).read_text(encoding="utf-8")


def _exists(conn: Connection[TupleRow], relation: str) -> bool:
    row = conn.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [relation]).fetchone()
    return row is not None and bool(row[0])


@contextmanager
def _connection(dsn: str, lock_timeout_seconds: float) -> Iterator[Connection[TupleRow]]:
    arguments: dict[str, Any] = {"application_name": "streamvibe migrate", "connect_timeout": CONNECT_SECONDS}
    with (
        translated(mask_url(dsn)),
        psycopg.connect(dsn, autocommit=True, prepare_threshold=None, **arguments) as conn,
    ):
        conn.isolation_level = IsolationLevel.READ_COMMITTED
        settings = {**SESSION_SETTINGS, "lock_timeout": f"{lock_timeout_seconds * 1000:.0f}ms"}
        for name, value in settings.items():
            _set(conn, name, value)
        yield conn


def _lock(conn: Connection[TupleRow], wait_seconds: float, report: Report) -> None:
    # Polled: a session waiting inside pg_advisory_lock() holds a snapshot, and CREATE INDEX CONCURRENTLY in
    # the session it waits for would wait for that snapshot to go.
    deadline = time.monotonic() + wait_seconds
    waiting = False
    while not _fetch_value(conn, "SELECT pg_catalog.pg_try_advisory_lock(%s)", [LOCK_KEY]):
        holder = _lock_holder(conn)
        if time.monotonic() >= deadline:
            raise MigrationRefused(
                f"Another migration of this database did not end within {wait_seconds:g} seconds",
                field="wait_seconds",
                received=f"process {holder}",
                fix=f"Wait for it and run this again, or end it: SELECT pg_terminate_backend({holder})",
            )
        if not waiting:
            report(f"Waiting for another migration of this database (process {holder})")
            waiting = True
        time.sleep(LOCK_POLL_SECONDS)


def _lock_holder(conn: Connection[TupleRow]) -> int | None:
    return _fetch_value(  # type: ignore[no-any-return]
        conn,
        "SELECT (SELECT l.pid FROM pg_catalog.pg_locks l"
        " JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = current_database()"
        " WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = %s)",
        [LOCK_KEY],
    )


def _fetch_value(conn: Connection[TupleRow], query: str, values: list[Any]) -> Any:
    row = conn.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def _naming(file: SqlFile, consequence: str) -> Iterator[None]:
    """Name the file in whatever goes wrong in it."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationRefused(
            f"A table that {file.kind} {file.name} needs stayed locked by another session",
            field=file.name,
            received=error.diag.message_primary,
            fix=f"{consequence}. Run it again when that session is done; pg_stat_activity shows it",
        ) from error
    except psycopg.Error as error:
        known = from_postgres(error)
        if error.sqlstate is None and known is not None:
            raise known from error
        raise MigrationRefused(
            f"{file.kind.capitalize()} {file.name} failed{_place(file, error)}",
            field=file.name,
            received=f"{error.diag.message_primary or error} ({error.sqlstate})",
            fix=f"{consequence}. {error.diag.message_hint or 'Mend what it names, then run it again'}",
        ) from error


def _place(file: SqlFile, error: psycopg.Error) -> str:
    position = error.diag.statement_position
    if position is None or not file.in_transaction:
        return ""
    return f" at line {file.text.count(chr(10), 0, int(position) - 1) + 1}"
