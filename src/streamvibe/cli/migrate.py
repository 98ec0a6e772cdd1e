"""``streamvibe migrate``: bring the database's schema to this release, or print it."""

from typing import Annotated

import orjson
import typer

from streamvibe.config import Settings, mask_url
from streamvibe.db.embedded import database_url
from streamvibe.db.migrate import MigrationReport, migrate, pending
from streamvibe.db.migrate_files import SqlFile
from streamvibe.db.migrate_render import render_sql

_PrintSql = Annotated[
    bool,
    typer.Option("--sql", help="Print the whole schema for psql or Supabase; no database is needed."),
]
_Check = Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if something is pending.")]
_Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another migration to end.")]
_LockTimeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for a table somebody locked.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def migrate_command(
    print_sql: _PrintSql = False,
    check: _Check = False,
    wait: _Wait = 60.0,
    lock_timeout: _LockTimeout = 10.0,
    as_json: _Json = False,
) -> None:
    """Bring the database's schema to this release, and make the partitions of the next four weeks.

    Safe to run again, and from several places at once. The role it runs as owns the schema afterwards.
    """
    if print_sql:
        if check or as_json:
            raise typer.BadParameter("--sql prints a script: leave --check and --json out")
        typer.echo(render_sql(), nl=False)
        return
    dsn = database_url(Settings())
    if check:
        files = pending(dsn)
        typer.echo(_pending_json(files) if as_json else _pending_text(files))
        raise typer.Exit(1 if files else 0)
    report = migrate(
        dsn,
        wait_seconds=wait,
        lock_timeout_seconds=lock_timeout,
        report=lambda line: typer.echo(line, err=as_json),
    )
    typer.echo(_report_json(report) if as_json else _report_text(report, dsn))


def _pending_json(files: tuple[SqlFile, ...]) -> str:
    return orjson.dumps(
        {"pending": [{"kind": file.kind, "name": file.name} for file in files], "up_to_date": not files}
    ).decode()


def _pending_text(files: tuple[SqlFile, ...]) -> str:
    if not files:
        return "The schema is up to date."
    return "\n".join(["Pending:", *(f"  {file}" for file in files), "Run `streamvibe migrate`."])


def _report_json(report: MigrationReport) -> str:
    return orjson.dumps(report).decode()


def _report_text(report: MigrationReport, dsn: str) -> str:
    state = "is now that of" if report.applied else "is up to date with"
    return f"The schema {state} StreamVibe {report.release} (PostgreSQL {report.server_version}, {mask_url(dsn)})."
