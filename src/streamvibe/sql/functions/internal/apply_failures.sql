-- Record failed attempts of live jobs: back to pending with a backoff while attempts remain, else failed.
-- p_failures: {"kind", "message", "retryable", "retry_after_seconds"?} each.
-- The wait is random between 0 and least(backoff_max, backoff_base * 2^attempt) ("full jitter", so that jobs
-- that failed together do not come back together), or retry_after_seconds where the handler knows better.
-- A wait longer than setting.retry_in_place_max is spent as 'failed' with retry_at, outside the user's limit.
-- The caller has locked the jobs' rows, and made sure that they are its to move; those that have ended stay as they are.
CREATE OR REPLACE FUNCTION streamvibe.apply_failures(
    p_worker_id text, p_job_ids uuid[], p_failures jsonb[], p_started_at timestamptz[], p_now timestamptz
) RETURNS TABLE (job_id uuid, status text, retry_at timestamptz)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
#variable_conflict use_column
DECLARE
    v_wait_in_place interval := (SELECT s.retry_in_place_max FROM streamvibe.setting s);
    -- What is noted for others would look as if they had ended again.
    v_live uuid[] := ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id)
                           CROSS JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
                           WHERE q.status IN ('pending', 'processing') ORDER BY u.id);
BEGIN
    PERFORM streamvibe.count_jobs(-1, v_live);
    RETURN QUERY
    WITH decided AS MATERIALIZED (
        SELECT f.job_id, f.failure, f.started_at, t.expires_after,
               CASE WHEN (f.failure ->> 'retryable')::boolean AND q.retry_count + 1 < t.max_attempts THEN
                   coalesce(
                       make_interval(secs => (f.failure ->> 'retry_after_seconds')::double precision),
                       random() * least(t.backoff_max, t.backoff_base * (2.0 ^ least(q.retry_count, 20))))
               END AS wait
        FROM unnest(p_job_ids, p_failures, p_started_at) f(job_id, failure, started_at)
        CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = f.job_id OFFSET 0) q
        JOIN streamvibe.job_type t ON t.name = q.job_type
        ORDER BY f.job_id
    )
    UPDATE public.job_queue q
    SET status        = CASE WHEN d.wait <= v_wait_in_place THEN 'pending' ELSE 'failed' END,
        retry_count   = q.retry_count + 1,
        failure_kind  = coalesce(d.failure ->> 'kind', 'error'),
        error_message = left(d.failure ->> 'message', 10000),
        scheduled_for = CASE WHEN d.wait <= v_wait_in_place THEN p_now + d.wait ELSE q.scheduled_for END,
        expires_at    = CASE WHEN d.wait <= v_wait_in_place THEN p_now + d.wait + d.expires_after ELSE q.expires_at END,
        retry_at      = CASE WHEN d.wait > v_wait_in_place THEN p_now + d.wait END,
        completed_at  = CASE WHEN d.wait <= v_wait_in_place THEN NULL ELSE p_now END,
        started_at    = CASE WHEN d.wait <= v_wait_in_place THEN NULL ELSE coalesce(q.started_at, d.started_at) END,
        worker_id     = CASE WHEN d.wait <= v_wait_in_place THEN NULL ELSE p_worker_id END,
        claim_token   = NULL, progress = NULL, progress_message = NULL, updated_at = p_now,
        -- A failure that the process survived clears the suspicion that this job kills it.
        isolated      = coalesce(d.failure ->> 'kind', 'error') = 'crash'
    FROM decided d
    WHERE q.id = d.job_id AND q.id = ANY (p_job_ids) AND q.id BETWEEN v_live[1] AND v_live[cardinality(v_live)]
      AND coalesce(q.status, '') IN ('pending', 'processing')
    RETURNING q.id, q.status, CASE WHEN q.status = 'pending' THEN q.scheduled_for ELSE q.retry_at END;
    PERFORM streamvibe.count_jobs(1, v_live);
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'failed', q.job_type, streamvibe.counted_kind(q.failure_kind), count(*)
    FROM unnest(v_live) u(id) CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    GROUP BY q.job_type, streamvibe.counted_kind(q.failure_kind);
END
$$;
