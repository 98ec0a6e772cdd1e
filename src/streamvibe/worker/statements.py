"""The worker's calls of the SQL core, and how columns of many jobs are written for them.

Casts fix the parameter types, so each is prepared once. Arrays are passed as the text PostgreSQL reads: writing them
element by element through the driver cost a fifth of the worker's time.
"""

from collections.abc import Iterable

HEARTBEAT = """
SELECT job_id::text, reason FROM heartbeat_worker(
    p_worker_id => %s, p_job_types => %s::text[], p_lease => %s, p_job_ids => %s::uuid[], p_tokens => %s::bigint[],
    p_metadata => %s::jsonb)
"""
CLAIM = """
SELECT token, job_id::text, user_id::text, job_type, params::text, attempt, max_attempts,
       extract(epoch FROM timeout)::double precision, isolated, traceparent
FROM claim_jobs(p_worker_id => %s, p_limit => %s, p_job_types => %s::text[], p_alone => %s::boolean,
                p_in_transaction => %s::boolean)
"""
LEASE = """
SELECT job_id::text, status FROM lease_jobs(
    %s, %s::bigint[], %s::uuid[], ARRAY(SELECT to_timestamp(e) FROM unnest(%s::double precision[]) e))
"""
PROGRESS = (
    "SELECT job_id::text FROM report_job_progress(%s, %s::bigint[], %s::uuid[], %s::real[], %s::text[])"
)
COMPLETE = r"""
SELECT job_id::text, status FROM complete_jobs(
    %s, %s::bigint[], %s::uuid[], string_to_array(%s, E'\x1e', E'\x1d')::jsonb[],
    ARRAY(SELECT to_timestamp(e) FROM unnest(%s::double precision[]) e))
"""
FAIL = r"""
SELECT job_id::text, accepted, status, retry_at FROM fail_jobs(
    %s, %s::bigint[], %s::uuid[], string_to_array(%s, E'\x1e', E'\x1d')::jsonb[],
    ARRAY(SELECT to_timestamp(e) FROM unnest(%s::double precision[]) e))
"""
RELEASE = "SELECT job_id::text, status FROM release_jobs(%s, %s::bigint[], %s::uuid[])"
APPEND_LOGS = (
    "SELECT job_id::text "
    "FROM append_job_logs(%s, %s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::text[]::jsonb[])"
)
KEEP_CLAIM = "SELECT keep_claim(%s, %s, %s)"
RECOVER_BROKEN = "SELECT job_id::text, worker_id, outcome FROM recover_broken_claims()"
ENSURE_PARTITIONS = "SELECT partition_name FROM ensure_partitions()"
UNREGISTER = "SELECT unregister_worker(%s)"
RELEASE_FORGOTTEN = "SELECT release_forgotten_claims(%s, %s::bigint[])"


def array(items: Iterable[object]) -> str:
    """An array of numbers or ids."""
    return f"{{{','.join(map(str, items))}}}"


def moments(epochs: Iterable[float | None]) -> str:
    """An array of times, given in seconds since 1970."""
    return f"{{{','.join('NULL' if epoch is None else f'{epoch:.6f}' for epoch in epochs)}}}"


def documents(texts: Iterable[str | None]) -> str:
    """An array of JSON documents. The separators cannot stand in JSON, which escapes them."""
    return "\x1e".join(["\x1d" if text is None else text for text in texts])
