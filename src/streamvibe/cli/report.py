"""``streamvibe maintain report``: what maintenance reported of a week or month, beside the one before."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from streamvibe.cli.output import (
    AsJson,
    console,
    database_dsn,
    print_hint,
    print_if_empty,
    print_json,
    print_list,
    print_remark,
    print_rows,
    text,
)
from streamvibe.client import SyncClient
from streamvibe.errors import InvalidArgument
from streamvibe.model import Report

Lines = Sequence[Mapping[str, Any]]
#: How many lines of a list are worth showing; --json has all.
_MOST = 12


def report_command(
    kind: Annotated[str, typer.Option(help="weekly or monthly.")] = "weekly",
    listed: Annotated[bool, typer.Option("--list", help="List the reports there are.")] = False,
    limit: Annotated[int, typer.Option(help="With --list: how many, 1 to 1000.")] = 20,
    free_disk: Annotated[
        str | None,
        typer.Option(help="What is free on the database's disk, such as 200GB: tells when it will be full."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the latest weekly or monthly report, worst first, beside the one before. Ends with 1 when there is none.

    JSON: kind, period_start, period_end, made_at, content (jobs, job_types, errors, queue, alerts, growth, tables,
    indexes, partitions, statements, duties); with --list items (kind, period_start, period_end, made_at, completed,
    failed).
    """
    if kind not in ("weekly", "monthly"):
        raise InvalidArgument(
            "there is no such kind of report",
            field="--kind",
            received=kind,
            fix="Use --kind weekly or --kind monthly",
        )
    free = None if free_disk is None else _bytes(free_disk)
    with SyncClient(database_dsn(), max_size=1) as client:
        reports = client.reports(kind, limit=limit if listed else 1)
    if listed:
        _print_list(reports, as_json)
    elif not reports:
        if as_json:
            print_json(None)
        print_hint(
            f"There is no {kind} report yet: maintenance (`streamvibe up`) makes one after each whole"
            f" {'week' if kind == 'weekly' else 'month'}."
        )
        raise typer.Exit(1)
    elif as_json:
        print_json(reports[0])
    else:
        _print(reports[0], free)


def _print_list(reports: Sequence[Report], as_json: bool) -> None:
    rows = [
        {
            "kind": one.kind,
            "period_start": one.period_start,
            "period_end": one.period_end,
            "made_at": one.made_at,
            "completed": one.content["jobs"]["completed"],
            "failed": one.content["jobs"]["failed"],
        }
        for one in reports
    ]
    if as_json:
        print_json({"items": rows})
        return
    print_rows(
        ("period_start", "period_end", "made_at", "completed", "failed"),
        ([value for name, value in row.items() if name != "kind"] for row in rows),
    )
    print_if_empty(rows, "reports yet: maintenance makes them (`streamvibe up`)")


def _print(report: Report, free: int | None) -> None:
    said = report.content
    compared = said["compared_with"]
    print_remark(
        f"{report.kind.capitalize()} report of {_day(report.period_start)} to"
        f" {_day(report.period_end.astimezone(UTC) - timedelta(days=1))} (UTC), made {text(report.made_at)}"
        + (
            f", beside that from {_day(datetime.fromisoformat(compared))} on"
            if compared
            else ", the first one"
        )
    )
    days = round((report.period_end - report.period_start).total_seconds() / 86400)
    if said["days"] < days:
        print_remark(
            f"Of {days} days {days - said['days']} are missing: nobody did maintenance, or it was new."
        )
    if said["in_part"]:
        print_remark(f"In part only, since their jobs stay for a short time: {', '.join(said['in_part'])}.")
    _jobs(said)
    _section(
        "Failures",
        ("job type", "kind", "jobs", "before"),
        said["errors"],
        lambda one: (one["job_type"], one["failure_kind"], one["jobs"], _before(one, "jobs")),
    )
    for alert in said["alerts"]:
        print_remark(f"{alert['severity']}: {alert['message']}")
        print_remark(f"  {alert['fix']}")
    _growth(said["growth"], said["queue"], free)
    _tables(said["tables"])
    _indexes(said["indexes"])
    _section(
        "Partitions",
        ("table", "partitions", "from", "made until", "sealed"),
        said["partitions"],
        lambda one: (
            one["parent_name"],
            one["leaves"],
            one["oldest_from"][:10],
            one["ahead_until"][:10],
            one["sealed"],
        ),
    )
    _statements(said["statements"])
    _section(
        "Duties that failed",
        ("duty", "times", "last error"),
        said["duties"],
        lambda one: (one["duty"], one["failures"], one["last_error"]),
    )


def _jobs(said: Mapping[str, Any]) -> None:
    jobs, before = said["jobs"], said["jobs"]["before"] or {}
    _title("Jobs")
    print_rows(
        ("", "now", "before", "change"),
        (
            (name, shown(jobs.get(key)), shown(before.get(key)), _change(jobs.get(key), before.get(key)))
            for name, key, shown in (
                ("completed", "completed", _whole),
                ("failed", "failed", _whole),
                ("cancelled", "cancelled", _whole),
                ("error rate", "error_rate", _percent),
                ("processing p50", "processing_p50_seconds", _seconds),
                ("processing p95", "processing_p95_seconds", _seconds),
                ("processing p99", "processing_p99_seconds", _seconds),
                ("waiting p50", "wait_p50_seconds", _seconds),
                ("waiting p95", "wait_p95_seconds", _seconds),
            )
        ),
        named=True,
    )
    _section(
        "Job types",
        ("job type", "completed", "before", "failed", "before", "error rate", "p95", "before"),
        said["job_types"],
        lambda one: (
            one["job_type"],
            one["completed"],
            _before(one, "completed"),
            one["failed"],
            _before(one, "failed"),
            _percent(one.get("error_rate")),
            _seconds(one.get("processing_p95_seconds")),
            _seconds((one["before"] or {}).get("processing_p95_seconds")),
        ),
    )


def _growth(growth: Mapping[str, Any], queue: Mapping[str, int], free: int | None) -> None:
    per_day, jobs = growth["database_bytes_per_day"], growth["jobs_per_day"]
    before = growth["before"] or {}
    rows: list[tuple[object, ...]] = [
        ("database", _size(growth["database_bytes"]), _size(before.get("database_bytes")), _size(per_day)),
        ("queue", _size(growth["queue_bytes"]), _size(before.get("queue_bytes")), None),
        ("jobs", growth["jobs"], before.get("jobs"), None if jobs is None else round(jobs)),
    ]
    _title("Size and growth")
    print_rows(("", "now", "before", "a day"), rows, named=True)
    print_remark(f"{queue['pending']} jobs wait, {queue['processing']} are processed.")
    if (days := growth["days_until_10m_jobs"]) is not None:
        print_remark("There are 10 million jobs." if not days else f"10 million jobs {_in(days)}.")
    if free is not None:
        if per_day is not None and per_day > 0:
            print_remark(f"The disk is full {_in(free / per_day)}.")
        else:
            print_remark("The database does not grow, as far as it is known.")


def _tables(tables: Lines) -> None:
    _section(
        "Tables",
        ("table", "rows", "dead", "size", "before", "indexes", "verdict"),
        tables,
        lambda one: (
            one["table_name"],
            one["live_rows"],
            one["dead_rows"],
            _size(one["size_bytes"]),
            _size((one["before"] or {}).get("size_bytes")),
            _size(one["index_bytes"]),
            one["verdict"],
        ),
    )
    for one in tables:
        if one["advice"]:
            print_remark(f"{one['table_name']}: {one['advice']}")


def _indexes(indexes: Lines) -> None:
    _section(
        "Indexes",
        ("index", "scans", "in all", "size", "before", "bloat", "verdict"),
        indexes,
        lambda one: (
            one["index_name"],
            one["scans"],
            one["scans_total"],
            _size(one["size_bytes"]),
            _size(one["size_bytes_before"]),
            _size(one["bloat_bytes"]),
            one["verdict"],
        ),
    )
    for one in indexes:
        if one["advice"]:
            print_remark(f"{one['index_name']}: {one['advice']}")


def _statements(statements: Mapping[str, Any]) -> None:
    items = statements["items"]
    if items:
        _title("Slowest statements")
        print_statements(items)
    if statements["problem"]:
        print_remark(f"Statements: {statements['problem']}. {statements['fix']}")


def print_statements(items: Lines) -> None:
    """A line per statement: what it took, and as much of it as there is room for."""
    print_list(
        ("total", "calls", "mean", "max", "blocks", "statement"),
        (
            (
                _seconds(one["total_seconds"]),
                one["calls"],
                _seconds(one["mean_seconds"]),
                _seconds(one["max_seconds"]),
                round(one["blocks_per_call"]),
                one["statement"],
            )
            for one in items[: _MOST if console().is_terminal else None]
        ),
        whole=("total", "calls", "mean"),
        less=("max", "blocks"),
    )


def _title(title: str) -> None:
    print_remark("")
    print_remark(title)


def _section(title: str, headings: Sequence[str], lines: Lines, row: Any) -> None:
    """Nothing where there is no line."""
    if lines:
        _title(title)
        shown = lines[:_MOST] if console().is_terminal else lines
        print_rows(headings, (row(one) for one in shown), named=True)
        if len(shown) < len(lines):
            print_remark(f"and {len(lines) - len(shown)} more: --json shows all.")


def _before(line: Mapping[str, Any], name: str) -> Any:
    return (line["before"] or {}).get(name)


def _change(now: float | None, before: float | None) -> str | None:
    if now is None or not before:
        return None
    return f"{now / before - 1:+.0%}"


def _whole(value: float | None) -> float | None:
    return value


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:,.1f} s"


def _size(value: float | None) -> str | None:
    if value is None:
        return None
    return ("-" if value < 0 else "") + ByteSize(abs(value)).human_readable()


def _in(days: float) -> str:
    return f"in {days:.0f} days" if days < 36525 else "in more than a hundred years"


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _bytes(given: str) -> int:
    try:
        size = int(TypeAdapter(ByteSize).validate_python(given))
    except ValidationError:
        size = -1
    if size < 0:
        raise InvalidArgument(
            "this is no size of a disk",
            field="--free-disk",
            received=given,
            fix="Use a number and a unit, such as 200GB or 1.5TB",
        )
    return size
