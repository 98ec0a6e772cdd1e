"""The worker's calls of the SQL core. Casts fix the parameter types, so each is prepared once."""

HEARTBEAT = """
SELECT job_id, reason FROM heartbeat_worker(
    p_worker_id => %s, p_job_types => %s::text[], p_lease => %s, p_job_ids => %s::uuid[], p_tokens => %s::bigint[],
    p_metadata => %s::jsonb)
"""
CLAIM = """
SELECT token, job_id, user_id, job_type, params::text, attempt, max_attempts,
       extract(epoch FROM timeout)::double precision, isolated
FROM claim_jobs(p_worker_id => %s, p_limit => %s, p_job_types => %s::text[], p_alone => %s::boolean)
"""
LEASE = "SELECT job_id, status FROM lease_jobs(%s, %s::bigint[], %s::uuid[], %s::timestamptz[])"
PROGRESS = "SELECT job_id FROM report_job_progress(%s, %s::bigint[], %s::uuid[], %s::real[], %s::text[])"
COMPLETE = (
    "SELECT job_id, status "
    "FROM complete_jobs(%s, %s::bigint[], %s::uuid[], %s::text[]::jsonb[], %s::timestamptz[])"
)
FAIL = (
    "SELECT job_id, accepted, status, retry_at "
    "FROM fail_jobs(%s, %s::bigint[], %s::uuid[], %s::text[]::jsonb[], %s::timestamptz[])"
)
RELEASE = "SELECT job_id, status FROM release_jobs(%s, %s::bigint[], %s::uuid[])"
APPEND_LOGS = (
    "SELECT job_id "
    "FROM append_job_logs(%s, %s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::text[]::jsonb[])"
)
ENSURE_PARTITIONS = "SELECT partition_name FROM ensure_partitions()"
UNREGISTER = "SELECT unregister_worker(%s)"
RELEASE_FORGOTTEN = "SELECT release_forgotten_claims(%s, %s::bigint[])"
