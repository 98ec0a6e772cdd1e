-- Record that attempts failed. Only the worker that holds a job under this token can.
-- p_tokens, p_job_ids, p_failures and p_started_at (NULL: when they were claimed) are parallel.
-- p_failures: {"kind": text, "message": text, "retryable": boolean, "retry_after_seconds": number?}
-- Returns: a row per job; accepted false when it was not this worker's any more, or with status 'busy' when
--          another transaction has the row (the claim still holds it: fail it again in a moment);
--          retry_at: when it runs again.
-- Locks:   the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.fail_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_failures jsonb[], p_started_at timestamptz[] DEFAULT NULL
) RETURNS TABLE (job_id uuid, accepted boolean, status text, retry_at timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_bad jsonb;
    v_mine record;
    v_held record;
    v_moved record;
BEGIN
    PERFORM streamvibe.require_service('fail_jobs');
    SELECT f.failure INTO v_bad FROM unnest(p_failures) f(failure)
    WHERE (jsonb_typeof(f.failure) = 'object'
           AND coalesce(jsonb_typeof(f.failure -> 'kind'), 'string') = 'string'
           AND coalesce(jsonb_typeof(f.failure -> 'message'), 'string') = 'string'
           AND coalesce(jsonb_typeof(f.failure -> 'retryable'), 'boolean') = 'boolean'
           AND CASE coalesce(jsonb_typeof(f.failure -> 'retry_after_seconds'), 'null')
                   WHEN 'null' THEN true
                   WHEN 'number' THEN (f.failure ->> 'retry_after_seconds')::numeric BETWEEN 0 AND 31622400
                   ELSE false END) IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_failures', left(v_bad::text, 200), 'a failure cannot be read',
            'Pass {"kind": "error", "message": "...", "retryable": true, "retry_after_seconds": 60}; '
            || 'the last is optional, 0 to 31622400.');
    END IF;
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_failures), coalesce(cardinality(p_started_at), cardinality(p_tokens))]) l;
    v_now := streamvibe.now();
    SELECT coalesce(array_agg(r.job_id), '{}') AS ids, coalesce(array_agg(r.failure), '{}') AS failures,
           coalesce(array_agg(r.started_at), '{}') AS started INTO v_held
    FROM (SELECT a.job_id, a.failure, least(greatest(a.started_at, a.since), v_now) AS started_at
          FROM unnest(p_job_ids, p_failures, coalesce(p_started_at, '{}'), v_mine.since)
               a(job_id, failure, started_at, since)
          WHERE a.since IS NOT NULL) r;
    SELECT coalesce(array_agg(m.job_id), '{}') AS ids, coalesce(array_agg(m.retry_at), '{}') AS retries INTO v_moved
    FROM streamvibe.apply_failures(p_worker_id, v_held.ids, v_held.failures, v_held.started, v_now) m;
    RETURN QUERY
    SELECT s.job_id, m.job_id IS NOT NULL, s.status, m.retry_at
    FROM streamvibe.statuses_now(p_job_ids, v_mine.busy) s
    LEFT JOIN unnest(v_moved.ids, v_moved.retries) m(job_id, retry_at) ON m.job_id = s.job_id;
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
END
$$;
