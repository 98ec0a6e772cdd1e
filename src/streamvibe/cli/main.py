"""``streamvibe``: where the commands are wired together, and where errors become lines and exit statuses.

Exit status: 0 done, 1 the thing asked about is unhealthy or failed, 2 wrong usage, 3 database unreachable,
130 interrupted.
"""

import importlib.metadata
import os
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from streamvibe.cli.bench import bench_app, with_values
from streamvibe.cli.db import db_app
from streamvibe.cli.demo import demo_command
from streamvibe.cli.doctor import doctor_command
from streamvibe.cli.explain import explain_command
from streamvibe.cli.group import Commands
from streamvibe.cli.jobs import jobs_app
from streamvibe.cli.jobs_why import why_command
from streamvibe.cli.logs import logs_app
from streamvibe.cli.maintain import maintain_app, pause_command, pauses_command, resume_command
from streamvibe.cli.migrate import migrate_command
from streamvibe.cli.output import print_error, print_hint
from streamvibe.cli.report import report_command
from streamvibe.cli.schedule import schedule_command
from streamvibe.cli.stats import stats_command
from streamvibe.cli.wording import on_the_command_line
from streamvibe.cli.worker import up_command, worker_command
from streamvibe.cli.workers import workers_command
from streamvibe.config import ENV_PREFIX, unknown_variables
from streamvibe.errors import InvalidArgument, StreamVibeError

INTERRUPTED = 130

app = typer.Typer(
    name="streamvibe",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up_command)
app.command("demo")(demo_command)
app.command("migrate")(migrate_command)
app.command("worker")(worker_command)
jobs_app.command("why")(why_command)
app.add_typer(jobs_app, name="jobs")
app.add_typer(logs_app, name="logs")
app.command("stats")(stats_command)
app.command("workers")(workers_command)
maintain_app.command("report")(report_command)
maintain_app.command("schedule")(schedule_command)
app.add_typer(maintain_app, name="maintain")
app.command("pause")(pause_command)
app.command("resume")(resume_command)
app.command("pauses")(pauses_command)
app.command("doctor")(doctor_command)
app.command("explain")(explain_command)
app.add_typer(bench_app, name="bench")
app.add_typer(db_app, name="db")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("streamvibe"))
        raise typer.Exit


@app.callback()
def options(
    database_url: Annotated[
        str | None,
        typer.Option(help="The database to use, in place of STREAMVIBE_DATABASE_URL or the embedded one."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Background jobs for multi-tenant apps, inside the PostgreSQL you already run.

    These options may stand before or after the command. Commands that print data take --json. Exit status:
    0 done, 1 failed or unhealthy, 2 wrong usage, 3 database unreachable.
    """
    if database_url is not None:
        # Every command reads its settings when it runs, and an argument wins over the environment.
        os.environ[ENV_PREFIX + "DATABASE_URL"] = database_url


def main() -> None:
    """The console script."""
    status = 1
    try:
        try:
            status = run(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Who read it has seen enough; at its end Python would try again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    as_json, debug = "--json" in arguments, "--debug" in arguments
    if _command(arguments) == "bench":
        arguments = with_values(arguments)
    arguments = _in_their_places(arguments)
    for name, meant in unknown_variables().items():
        see = f"Did you mean {meant}?" if meant is not None else "See docs/reference/settings.md"
        print_hint(f"There is no setting {name}: it is passed over. {see}", as_json=as_json)
    try:
        status = app(arguments, prog_name="streamvibe", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return error.exit_code
        _show(_usage(error, arguments), as_json=as_json, debug=debug)
        return error.exit_code
    except StreamVibeError as error:
        _show(on_the_command_line(error), as_json=as_json, debug=debug)
        return error.exit_status
    except (Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        unexpected = StreamVibeError(
            "Something went wrong that StreamVibe did not foresee",
            received=" ".join(f"{type(error).__name__}: {error}".split())[:500],
            fix="Run it again with --debug, and report what it prints",
        )
        unexpected.__cause__ = error
        _show(unexpected, as_json=as_json, debug=debug)
        return unexpected.exit_status


_BEFORE = ("--debug", "--version")
_DATABASE = "--database-url"


def _command(arguments: list[str]) -> str | None:
    """The first that is neither an option nor an option's value."""
    return next(
        (
            argument
            for argument, before in zip(arguments, ["", *arguments], strict=False)
            if not argument.startswith("-") and before != _DATABASE
        ),
        None,
    )


def _in_their_places(arguments: list[str]) -> list[str]:
    """Let --json also stand before the command, and the options of all commands after it."""
    first, last, rest = [], [], []
    given = iter(arguments)
    for argument in given:
        if argument == "--json":
            last = [argument]
        elif argument in _BEFORE or argument.startswith(_DATABASE + "="):
            first.append(argument)
        elif argument == _DATABASE:
            value = next(given, None)
            if value is None or value.startswith("-"):
                return [argument]  # which is refused for want of a value
            first += [argument, value]
        else:
            rest.append(argument)
    return [*first, *rest, *last]


#: What may be wanted by somebody who leaves an option out.
_OTHER_WAYS = {
    ("streamvibe jobs list", "--user"): "; `streamvibe jobs search` looks at the jobs of all users"
}


def _usage(error: TyperException, arguments: list[str]) -> InvalidArgument:
    """What the parser says, with the option or argument at fault and what was typed for it."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context is not None else "streamvibe"
    names: list[str] = [] if parameter is None else [*parameter.opts, *parameter.secondary_opts]
    if (name := getattr(error, "option_name", None)) is not None:
        names = [name]
    typed = [argument for argument in arguments if argument not in ("--json", *_BEFORE)]
    values = [
        argument.partition("=")[2] if "=" in argument else following
        for argument, following in zip(typed, [*typed[1:], ""], strict=True)
        if argument.partition("=")[0] in names and (following or "=" in argument)
    ]
    is_missing = "option_name" in vars(error) or type(error).__name__ == "MissingParameter"
    return InvalidArgument(
        error.format_message(),
        field=names[0] if names else None,
        received=values[-1] if values and not is_missing else None,
        fix=f"See `{command} --help`" + _OTHER_WAYS.get((command, "".join(names)), ""),
    )


def _show(error: StreamVibeError, *, as_json: bool, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    print_error(error, as_json=as_json)


if __name__ == "__main__":
    main()
