"""``streamvibe db start|stop|status|url``: the embedded database by hand."""

from typing import Annotated

import psycopg
import typer

from streamvibe.cli.group import Commands
from streamvibe.cli.output import AsJson, print_hint, print_json
from streamvibe.client import SyncClient
from streamvibe.config import Settings
from streamvibe.db import embedded
from streamvibe.db.embedded_layout import Layout
from streamvibe.masking import holds_secret

_CONNECTIONS = """
SELECT coalesce(nullif(substring(application_name FROM '^(streamvibe|[^ ]*)'), ''), 'a nameless program'), count(*)
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1
"""

db_app = typer.Typer(cls=Commands, help="Start, stop or find the embedded database.", no_args_is_help=True)


@db_app.command("start")
def start(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL, or find it running. It stays up until `streamvibe db stop`.

    With STREAMVIBE_DATABASE_URL set nothing is started: that database is the one in use.
    """
    settings = Settings()
    if settings.database_url is not None:
        _print(
            as_json,
            "STREAMVIBE_DATABASE_URL is set: that database is used, the embedded one is not started.\n"
            f"{settings.database_url}",
            state="external",
            url=str(settings.database_url),
        )
        return
    server = embedded.ensure_running(settings)
    lines = [
        "The embedded database was started." if server.started else "The embedded database runs already."
    ]
    lines.append(f"url   {server.url}")
    if server.tcp_url is not None:
        lines.append(f"tcp   {server.tcp_url}")
    elif settings.embedded_ports is not None:
        lines.append(
            "tcp   closed: it was started without STREAMVIBE_EMBEDDED_PORTS; stop it and start it again"
        )
    lines += [f"data  {server.data_directory}", f"log   {server.log_directory}"]
    _print(
        as_json,
        "\n".join(lines),
        state="running",
        started=server.started,
        url=server.url,
        tcp_url=server.tcp_url,
        password_file=server.password_file and str(server.password_file),
        pid=server.pid,
        data_directory=str(server.data_directory),
        log_directory=str(server.log_directory),
    )


@db_app.command("stop")
def stop(as_json: AsJson = False) -> None:
    """Stop the embedded PostgreSQL; its data stay. Transactions still open are rolled back.

    With STREAMVIBE_DATABASE_URL set nothing is stopped: unset it to stop the embedded one.
    """
    settings = Settings()
    if settings.database_url is not None:
        _print(
            as_json,
            "STREAMVIBE_DATABASE_URL is set: that database is left alone, and nothing was stopped.\n"
            "To stop the embedded one, unset STREAMVIBE_DATABASE_URL and run it again.",
            state="external",
            stopped=False,
            url=str(settings.database_url),
        )
        return
    connections = _connections(settings)
    stopped = embedded.stop(settings)
    text = "The embedded database was stopped." if stopped else "The embedded database was not running."
    if connections:
        names = ", ".join(sorted(connections))
        count = sum(connections.values())
        text += f"\nIt had {count} connection{'s' if count > 1 else ''}, of {names}: what still runs waits for it."
    _print(as_json, text, state="stopped", stopped=stopped, connections=sum(connections.values()))


@db_app.command("status")
def status(as_json: AsJson = False) -> None:
    """Tell whether the database runs, and where it is; starts nothing. Exit status: 0 it runs, 1 it does not.

    With STREAMVIBE_DATABASE_URL set that database is asked, and exit status 3 is that it cannot be reached.
    JSON: state (running, stopped or external), url, and of the embedded one tcp_url, pid, data_directory,
    log_directory.
    """
    settings = Settings()
    if settings.database_url is not None:
        with SyncClient(settings.database_url.get_secret_value(), max_size=1):
            shown = str(settings.database_url)
            _print(as_json, f"STREAMVIBE_DATABASE_URL answers.\nurl   {shown}", state="external", url=shown)
        return
    server = embedded.status(settings)
    data = server.data_directory if server else Layout(settings.home).data
    lines = ["The embedded database runs." if server else "The embedded database does not run."]
    if server is not None:
        lines += [f"url   {server.url}", *([f"tcp   {server.tcp_url}"] if server.tcp_url else [])]
        lines += [f"pid   {server.pid}"]
    lines += [f"data  {data}", f"log   {data / 'log'}"]
    _print(
        as_json,
        "\n".join(lines),
        state="running" if server else "stopped",
        url=server and server.url,
        tcp_url=server and server.tcp_url,
        pid=server and server.pid,
        data_directory=str(data),
        log_directory=str(data / "log"),
    )
    if server is None:
        raise typer.Exit(1)


@db_app.command("url")
def url(
    as_json: AsJson = False,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Print STREAMVIBE_DATABASE_URL with its password.")
    ] = False,
) -> None:
    """Print the database's URL, as in: psql "$(streamvibe db url)". Starts the embedded database if need be.

    The embedded database's URL holds no password. That of STREAMVIBE_DATABASE_URL is masked unless
    --show-password is given.
    """
    settings = Settings()
    if settings.database_url is None:
        value = embedded.ensure_running(settings).url
    elif show_password:
        value = settings.database_url.get_secret_value()
    else:
        value = str(settings.database_url)
        if holds_secret(settings.database_url.get_secret_value()):
            print_hint("The password is masked: --show-password prints it.")
    _print(as_json, value, state="running" if settings.database_url is None else "external", url=value)


def _connections(settings: Settings) -> dict[str, int]:
    """How many connections each program has to the embedded database, by the first words of its name."""
    server = embedded.status(settings)
    if server is None:
        return {}
    try:
        with psycopg.connect(server.url, connect_timeout=2) as conn:
            return dict(conn.execute(_CONNECTIONS).fetchall())
    except psycopg.Error:  # then it has none, or nobody can tell
        return {}


def _print(as_json: bool, text: str, **values: object) -> None:
    if as_json:
        print_json(values)
    else:
        print(text)
