"""``streamvibe stats``: the whole queue in numbers."""

from typing import Annotated

import typer

from streamvibe.cli.jobs_input import read_time
from streamvibe.cli.output import (
    AsJson,
    database_dsn,
    plain,
    print_fields,
    print_hint,
    print_if_empty,
    print_json,
    print_rows,
)
from streamvibe.cli.report import print_statements
from streamvibe.client import SyncClient
from streamvibe.errors import InvalidArgument
from streamvibe.model import JobStatus, QueueStats, SlowStatements


def stats_command(
    since: Annotated[
        str | None,
        typer.Option(help="Only what ended, or was asked for, since this time, as in 2030-01-31T18:00Z."),
    ] = None,
    job_type: Annotated[str | None, typer.Option("--type", help="Only jobs of this type.")] = None,
    recount: Annotated[
        bool,
        typer.Option(
            "--recount", help="Count every job anew, and print what was wrong: reads the whole queue."
        ),
    ] = False,
    prometheus: Annotated[
        bool,
        typer.Option("--prometheus", help="Print everything that /metrics has, in Prometheus' text format."),
    ] = False,
    slow: Annotated[
        bool,
        typer.Option(
            "--slow",
            help="Print the statements on the queue that took the most time in all, by pg_stat_statements.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(help="With --slow: how many, 1 to 1000; default: 20.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the queue in numbers: jobs by status and type, times and their percentiles, error rates.

    JSON of --slow: items (statement, calls, total_seconds, mean_seconds, max_seconds, rows_per_call, blocks_per_call,
    query_id, since), problem, fix (why there is nothing, or not everything, to show).
    """
    if recount and (since or job_type):
        raise InvalidArgument(
            "counting anew is about all jobs",
            field="--recount",
            received=f"--recount with {'--since' if since else '--type'}",
            fix="Recount first, then ask for the numbers without --recount",
        )
    if prometheus:
        for name, given in (
            ("--json", as_json),
            ("--since", since),
            ("--type", job_type),
            ("--recount", recount),
            ("--slow", slow),
            ("--limit", limit is not None),
        ):
            if given:
                raise InvalidArgument(
                    "Prometheus' text format is of the whole queue, and of nothing else",
                    field="--prometheus",
                    received=f"--prometheus with {name}",
                    fix=f"Leave out {name}, or --prometheus",
                )
        from streamvibe.cli.metrics import next_turn
        from streamvibe.monitoring.metrics import exposition

        print(exposition(database_dsn(), next_turn), end="")
        return
    if slow and (since or job_type or recount):
        raise InvalidArgument(
            "slow statements are those of the whole queue, since they are counted",
            field="--slow",
            received=f"--slow with {'--since' if since else '--type' if job_type else '--recount'}",
            fix="Ask for them without other options than --limit",
        )
    if limit is not None and not slow:
        raise InvalidArgument(
            "--limit needs --slow",
            field="--limit",
            received=str(limit),
            fix="Add --slow, or leave --limit out: the numbers are of all jobs",
        )
    with SyncClient(database_dsn(), max_size=1) as client:
        if slow:
            _print_slow(client.slow_statements(limit=20 if limit is None else limit), as_json)
            return
        if recount:
            wrong = client.recount_stats()
            if as_json:
                print_json({"items": wrong})
                return
            print_rows(
                ("job type", "status", "was", "is"),
                ((one.job_type, one.status, one.jobs_before, one.jobs_now) for one in wrong),
                named=bool(wrong),
            )
            print_if_empty(wrong, "wrong numbers")
            return
        stats = client.stats(since=read_time(since, "--since"), job_type=job_type)
    if as_json:
        print_json(stats)
        return
    print_fields(_totals(stats))
    if stats.jobs_by_type:
        print_rows(
            ("job type", *JobStatus),
            (
                (name, *(counts.get(status, 0) for status in JobStatus))
                for name, counts in sorted(stats.jobs_by_type.items())
            ),
            named=True,
        )


def _print_slow(found: SlowStatements, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_statements([plain(one) for one in found.items])
    if found.problem is not None:
        print_hint(f"{found.problem[0].upper()}{found.problem[1:]}. {found.fix}")
    else:
        print_if_empty(found.items, "statement on the queue was counted yet")


def _totals(stats: QueueStats) -> list[tuple[str, object]]:
    seconds = [
        (f"{measure}_{name}_seconds", _rounded(getattr(stats, f"{measure}_{name}_seconds")))
        for measure in ("processing", "wait")
        for name in ("p50", "p95", "p99")
    ]
    return [
        ("total_jobs", stats.total_jobs),
        *((f"{status}_jobs", getattr(stats, f"{status}_jobs")) for status in JobStatus),
        ("avg_processing_seconds", _rounded(stats.avg_processing_seconds)),
        ("avg_wait_seconds", _rounded(stats.avg_wait_seconds)),
        *seconds,
        ("error_rate", _percent(stats.error_rate)),
        *(
            (f"error_rate, last {name}", _percent(rate))
            for name, rate in sorted(stats.error_rates.items(), key=_length)
        ),
    ]


def _length(rate: tuple[str, float | None]) -> int:
    """Of "1 hour" and its like, in hours, so that the shortest comes first."""
    number, unit = rate[0].split()
    return int(number) * {"hour": 1, "day": 24}[unit.removesuffix("s")]


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:.1%}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
