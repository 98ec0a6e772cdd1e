"""``streamvibe doctor``: what is wrong, why it matters, and what to do about it."""

import psycopg
import typer

from streamvibe.cli.output import AsJson, console, database_dsn, print_json, print_remark
from streamvibe.errors import translated
from streamvibe.masking import mask_url
from streamvibe.monitoring import Finding, examine

_COLOURS = {"critical": "bold red", "warning": "bold yellow", "notice": "bold"}


def doctor_command(as_json: AsJson = False) -> None:
    """Examine the queue and its database: what is wrong, worst first, and the command that mends it.

    Ends with 1 when something critical or worth a warning was found. Writes nothing.
    JSON: healthy; items (check, severity, title, subject, measured, why, fix).
    """
    dsn = database_dsn()
    with translated(mask_url(dsn)), psycopg.connect(dsn, autocommit=True) as conn:
        findings = examine(conn)
    healthy = all(finding.severity == "notice" for finding in findings)
    if as_json:
        print_json({"healthy": healthy, "items": findings})
    else:
        for finding in findings:
            _print(finding)
        if not findings:
            print_remark("Nothing is wrong.")
    if not healthy:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    screen = console()
    colour = _COLOURS[finding.severity]
    screen.print(f"[{colour}]{finding.severity}[/]  ", end="")
    # "Nobody does maintenance: maintenance" says nothing more.
    is_said = finding.subject.lower() in finding.title.lower()
    subject = "" if is_said else f": {finding.subject}"
    screen.print(f"{finding.title}{subject}", markup=False, highlight=False)
    for name, value in (("Measured", finding.measured), ("Why", finding.why), ("Fix", finding.fix)):
        screen.print(f"  {name + ':':<10}{value}", markup=False, highlight=False, soft_wrap=True)
    screen.print()
