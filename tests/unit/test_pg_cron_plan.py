"""Which duties pg_cron can run, and when: schedules as it writes them, and reasons for what it cannot."""

from dataclasses import replace

import pytest

from streamvibe.errors import ConfigurationError
from streamvibe.maintenance import DUTIES, Duty
from streamvibe.maintenance.pg_cron import Facts, plan, usable_version

OLD, NEW = (1, 4), (1, 6)


def planned(schedule: str, version: tuple[int, int] = NEW) -> str:
    """When pg_cron runs a duty of this schedule, or why not."""
    jobs, left_out = plan([Duty("turn", schedule, "SELECT 1")], {}, version)
    [found] = [*(job.schedule for job in jobs), *(one.reason for one in left_out)]
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("every 60 seconds", "* * * * *"),
        ("every 1 minutes", "* * * * *"),
        ("every 5 minutes", "*/5 * * * *"),
        ("every 1800 seconds", "*/30 * * * *"),
        ("every 60 minutes", "0 * * * *"),
        ("every 6 hours", "0 */6 * * *"),
        ("every 24 hours", "0 0 * * *"),
        ("every 1 hours", "0 * * * *"),
        ("30  3 * * *", "30 3 * * *"),
        ("*/10 0-5,22 1,15 */2 1-5", "*/10 0-5,22 1,15 */2 1-5"),
        ("every 10 seconds", "10 seconds"),
        ("every 59 seconds", "59 seconds"),
    ],
)
def test_schedules(schedule: str, expected: str) -> None:
    """The same moments in the words of pg_cron."""
    assert planned(schedule) == expected


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("every 45 minutes", "divide"),
        ("every 90 seconds", "divide"),
        ("every 5 hours", "divide"),
        ("every 48 hours", "divide"),
        ("every 0.5 seconds", "whole seconds"),
        ("0 30 3 * * *", "five fields"),
        ("0 3 * * MON", "five fields"),
        ("0 3 L * *", "five fields"),
        ("0 3 * * 1#2", "five fields"),
    ],
)
def test_schedules_that_it_does_not_know(schedule: str, reason: str) -> None:
    """Each is left out, with its schedule in the reason."""
    assert reason in planned(schedule) and schedule in planned(schedule)


def test_seconds_need_a_newer_one() -> None:
    """Before 1.5 it knows minutes only."""
    assert "1.4 knows minutes only" in planned("every 10 seconds", OLD)
    assert planned("every 10 seconds", (1, 5)) == "10 seconds"


def test_an_unreadable_schedule_is_the_usual_one() -> None:
    """As in a process; one that an operator set applies, and a disabled duty is in neither list."""
    duty = Duty("turn", "5 4 * * *", "SELECT 1")
    for given, expected in (("61 * * * *", ["5 4 * * *"]), ("7 * * * *", ["7 * * * *"]), (None, [])):
        jobs, left_out = plan([duty], {"turn": given}, NEW)
        assert ([job.schedule for job in jobs], left_out) == (expected, [])


def test_every_duty_is_planned_or_left_out() -> None:
    """What a process must judge, and what has steps, is left out; every other duty is one statement."""
    jobs, left_out = plan(DUTIES, {}, NEW)
    assert {job.duty for job in jobs} | {one.duty for one in left_out} == {duty.name for duty in DUTIES}
    assert {one.duty for one in left_out} == {
        "recover_stuck_jobs",
        "drop_old_partitions",
        "vacuum_small_tables",
        "reindex_bloated",
    }
    commands = {job.duty: job.command for job in jobs}
    assert commands["retry_failed_jobs"].endswith("SELECT retry_failed_jobs(1000)")
    assert commands["analyze_parents"].endswith("ANALYZE public.job_queue, public.job_log")
    assert commands["weekly_report"].endswith("SELECT make_report('weekly')")
    for command in commands.values():
        assert "lock_timeout" in command and "statement_timeout" in command and "%s" not in command


def test_what_is_no_statement_is_left_out() -> None:
    """A duty without SQL is done by a process."""
    jobs, [left_out] = plan([Duty("turn", "* * * * *", "")], {}, NEW)
    assert jobs == [] and "process" in left_out.reason


GOOD = Facts("1.6", "app", "owner", True, True, 18, {"cron.database_name": "app", "cron.timezone": "GMT"})


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ({}, (1, 6)),
        ({"version": "1.4-1"}, (1, 4)),
        ({"settings": {}}, (1, 6)),
        ({"settings": {"cron.timezone": "UTC"}}, (1, 6)),
        ({"may_log_in": False, "settings": {"cron.use_background_workers": "on"}}, (1, 6)),
    ],
)
def test_where_it_is_usable(changes: dict[str, object], version: tuple[int, int]) -> None:
    """Also where the role may not see its settings, or background workers make a login needless."""
    assert usable_version(replace(GOOD, **changes)) == version  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "field", "fix"),
    [
        ({"settings": {"cron.database_name": "postgres"}}, "cron.database_name", "'app'"),
        ({"version": None}, "pg_cron", "CREATE EXTENSION"),
        ({"version": None, "settings": {}}, "pg_cron", "postgresql-18-cron"),
        ({"version": "1.3"}, "pg_cron", "UPDATE"),
        ({"may_use": False}, "role", "GRANT USAGE"),
        ({"may_log_in": False}, "role", "owner of job_queue"),
        ({"settings": {"cron.timezone": "Europe/Berlin"}}, "cron.timezone", "'UTC'"),
    ],
)
def test_where_it_is_not(changes: dict[str, object], field: str, fix: str) -> None:
    """Refused with the field, what is there, and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        usable_version(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert caught.value.field == field and caught.value.received and fix in (caught.value.fix or "")
