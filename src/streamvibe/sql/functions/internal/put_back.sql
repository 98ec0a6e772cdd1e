-- Make held jobs pending again without counting an attempt. A job whose row was never leased is not written,
-- unless it has to be marked isolated.
-- Locks: the jobs' rows in id order.
CREATE OR REPLACE FUNCTION streamvibe.put_back(p_job_ids uuid[], p_isolated boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
BEGIN
    PERFORM streamvibe.lock_jobs(p_job_ids);
    UPDATE public.job_queue q
    SET status = 'pending', started_at = NULL, worker_id = NULL, claim_token = NULL, progress = NULL,
        progress_message = NULL, isolated = q.isolated OR p_isolated, updated_at = v_now
    FROM (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id) r
    WHERE q.id = r.id
      AND (q.status = 'processing' OR (q.status = 'pending' AND p_isolated AND NOT q.isolated));
END
$$;
