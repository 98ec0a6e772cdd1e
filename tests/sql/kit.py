"""What the tests of the SQL core share: calls by name, errors by code and field, and jobs in every state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

Row = dict[str, Any]
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

ERROR: Row = {"kind": "error", "message": "it broke", "retryable": True}
PERMANENT: Row = {"kind": "permanent", "message": "it never works", "retryable": False}

_SIGNATURES = """
SELECT n.nspname || '.' || p.proname, a.name, pg_catalog.format_type(a.type, NULL)
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) a(name, type)
WHERE n.nspname IN ('public', 'streamvibe') AND a.name <> ''
"""


# The type of every argument of every function; the same on every version, so asked once.
_types: dict[tuple[str, str], str] = {}


def call_text(conn: psycopg.BaseConnection[Any], function: str, arguments: Mapping[str, Any]) -> bytes:
    """The text of a call with named, typed placeholders; a function without a schema is one of public's."""
    if not _types:
        with psycopg.connect(conn.info.dsn) as other:
            _types.update(((name, argument), kind) for name, argument, kind in other.execute(_SIGNATURES))
    name = function if "." in function else f"public.{function}"
    listed = ", ".join(f"{key} := %({key})s::{_types[name, key]}" for key in arguments)
    return f"{name}({listed})".encode()


def adapted(value: Any) -> Any:
    """Objects as jsonb, on their own and in lists; everything else as psycopg has it."""
    if isinstance(value, dict):
        return Jsonb(value)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [adapted(item) for item in value]
    return value


def call(conn: Connection[Any], function: str, **arguments: Any) -> list[Row]:
    """The rows of one function call."""
    values = {key: adapted(value) for key, value in arguments.items()}
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(b"SELECT * FROM " + call_text(conn, function, values), values).fetchall()


def call_one(conn: Connection[Any], function: str, **arguments: Any) -> Row:
    """The only row of one function call."""
    [row] = call(conn, function, **arguments)
    return row


def query(conn: Connection[Any], text: str, *values: Any) -> list[Row]:
    """The rows of one statement."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(text.encode(), values or None).fetchall()


def value(conn: Connection[Any], text: str, *values: Any) -> Any:
    """The first column of the only row of one statement."""
    [row] = query(conn, text, *values)
    return next(iter(row.values()))


@contextmanager
def refused(
    code: str, field: str | None = None, received: str | None = None
) -> Iterator["pytest.ExceptionInfo[psycopg.Error]"]:
    """The block raises this SQLSTATE, with the field, the value received, and a fix."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    diag = caught.value.diag
    assert diag.sqlstate == code, f"{diag.sqlstate}: {caught.value}"
    assert diag.message_primary
    assert diag.message_detail is not None and diag.message_detail.startswith("Received: ")
    assert diag.message_hint, "the error does not say what to do"
    if field is not None:
        assert diag.column_name == field
    if received is not None:
        assert diag.message_detail == f"Received: {received}"


def register(conn: Connection[Any], name: str = "email", **settings: Any) -> str:
    """Register a job type; returns its name."""
    call(conn, "register_job_type", p_name=name, **settings)
    return name


def request(conn: Connection[Any], user_id: UUID, job_type: str = "email", **arguments: Any) -> Row:
    """Ask for a job; params are new ones unless given."""
    arguments.setdefault("p_params", {"n": str(uuid4())})
    return call_one(conn, "request_job", p_user_id=user_id, p_job_type=job_type, **arguments)


def job_id(
    conn: Connection[Any], user_id: UUID | None = None, job_type: str = "email", **arguments: Any
) -> UUID:
    """The id of a new pending job, of a new user unless given."""
    row = request(conn, user_id or uuid4(), job_type, **arguments)
    assert row["outcome"] == "created"
    found: UUID = row["job_id"]
    return found


def worker(conn: Connection[Any], name: str = "w1", **arguments: Any) -> str:
    """Register a worker; returns its id."""
    call(conn, "heartbeat_worker", p_worker_id=name, **arguments)
    return name


def claim(conn: Connection[Any], name: str = "w1", limit: int = 1, **arguments: Any) -> list[Row]:
    """What one claim gives."""
    return call(conn, "claim_jobs", p_worker_id=name, p_limit=limit, **arguments)


def held(jobs: Sequence[Row], name: str = "w1") -> Row:
    """The arguments that name these claimed jobs to complete_jobs, fail_jobs and their like."""
    return {
        "p_worker_id": name,
        "p_tokens": [job["token"] for job in jobs],
        "p_job_ids": [job["job_id"] for job in jobs],
    }


def complete(conn: Connection[Any], jobs: Sequence[Row], name: str = "w1", result: Any = None) -> list[Row]:
    """Complete claimed jobs with one result; returns the refused ones."""
    results = [result if result is not None else {"ok": True}] * len(jobs)
    return call(conn, "complete_jobs", **held(jobs, name), p_results=results)


def fail(conn: Connection[Any], jobs: Sequence[Row], name: str = "w1", failure: Row = ERROR) -> list[Row]:
    """Fail claimed jobs alike."""
    return call(conn, "fail_jobs", **held(jobs, name), p_failures=[failure] * len(jobs))


def lease(conn: Connection[Any], jobs: Sequence[Row], name: str = "w1") -> list[Row]:
    """Lease claimed jobs; returns the refused ones."""
    return call(conn, "lease_jobs", **held(jobs, name), p_started_at=[None] * len(jobs))


def release(conn: Connection[Any], jobs: Sequence[Row], name: str = "w1") -> list[Row]:
    """Hand claimed jobs back; returns the refused ones."""
    return call(conn, "release_jobs", **held(jobs, name))


def get_job(conn: Connection[Any], wanted: UUID) -> Row:
    """The job as the service sees it."""
    return call_one(conn, "get_job", p_job_id=wanted)


def status(conn: Connection[Any], wanted: UUID) -> str:
    """The job's status as the service sees it."""
    found: str = get_job(conn, wanted)["status"]
    return found


def stored(conn: Connection[Any], wanted: UUID) -> Row:
    """The job's row as it is stored."""
    [row] = query(conn, "SELECT * FROM public.job_queue WHERE id = %s", wanted)
    return row


def kill_worker(conn: Connection[Any], name: str = "w1") -> None:
    """Let a worker's lease be over, as if it had stopped sending heartbeats a day ago."""
    conn.execute(
        "UPDATE streamvibe.worker SET heartbeat_at = heartbeat_at - interval '1 day' WHERE id = %s", [name]
    )


def old_leaf(conn: Connection[Any], parent: str = "job_queue", weeks: int = 1, rows: int = 10) -> str:
    """A leaf of so many weeks ago: finished jobs, the first cancelled, or lines. The statistics do not know of it."""
    first = "SELECT min(lower_at) FROM streamvibe.partition WHERE parent_name = %s AND upper_at > streamvibe.now()"
    lower = value(conn, first, parent) - weeks * 7 * DAY
    name = f"{parent}_{lower:%Y%m%d}"
    conn.execute("SELECT streamvibe.make_leaf(%s, %s)", [parent, name])
    if parent == "job_queue":
        conn.execute(
            f"INSERT INTO streamvibe.{name} (id, created_at, user_id, job_type, status, started_at, completed_at)"
            " SELECT streamvibe.make_id(streamvibe.microseconds(%(at)s) + n, n), %(at)s + n * interval '1 us',"
            " gen_random_uuid(), 'email', CASE WHEN n > 1 THEN 'completed' ELSE 'cancelled' END, %(at)s,"
            " %(at)s + n * interval '1 us' FROM generate_series(1, %(rows)s) n".encode(),
            {"at": lower + HOUR, "rows": rows},
        )
    else:
        conn.execute(
            f"INSERT INTO streamvibe.{name} (id, job_id, user_id, message)"
            " SELECT streamvibe.make_id(streamvibe.microseconds(%(at)s) + n, n), gen_random_uuid(),"
            " gen_random_uuid(), 'line ' || n FROM generate_series(1, %(rows)s) n".encode(),
            {"at": lower + HOUR, "rows": rows},
        )
    conn.execute("SELECT streamvibe.attach_leaf(%s, %s, %s, %s)", [parent, name, lower, lower + 7 * DAY])
    return name
