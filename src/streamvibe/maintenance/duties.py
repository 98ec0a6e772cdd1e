"""What is to be done, and how often: each duty calls SQL functions that are safe to run beside themselves."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duty:
    """A statement that returns how much it did, and its usual schedule (``maintenance.schedule``).

    ``batch``: when a run did so much there is more to do, and the next follows at once.
    ``steps``: what follows for each row of the statement, each step in a transaction of its own, which may take
    long; its values are the row's. Where one returns false, the rest is left for another run.
    ``commands``: the rows of the statement are themselves statements, which cannot run inside a transaction; each is
    run by itself, as long as it takes, and gives up where it waits for a lock.
    ``judges_workers``: it takes a late heartbeat for a death, so it must not run before heartbeats could arrive. Its
    statement takes the time after which it must not judge, and also returns what time the database has.
    ``plain``: one statement that does the same, for a scheduler that knows no others (``maintenance.pg_cron``), where
    ``sql`` does not.
    ``run``: in place of the statement, what whoever starts maintenance brings along. It may take long, returns how much
    it did, raises the error tree, and ends soon when it is cancelled.
    """

    name: str
    schedule: str
    sql: str = ""
    batch: int | None = None
    steps: Sequence[str] = ()
    commands: bool = False
    judges_workers: bool = False
    plain: str | None = None
    run: Callable[[], Awaitable[int]] | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it runs beside the others."""
        return bool(self.steps) or self.commands or self.run is not None


def _report(kind: str, schedule: str) -> Duty:
    return Duty(
        f"{kind}_report",
        schedule,
        f"SELECT '{kind}'",
        steps=("SELECT make_report(%s)",),
        plain=f"SELECT make_report('{kind}')",
    )


DUTIES: Sequence[Duty] = (
    # A dead worker is known within its lease of 10 s; looking costs one read of a small table.
    Duty(
        "recover_stuck_jobs",
        "every 2 seconds",
        "SELECT (SELECT count(*) FROM recover_stuck_jobs(%s::timestamptz)), streamvibe.now()",
        judges_workers=True,
    ),
    Duty("compact_stats", "every 5 seconds", "SELECT compact_stats(10000)", batch=10000),
    Duty("retry_failed_jobs", "every 10 seconds", "SELECT retry_failed_jobs(1000)", batch=1000),
    Duty("expire_stale_jobs", "every 60 seconds", "SELECT expire_stale_jobs(1000)", batch=1000),
    Duty("cleanup_old_jobs", "every 60 seconds", "SELECT cleanup_old_jobs(2000)", batch=1),
    Duty("cleanup_old_logs", "every 60 seconds", "SELECT cleanup_old_logs(1000)", batch=1),
    Duty("forget_idempotency_keys", "*/10 * * * *", "SELECT forget_idempotency_keys(10000)", batch=10000),
    Duty("ensure_partitions", "7 * * * *", "SELECT count(*) FROM ensure_partitions()"),
    # They step back when somebody is in the way.
    Duty(
        "drop_old_partitions",
        "17 * * * *",
        "SELECT partition_name FROM streamvibe.old_partitions()",
        steps=(
            "SELECT streamvibe.seal_partition(%s)",
            # Its last job may have ended since the list was read: only now does nothing change any more.
            "SELECT EXISTS (SELECT FROM streamvibe.old_partitions() o WHERE o.partition_name = %s)",
            # Where there is an archive, only what is in it is dropped.
            "SELECT NOT streamvibe.awaits_archive(%s)",
            # Once, after an upgrade.
            "SELECT streamvibe.place_sums(%s)",
            "SELECT streamvibe.drop_partition(%s)",
        ),
    ),
    Duty(
        "analyze_parents",
        "40 2 * * *",
        "SELECT streamvibe.parents_to_analyze()",
        commands=True,
        plain="ANALYZE public.job_queue, public.job_log",
    ),
    # At night: what is small is vacuumed, then packed, and of what is large the worst is built anew.
    Duty("vacuum_small_tables", "0 3 * * *", "SELECT streamvibe.tables_to_vacuum()", commands=True),
    Duty("reindex_bloated", "10 3 * * *", "SELECT streamvibe.indexes_to_rebuild()", commands=True),
    # Soon after midnight, before the day's jobs leave. What they read takes long where every index is read.
    _report("daily", "5 0 * * *"),
    _report("weekly", "25 0 * * 1"),
    _report("monthly", "45 0 1 * *"),
)
