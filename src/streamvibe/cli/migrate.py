"""``streamvibe migrate``: bring the database's schema to this release, or print it."""

from typing import Annotated

import typer

from streamvibe.cli.output import AsJson, database_dsn, print_json
from streamvibe.db.migrate import migrate, pending
from streamvibe.db.migrate_files import SqlFile
from streamvibe.db.migrate_render import render_sql
from streamvibe.masking import mask_url

PrintSql = Annotated[
    bool,
    typer.Option("--sql", help="Print the whole schema for psql or Supabase; no database is needed."),
]
Check = Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if something is pending.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another migration to end.")]
LockTimeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for a table somebody locked.")]


def migrate_command(
    print_sql: PrintSql = False,
    check: Check = False,
    wait: Wait = 60.0,
    lock_timeout: LockTimeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema to this release, and make the partitions of the next four weeks.

    Safe to run again, and from several places at once. The role it runs as owns the schema afterwards.
    """
    if print_sql:
        if check or as_json:
            raise typer.BadParameter("--sql prints a script: leave --check and --json out")
        typer.echo(render_sql(), nl=False)
        return
    dsn = database_dsn()
    if check:
        files = pending(dsn)
        _print_pending(files, as_json=as_json)
        raise typer.Exit(1 if files else 0)
    report = migrate(
        dsn,
        wait_seconds=wait,
        lock_timeout_seconds=lock_timeout,
        report=lambda line: typer.echo(line, err=as_json),
    )
    if as_json:
        print_json(report)
    else:
        state = "is now that of" if report.applied else "is already that of"
        where = f"PostgreSQL {report.server_version}, {mask_url(dsn)}"
        typer.echo(f"The schema {state} StreamVibe {report.release} ({where}).")


def _print_pending(files: tuple[SqlFile, ...], *, as_json: bool) -> None:
    if as_json:
        pairs = [{"kind": file.kind, "name": file.name} for file in files]
        print_json({"up_to_date": not files, "pending": pairs})
    elif files:
        typer.echo("\n".join(["Pending:", *(f"  {file}" for file in files), "Run `streamvibe migrate`."]))
    else:
        typer.echo("The schema is up to date.")
