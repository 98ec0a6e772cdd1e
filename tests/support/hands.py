"""A worker's part played by hand, through the functions every worker calls."""

from typing import Any
from uuid import UUID

import orjson
import psycopg

WORKER = "hand"


def claim(dsn: str, limit: int = 100) -> list[tuple[int, UUID]]:
    """Claim what is due: (token, job id) each."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT heartbeat_worker(%s, p_lease := '1 hour')", [WORKER])
        return conn.execute("SELECT token, job_id FROM claim_jobs(%s, %s)", [WORKER, limit]).fetchall()


def complete(dsn: str, result: Any, limit: int = 100) -> list[UUID]:
    """Claim what is due and complete it with this result; the jobs."""
    claimed = claim(dsn, limit)
    with psycopg.connect(dsn, autocommit=True) as conn:
        refused = conn.execute(
            "SELECT job_id FROM complete_jobs(%s, %s::bigint[], %s::uuid[], %s::text[]::jsonb[])",
            [
                WORKER,
                [token for token, _ in claimed],
                [job for _, job in claimed],
                [orjson.dumps(result).decode()] * len(claimed),
            ],
        ).fetchall()
    assert refused == []
    return [job for _, job in claimed]


def fail(
    dsn: str, limit: int = 100, claimed: list[tuple[int, UUID]] | None = None, **failure: Any
) -> list[UUID]:
    """Report this failure for what was claimed, or else for what is due, which is claimed; the jobs."""
    claimed = claim(dsn, limit) if claimed is None else claimed
    reported = orjson.dumps({"kind": "error", "message": "broken", "retryable": False, **failure}).decode()
    with psycopg.connect(dsn, autocommit=True) as conn:
        rows = conn.execute(
            "SELECT accepted FROM fail_jobs(%s, %s::bigint[], %s::uuid[], %s::text[]::jsonb[])",
            [
                WORKER,
                [token for token, _ in claimed],
                [job for _, job in claimed],
                [reported] * len(claimed),
            ],
        ).fetchall()
    assert all(accepted for (accepted,) in rows)
    return [job for _, job in claimed]


def log(dsn: str, claimed: list[tuple[int, UUID]], *lines: tuple[str, str]) -> None:
    """Append (level, message) lines to the log of the first claimed job."""
    token, job = claimed[0]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "SELECT append_job_logs(%s, %s::bigint[], %s::uuid[], %s::text[], %s::text[])",
            [
                WORKER,
                [token] * len(lines),
                [job] * len(lines),
                [level for level, _ in lines],
                [message for _, message in lines],
            ],
        )
