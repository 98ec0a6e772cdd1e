"""Calls of the functions that an operator uses: what is paused, what maintenance does, why a job waits."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from streamvibe.db.statements import arguments, jobs
from streamvibe.db.statements.statement import Row, Statement, nothing
from streamvibe.jobtype import JobType
from streamvibe.model import DutyRun, DutyState, Pause, Report, SlowStatement, SlowStatements, WaitReason

_PAUSE = """
SELECT public.pause_jobs(p_job_type := %(job_type)s::text, p_user_id := %(user_id)s::uuid, p_reason := %(reason)s::text)
"""
_RESUME = "SELECT public.resume_jobs(p_job_type := %(job_type)s::text, p_user_id := %(user_id)s::uuid)"
_PAUSES = "SELECT job_type, user_id, paused_at, reason FROM public.get_pauses()"
_MAINTENANCE = """
SELECT duty, state, schedule, enabled, running_since, last_started_at, last_ended_at, last_done, last_error, leader_id,
       led_since, leader_is_alive
FROM public.get_maintenance()
"""
_RUNS = """
SELECT duty, started_at, ended_at, runs, done, error, leader_id, fence
FROM public.get_maintenance_runs(p_duty := %(duty)s::text, p_limit := %(limit)s::integer)
"""
_SET_DUTY = """
SELECT public.set_maintenance_duty(
    p_duty := %(duty)s::text, p_schedule := %(schedule)s::text, p_enabled := %(enabled)s::boolean)
"""
_REPORTS = """
SELECT kind, period_start, period_end, made_at, content
FROM public.get_reports(p_kind := %(kind)s::text, p_limit := %(limit)s::integer)
"""
_SLOW = """
SELECT statement, calls, total_seconds, mean_seconds, max_seconds, rows_per_call, blocks_per_call, query_id, since,
       problem, fix
FROM public.get_slow_statements(p_limit := %(limit)s::integer)
"""
_WAIT = """
SELECT reason, message, ready_at, jobs_ahead, job_ids
FROM public.explain_job_wait(p_job_id := %(job_id)s, p_user_id := %(user_id)s::uuid)
"""


def _whom(job_type: JobType[Any, Any] | str | None, user_id: UUID | str | None) -> dict[str, Any]:
    return {
        "job_type": arguments.job_type_name(job_type),
        "user_id": None if user_id is None else arguments.uuid(user_id, "user_id"),
    }


def pause_jobs(
    job_type: JobType[Any, Any] | str | None, user_id: UUID | str | None, reason: str | None
) -> Statement[bool]:
    """Pause a type, a user, or everything."""
    params = _whom(job_type, user_id) | {"reason": arguments.text(reason, "reason")}
    return Statement(_PAUSE, params, lambda rows: bool(rows[0][0]))


def resume_jobs(job_type: JobType[Any, Any] | str | None, user_id: UUID | str | None) -> Statement[bool]:
    """Take a pause back."""
    return Statement(_RESUME, _whom(job_type, user_id), lambda rows: bool(rows[0][0]))


def get_pauses() -> Statement[list[Pause]]:
    """What is paused."""
    return Statement(_PAUSES, {}, lambda rows: [Pause(*row) for row in rows])


def get_maintenance() -> Statement[list[DutyState]]:
    """Every duty, and who leads."""
    return Statement(_MAINTENANCE, {}, lambda rows: [DutyState(*row) for row in rows])


def get_maintenance_runs(duty: str | None, limit: int) -> Statement[list[DutyRun]]:
    """What maintenance did."""
    params = {"duty": arguments.text(duty, "duty"), "limit": arguments.integer(limit, "limit")}
    return Statement(_RUNS, params, lambda rows: [DutyRun(*row) for row in rows])


def set_maintenance_duty(duty: str, schedule: str | None, enabled: bool | None) -> Statement[None]:
    """Change when a duty runs, or whether."""
    params = {
        "duty": arguments.text(duty, "duty"),
        "schedule": arguments.text(schedule, "schedule"),
        "enabled": enabled,
    }
    return Statement(_SET_DUTY, params, nothing)


def get_reports(kind: str, limit: int) -> Statement[list[Report]]:
    """What maintenance reported."""
    params = {"kind": arguments.text(kind, "kind"), "limit": arguments.integer(limit, "limit")}
    return Statement(_REPORTS, params, lambda rows: [Report(*row) for row in rows])


def get_slow_statements(limit: int) -> Statement[SlowStatements]:
    """The statements on the queue that took the most time."""

    def decode(rows: Sequence[Row]) -> SlowStatements:
        problems = [row[-2:] for row in rows if row[-2] is not None]
        problem, fix = problems[0] if problems else (None, None)
        return SlowStatements([SlowStatement(*row[:-2]) for row in rows if row[-2] is None], problem, fix)

    return Statement(_SLOW, {"limit": arguments.integer(limit, "limit")}, decode)


def explain_job_wait(job_id: UUID | str, user_id: UUID | str | None) -> Statement[list[WaitReason]]:
    """Why a job is not running. Decoding raises JobNotFound."""

    def decode(rows: Sequence[Row]) -> list[WaitReason]:
        jobs.first(rows, job_id, user_id)
        return [WaitReason(*row) for row in rows]

    return Statement(_WAIT, jobs.one(job_id, user_id), decode)
