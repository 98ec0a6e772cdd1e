"""``streamvibe stats``: the whole queue in numbers."""

from streamvibe.cli.output import AsJson, database_dsn, print_fields, print_json, print_rows
from streamvibe.client import SyncClient
from streamvibe.model import JobStatus, QueueStats


def stats_command(as_json: AsJson = False) -> None:
    """Count the queue: jobs by status and type, average times, error rate."""
    with SyncClient(database_dsn(), max_size=1) as client:
        stats = client.stats()
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


def _totals(stats: QueueStats) -> list[tuple[str, object]]:
    return [
        ("total_jobs", stats.total_jobs),
        *((f"{status}_jobs", getattr(stats, f"{status}_jobs")) for status in JobStatus),
        ("avg_processing_seconds", _rounded(stats.avg_processing_seconds)),
        ("avg_wait_seconds", _rounded(stats.avg_wait_seconds)),
        ("error_rate", None if stats.error_rate is None else f"{stats.error_rate:.1%}"),
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
