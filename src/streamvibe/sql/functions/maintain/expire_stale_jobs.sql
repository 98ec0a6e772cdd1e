-- Fail pending jobs that nobody started in time (expires_at). They are not retried.
-- Returns: how many.
-- Locks:   their rows (SKIP LOCKED); a job that a worker holds is left alone.
-- Index:   idx_job_queue_expiration.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.expire_stale_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_ids uuid[];
    v_count integer;
BEGIN
    PERFORM streamvibe.require_service('expire_stale_jobs');
    PERFORM streamvibe.require_read_committed('expire_stale_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    v_ids := ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.status = 'pending' AND q.expires_at < v_now
          AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
        ORDER BY q.expires_at LIMIT p_limit
        FOR NO KEY UPDATE OF q SKIP LOCKED);
    -- A claim may have been committed between that look and the locks (see claim_jobs): look again.
    PERFORM streamvibe.count_jobs(-1, v_ids);
    UPDATE public.job_queue q
    SET status = 'failed', failure_kind = 'expired', completed_at = v_now, updated_at = v_now,
        error_message = 'not started before ' || q.expires_at || '; no worker took it in time'
    WHERE q.id = ANY (v_ids) AND coalesce(q.status, '') = 'pending'  -- see policies/plans.sql
      AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    PERFORM streamvibe.count_jobs(1, v_ids);
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'failed', q.job_type, 'expired', count(*)
    FROM unnest(v_ids) u(id) CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    WHERE q.status = 'failed'
    GROUP BY q.job_type;
    RETURN v_count;
END
$$;
