-- Make held jobs pending again without counting an attempt, give them time to be started again, and wake
-- whoever could. A row that says nothing wrong is not written: a job that was never leased only leaves its list.
-- The caller has locked the jobs' rows, and made sure that they are its to move.
CREATE OR REPLACE FUNCTION streamvibe.put_back(p_job_ids uuid[], p_isolated boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
    v_ids uuid[];
BEGIN
    v_ids := ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id)
                   CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
                   WHERE q.status = 'processing'
                      OR q.status = 'pending' AND (p_isolated AND NOT q.isolated OR q.expires_at <= v_now)
                   ORDER BY u.id);
    PERFORM streamvibe.count_jobs(-1, v_ids);
    UPDATE public.job_queue q
    SET status = 'pending', started_at = NULL, worker_id = NULL, claim_token = NULL, progress = NULL,
        progress_message = NULL, isolated = q.isolated OR p_isolated, updated_at = v_now,
        -- Somebody did start it in time; what ended that was no fault of its own.
        expires_at = CASE WHEN q.expires_at < v_now + t.expires_after THEN v_now + t.expires_after
                          ELSE q.expires_at END
    FROM streamvibe.job_type t
    WHERE q.id = ANY (v_ids) AND q.id BETWEEN v_ids[1] AND v_ids[cardinality(v_ids)] AND t.name = q.job_type;
    PERFORM streamvibe.count_jobs(1, v_ids);
    PERFORM streamvibe.wake_workers(d.job_type)
    FROM (SELECT DISTINCT q.job_type FROM unnest(p_job_ids) u(id)
          CROSS JOIN LATERAL (SELECT j.job_type, j.status FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
          WHERE q.status = 'pending') d;
END
$$;
