-- Bring one failed job back to pending: the only way from finished to live.
-- Takes the user's lock first, so it never makes an eleventh live job or a second live twin.
-- Returns: retried | not_failed | not_retryable | attempts_exhausted | at_limit | has_twin | not_found.
-- Locks:   the user's row, then the job's.
CREATE OR REPLACE FUNCTION streamvibe.retry_job(p_user_id uuid, p_job_id uuid) RETURNS text
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_max_live integer := streamvibe.lock_account(p_user_id);
    v_now timestamptz := streamvibe.now();
    v_job public.job_queue;
    v_type streamvibe.job_type;
BEGIN
    SELECT q.* INTO v_job FROM public.job_queue q
    -- IS TRUE: see policies/plans.sql.
    WHERE q.id = p_job_id AND (q.user_id = p_user_id) IS TRUE FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN 'not_found'; END IF;
    IF v_job.status <> 'failed' THEN RETURN 'not_failed'; END IF;
    v_type := streamvibe.known_job_type(v_job.job_type);
    IF v_job.retry_count >= v_type.max_attempts THEN RETURN 'attempts_exhausted'; END IF;
    IF v_job.retry_at IS NULL THEN RETURN 'not_retryable'; END IF;
    IF streamvibe.find_same_work(p_user_id, v_job.job_type, v_job.params, 'infinity', '-infinity',
                                 'infinity', 'ffffffff-ffff-ffff-ffff-ffffffffffff') IS NOT NULL THEN
        RETURN 'has_twin';
    END IF;
    IF NOT streamvibe.has_room(p_user_id, v_job.job_type, v_max_live, v_type.max_live_jobs) THEN
        RETURN 'at_limit';
    END IF;
    PERFORM streamvibe.count_jobs(-1, ARRAY[p_job_id]);
    UPDATE public.job_queue q
    SET status = 'pending', scheduled_for = v_now, expires_at = v_now + v_type.expires_after,
        completed_at = NULL, retry_at = NULL, started_at = NULL, worker_id = NULL, claim_token = NULL,
        progress = NULL, progress_message = NULL, updated_at = v_now
    WHERE q.id = p_job_id;
    PERFORM streamvibe.count_jobs(1, ARRAY[p_job_id]);
    PERFORM streamvibe.wake_workers(v_job.job_type);
    RETURN 'retried';
END
$$;
