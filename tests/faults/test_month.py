"""Two weeks of a queue in a minute: nothing is lost, whatever dies. simulate_month.py has the month."""

from datetime import timedelta
from pathlib import Path

from tests.faults.simulate_month import Month
from tests.support.databases import Database


def test_two_weeks_with_crashes(database18: Database, tmp_path: Path) -> None:
    """Partitions leave in time, queue and archive have every job once, statistics are a count, indexes are packed."""
    report = Month(database18, tmp_path, days=16, jobs_per_hour=8, seed=3, step=timedelta(hours=12)).run()
    assert report.violations == []
    assert report.requested > 2000 and report.leaves_dropped >= 1 and report.archived_jobs > 0
    assert report.workers_killed >= 4 and report.maintenance_killed >= 1
