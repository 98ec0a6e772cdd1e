"""The design that this queue grew out of, beside it: the same jobs in its own tables, asked the same questions.

Its schema and statements are files of the repository, in ``benchmarks/seed``.
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from streamvibe.errors import ConfigurationError, InvalidArgument

DIRECTORY = Path(__file__).parents[4] / "benchmarks"
NAMES = ("seed",)
FILES = ("schema.sql", "indexes.sql", "functions.sql")
_JOBS = """
INSERT INTO seed.job_queue (id, user_id, job_type, status, job_priority, params, result, error_message, worker_id,
                            retry_count, created_at, updated_at, scheduled_for, started_at, completed_at, expires_at)
SELECT id, user_id, job_type, status, job_priority, params, result, error_message, worker_id, retry_count, created_at,
       updated_at, scheduled_for, started_at, completed_at, expires_at
FROM public.job_queue ORDER BY id
"""
_LINES = """
INSERT INTO seed.job_log (id, job_id, log_level, message, metadata, created_at)
SELECT id, job_id, log_level, message, metadata, created_at FROM public.job_log ORDER BY id
"""


def questions(name: str) -> Mapping[str, str]:
    """The SQL of each question that the baseline answers. Raises InvalidArgument, ConfigurationError."""
    if name not in NAMES:
        raise InvalidArgument(
            "there is no such baseline", field="--baseline", received=name, fix=f"Use {', '.join(NAMES)}"
        )
    path = DIRECTORY / name / "questions.toml"
    if not path.exists():
        raise ConfigurationError(
            "the baseline is not part of the installed package",
            field="--baseline",
            received=name,
            fix="Run it from a checkout of the repository",
        )
    found: dict[str, str] = tomllib.loads(path.read_text())
    return found


def build(conn: psycopg.Connection[Any], name: str, report: Callable[[str], None]) -> None:
    """Copy all jobs and log lines into the baseline's tables, once, and again when its schema has changed."""
    files = {file: (DIRECTORY / name / file).read_text() for file in FILES}
    step = f"{name} {hashlib.sha256(''.join(files.values()).encode()).hexdigest()[:12]}"
    if conn.execute("SELECT 1 FROM bench.filled WHERE step = %s", [step]).fetchone():
        return
    with conn.transaction():
        conn.execute("DROP SCHEMA IF EXISTS seed CASCADE")
        for file in ("schema.sql", "jobs", "lines", "indexes.sql", "functions.sql"):
            report(f"{name}: {file}")
            conn.execute((files | {"jobs": _JOBS, "lines": _LINES})[file].encode())
        conn.execute("INSERT INTO bench.filled VALUES (%s)", [step])
    report(f"{name}: VACUUM ANALYZE")
    conn.execute("VACUUM (ANALYZE, PARALLEL 0) seed.job_queue, seed.job_log")
    conn.execute("CHECKPOINT")
