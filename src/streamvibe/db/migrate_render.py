"""Print the whole schema as one SQL script, for psql or the Supabase SQL editor."""

from pathlib import Path

from psycopg import sql

from streamvibe.db.migrate import (
    DEFAULT_LOCK_TIMEOUT_SECONDS,
    LOCK_KEY,
    RECORD,
    SESSION_SETTINGS,
    check_settings,
    runner_sql,
)
from streamvibe.db.migrate_files import SQL_ROOT, SqlFile, SqlTree, load_tree
from streamvibe.db.migrate_split import split_statements

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
_LOCK = f"""\
DO $$
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock({LOCK_KEY}) THEN
        RAISE EXCEPTION 'another migration of this database is running' USING ERRCODE = 'SV013',
            HINT = 'Run this again when it has ended.';
    END IF;
END
$$;"""


def render_sql(root: Path = SQL_ROOT) -> str:
    """The script that does what `migrate` does, ledger included: `migrate` then finds the database up to date.

    Plain SQL in one transaction, more only where a migration must run outside of one. On a database that has
    some of it already, the migrations it has are left out and the functions and policies are made again.
    """
    tree = load_tree(root)
    parts = [
        f"-- StreamVibe {tree.release}: the whole schema. Apply it with: psql -v ON_ERROR_STOP=1 -f FILE\n"
        "-- It may be applied again: what this database already has stays as it is.",
        *_begin(tree),
        runner_sql("checks.sql"),
        runner_sql("rights.sql"),
        runner_sql("ledger.sql"),
    ]
    for file in tree.migrations:
        parts += [_title(file), *_migration(file, tree)]
    # Functions call each other; none has to come before another.
    parts.append("SET LOCAL check_function_bodies = off;")
    for file in (*tree.functions, *tree.policies):
        parts += [_title(file), file.text.strip(), _record(file, tree.release)]
    parts.append("COMMIT;")
    if tree.makes_partitions:
        parts.append("SELECT partition_name FROM public.ensure_partitions();")
    return "\n\n".join(parts) + "\n"


def _begin(tree: SqlTree) -> list[str]:
    settings = {
        "client_encoding": "UTF8",
        **SESSION_SETTINGS,
        "lock_timeout": f"{DEFAULT_LOCK_TIMEOUT_SECONDS:g}s",
        **check_settings(tree),
    }
    local = "\n".join(f"SET LOCAL {name} = {_literal(value)};" for name, value in settings.items())
    return [_BEGIN, local, _LOCK]


def _migration(file: SqlFile, tree: SqlTree) -> list[str]:
    if file.in_transaction:
        tag = f"$migration_{file.version:04}$"
        execute = f"EXECUTE {tag}\n{file.text.strip()}\n{tag};"
        return [_if_applied(file, "NOT EXISTS", f"{execute}\n{_record(file, tree.release)}")]
    problem = _literal(f"{file.name} was applied here already, and this script cannot leave it out")
    refuse = (
        f"RAISE EXCEPTION USING ERRCODE = 'SV013', MESSAGE = {problem},\n"
        "    HINT = 'Run streamvibe migrate, which leaves it out.';"
    )
    # No condition can stand around statements outside a transaction: a second run stops before them.
    return [
        _if_applied(file, "EXISTS", refuse),
        "COMMIT;",
        "SET lock_timeout = 0;\nSET client_min_messages = 'warning';",
        *(f"{statement};" for statement in split_statements(file.text)),
        *_begin(tree),
        _record(file, tree.release),
    ]


def _if_applied(file: SqlFile, condition: str, action: str) -> str:
    tag = f"$once_{file.version:04}$"
    return (
        f"DO {tag}\nBEGIN\n"
        f"IF {condition} (SELECT FROM streamvibe.schema_migration m WHERE m.version = {file.version}) THEN\n"
        f"{action}\nEND IF;\nEND\n{tag};"
    )


def _record(file: SqlFile, release: str) -> str:
    version = "NULL" if file.version is None else str(file.version)
    values = [_literal(file.kind), _literal(file.name), version, _literal(file.checksum), _literal(release)]
    return RECORD.strip().format(*values) + ";"


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None)


def _title(file: SqlFile) -> str:
    return f"-- {file}"
