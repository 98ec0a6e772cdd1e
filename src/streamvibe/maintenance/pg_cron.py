"""The schedule in pg_cron, a scheduler inside PostgreSQL: for the duties that are one statement.

What it runs is safe beside a process that does maintenance, as every duty is safe beside itself. It cannot replace one:
a worker's death is judged by somebody who knows that time has passed (``judges_workers``), and what goes step by step
needs transactions of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from streamvibe.errors import ConfigurationError, InvalidArgument
from streamvibe.maintenance.duties import Duty
from streamvibe.maintenance.schedule import every_seconds, parse_schedule

PREFIX = "streamvibe: "
#: Named jobs can be changed since 1.4; seconds are understood since 1.5.
_LEAST, _SECONDS = (1, 4), (1, 5)
_FIELD = r"(\*|\d+(-\d+)?)(/\d+)?"
#: What cron of any make reads alike: numbers, ranges, steps and lists.
_CRON = re.compile(rf"{_FIELD}(,{_FIELD})*( {_FIELD}(,{_FIELD})*){{4}}")


@dataclass(frozen=True, slots=True)
class CronJob:
    """A duty as pg_cron is told of it."""

    duty: str
    schedule: str
    command: str

    @property
    def name(self) -> str:
        """In cron.job."""
        return PREFIX + self.duty


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A duty that pg_cron cannot run, and why."""

    duty: str
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a job in cron.job: created, changed, unchanged or removed."""

    duty: str
    schedule: str
    command: str
    outcome: str


def plan(
    duties: Sequence[Duty], schedules: Mapping[str, str | None], version: tuple[int, int]
) -> tuple[list[CronJob], list[LeftOut]]:
    """Which duties this version of pg_cron can run, and which not.

    ``schedules``: what an operator set, None for a duty that is disabled, which is in neither list.
    """
    jobs, left_out = [], []
    for duty in duties:
        schedule = schedules.get(duty.name, duty.schedule)
        if schedule is None:
            continue
        try:
            command = _command(duty)
            jobs.append(CronJob(duty.name, _in_pg_cron(duty, schedule, version), command))
        except _ImpossibleError as impossible:
            left_out.append(LeftOut(duty.name, str(impossible)))
    return jobs, left_out


class _ImpossibleError(Exception):
    """Why not, for a person."""


def _command(duty: Duty) -> str:
    if duty.judges_workers:
        raise _ImpossibleError("it takes a late heartbeat for a death, which a process has to judge")
    if duty.plain is None and (duty.steps or duty.commands):
        raise _ImpossibleError("it has steps that need transactions of their own")
    statement = duty.plain or duty.sql
    if not statement:
        raise _ImpossibleError("it is no statement, but code that a process runs")
    patience = "2h" if duty.steps or duty.commands else "60s"
    # Nobody stands behind it who could end it. A session of pg_cron's is for one run.
    return f"SET lock_timeout = '2s'; SET statement_timeout = '{patience}'; {statement}"


def _in_pg_cron(duty: Duty, schedule: str, version: tuple[int, int]) -> str:
    try:
        parse_schedule(schedule)
    except InvalidArgument:
        schedule = duty.schedule  # as a process does that cannot read it
    seconds = every_seconds(schedule)
    if seconds is None:
        schedule = " ".join(schedule.split())
        if _CRON.fullmatch(schedule) is None:
            raise _ImpossibleError(f"'{schedule}' is more than the five fields of numbers that pg_cron reads")
        return schedule
    if seconds < 60:
        if not seconds.is_integer():
            raise _ImpossibleError(f"it runs {schedule}, and pg_cron knows whole seconds only")
        if version < _SECONDS:
            raise _ImpossibleError(
                f"it runs {schedule}, and pg_cron {version[0]}.{version[1]} knows minutes only (1.5: seconds)"
            )
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    if minutes.is_integer():
        if minutes < 60 and 60 % minutes == 0:
            return f"*/{minutes:.0f} * * * *" if minutes > 1 else "* * * * *"
        hours = minutes / 60
        if hours.is_integer() and 24 % hours == 0:
            return f"0 */{hours:.0f} * * *" if 1 < hours < 24 else "0 * * * *" if hours == 1 else "0 0 * * *"
    raise _ImpossibleError(
        f"it runs {schedule}, which does not divide an hour or a day: give it a schedule in cron"
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether pg_cron can run duties here."""

    version: str | None
    """Of the extension in this database; None: there is none."""
    database: str
    role: str
    """Who is connected, and would own the jobs."""
    may_log_in: bool
    may_use: bool
    """Whether that role may use the schema cron."""
    postgres: int
    """The server's major version."""
    settings: Mapping[str, str]
    """``cron.…``, as far as the role may see them; none where the library is not loaded."""


def find_pg_cron(conn: psycopg.Connection[Any]) -> Facts:
    """What there is of pg_cron on this connection."""
    row = conn.execute(
        "SELECT (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'pg_cron'),"
        " current_database(), current_user,"
        " (SELECT r.rolcanlogin FROM pg_roles r WHERE r.rolname = current_user),"
        " to_regnamespace('cron') IS NOT NULL AND has_schema_privilege('cron', 'USAGE'),"
        " ARRAY(SELECT s.name || '=' || s.setting FROM pg_settings s WHERE s.name ~ '^cron[.]')"
    ).fetchone()
    assert row is not None
    version, database, role, may_log_in, may_use, listed = row
    settings = dict(line.split("=", 1) for line in listed)
    postgres = conn.info.server_version // 10_000
    return Facts(version, database, role, may_log_in, may_use, postgres, settings)


def usable_version(facts: Facts) -> tuple[int, int]:
    """The version of pg_cron, where it can run duties in this database for this role.

    Raises ConfigurationError, which says what is missing and how to get it.
    """
    settings = facts.settings
    served = settings.get("cron.database_name")
    if served not in (None, facts.database):
        raise ConfigurationError(
            "pg_cron works for another database",
            field="cron.database_name",
            received=served,
            fix=f"Set cron.database_name = '{facts.database}' in postgresql.conf, restart PostgreSQL and CREATE"
            " EXTENSION pg_cron here; or let `streamvibe maintain run` do all of it",
        )
    if facts.version is None:
        first = (
            ""
            if settings
            else f"Install it (Debian: postgresql-{facts.postgres}-cron), set shared_preload_libraries = 'pg_cron' and"
            f" cron.database_name = '{facts.database}' in postgresql.conf, restart PostgreSQL; then "
        )
        raise ConfigurationError(
            "pg_cron is not installed in this database",
            field="pg_cron",
            received=f"database {facts.database}",
            fix=f"{first}CREATE EXTENSION pg_cron; or let `streamvibe maintain run` do all of it",
        )
    numbers = [int(number) for number in re.findall(r"\d+", facts.version)]
    found = (numbers[0], numbers[1])
    if found < _LEAST:
        raise ConfigurationError(
            "pg_cron is too old: its jobs cannot be changed by name",
            field="pg_cron",
            received=facts.version,
            fix="ALTER EXTENSION pg_cron UPDATE, to 1.4 or newer",
        )
    if not facts.may_use:
        raise ConfigurationError(
            "the role may not use pg_cron",
            field="role",
            received=facts.role,
            fix=f'GRANT USAGE ON SCHEMA cron TO "{facts.role}"',
        )
    if not facts.may_log_in and settings.get("cron.use_background_workers") != "on":
        raise ConfigurationError(
            "pg_cron logs in as the role that schedules, which this one may not",
            field="role",
            received=facts.role,
            fix="Run it as the owner of job_queue, or set cron.use_background_workers = on",
        )
    if settings.get("cron.timezone", "GMT") not in ("GMT", "UTC", "Etc/UTC"):
        raise ConfigurationError(
            "pg_cron reads schedules in another time zone than UTC",
            field="cron.timezone",
            received=settings["cron.timezone"],
            fix="Set cron.timezone = 'UTC', or let `streamvibe maintain run` do all of it",
        )
    return found


def write_schedule(conn: psycopg.Connection[Any], jobs: Sequence[CronJob]) -> list[Written]:
    """Let pg_cron run these, and none else of ours: what is right is left alone, what is not among them is removed.

    Of the jobs of the role that is connected. One transaction; ``conn`` is not within one.
    """
    written = []
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        found = {
            name.removeprefix(PREFIX): (number, schedule, command)
            for number, name, schedule, command in cursor.execute(
                "SELECT jobid, jobname, schedule, command FROM cron.job"
                " WHERE starts_with(jobname, %s) AND username = current_user",
                (PREFIX,),
            )
        }
        for job in jobs:
            number, *before = found.pop(job.duty, (None,))
            if before == [job.schedule, job.command]:
                outcome = "unchanged"
            else:
                cursor.execute("SELECT cron.schedule(%s, %s, %s)", (job.name, job.schedule, job.command))
                outcome = "created" if number is None else "changed"
            written.append(Written(job.duty, job.schedule, job.command, outcome))
        for duty, (number, schedule, command) in sorted(found.items()):
            cursor.execute("SELECT cron.unschedule(%s::bigint)", (number,))
            written.append(Written(duty, schedule, command, "removed"))
    return written
