"""The call that tells the database of a job type declared in Python."""

from typing import Any

from psycopg import sql

from streamvibe.jobtype import JobType


def registration(job_type: JobType[Any, Any]) -> tuple[sql.Composed, list[object]]:
    """``register_job_type`` with the settings that were given; SQL has the defaults of the others."""
    names = ["name", *job_type.settings]
    call = sql.SQL("SELECT public.register_job_type({})").format(
        sql.SQL(", ").join(sql.SQL("{} => %s").format(sql.Identifier(f"p_{name}")) for name in names)
    )
    return call, [job_type.name, *job_type.settings.values()]
