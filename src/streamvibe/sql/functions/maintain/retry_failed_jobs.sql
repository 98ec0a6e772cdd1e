-- Bring back failed jobs whose retry_at has come. A job waits on while its user is at the limit or an identical
-- one is live, and is looked at again a minute later, so that it never keeps others from being looked at.
-- Users whose lock another session holds are left for the next run.
-- Returns: how many came back.
-- Locks:   users' rows in streamvibe.account in id order, then their jobs' rows.
-- Index:   idx_job_queue_retry_eligible.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.retry_failed_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_user_id uuid;
    v_due record;
    v_count integer := 0;
    v_id uuid;
    v_outcome text;
BEGIN
    PERFORM streamvibe.require_service('retry_failed_jobs');
    PERFORM streamvibe.require_read_committed('retry_failed_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    FOR v_due IN
        SELECT d.user_id, array_agg(d.id ORDER BY d.retry_at) AS ids
        FROM (SELECT q.user_id, q.id, q.retry_at
              FROM generate_series(1, (SELECT max(t.max_attempts) FROM streamvibe.job_type t)) n(retry_count)
              CROSS JOIN LATERAL (
                  SELECT j.user_id, j.id, j.retry_at FROM public.job_queue j
                  WHERE j.status = 'failed' AND j.retry_count = n.retry_count AND j.retry_at <= v_now
                  ORDER BY j.retry_at LIMIT p_limit) q
              ORDER BY q.retry_at LIMIT p_limit) d
        GROUP BY d.user_id
        ORDER BY d.user_id
    LOOP
        SELECT a.user_id INTO v_user_id FROM streamvibe.account a
        WHERE a.user_id = v_due.user_id FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND AND EXISTS (SELECT FROM streamvibe.account a WHERE a.user_id = v_due.user_id) THEN
            CONTINUE;
        END IF;
        FOREACH v_id IN ARRAY streamvibe.lock_jobs(v_due.ids) LOOP
            v_outcome := streamvibe.retry_job(v_due.user_id, v_id);
            IF v_outcome = 'retried' THEN
                v_count := v_count + 1;
            ELSE
                -- What has no attempts left (the type allows fewer now) is final; the rest waits outside.
                UPDATE public.job_queue q
                SET retry_at = CASE WHEN v_outcome <> 'attempts_exhausted' THEN v_now + interval '1 minute' END
                -- See policies/plans.sql.
                WHERE q.id = v_id AND coalesce(q.status, '') = 'failed' AND q.retry_at <= v_now;
            END IF;
        END LOOP;
    END LOOP;
    RETURN v_count;
END
$$;
