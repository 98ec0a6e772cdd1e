-- Delete those of these jobs that have ended for good; they leave the statistics. With an archive they wait in
-- streamvibe.leaving_job until they are in it.
-- Returns: how many.
-- Locks:   their rows: waits 10 ms for each that somebody has, then leaves those that somebody has (SKIP LOCKED); that of
--          streamvibe.setting against set_archive().
CREATE OR REPLACE FUNCTION streamvibe.delete_jobs(p_job_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
DECLARE
    v_first uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id LIMIT 1);
    v_last uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id DESC LIMIT 1);
    v_ids uuid[];
    v_archive text;
    v_count integer;
BEGIN
    -- FOR SHARE: set_archive() waits for this transaction, and so knows what was moved.
    SELECT s.archive_url INTO v_archive FROM streamvibe.setting s FOR SHARE;
    -- Hardly ever has anybody one of them, and to lock them first costs as much as to delete them.
    IF v_archive IS NULL THEN
        v_count := streamvibe.remove_jobs_soon(p_job_ids);
        IF v_count IS NOT NULL THEN
            RETURN v_count;
        END IF;
    END IF;
    v_ids := ARRAY(SELECT q.id FROM public.job_queue q
                   WHERE q.id = ANY (p_job_ids) AND q.id BETWEEN v_first AND v_last
                     AND coalesce(q.status, '') IN ('completed', 'failed', 'cancelled') AND q.retry_at IS NULL
                   FOR UPDATE SKIP LOCKED);
    IF v_archive IS NOT NULL THEN
        INSERT INTO streamvibe.leaving_job (
               id, user_id, created_at, updated_at, scheduled_for, expires_at, started_at, completed_at, retry_at,
               claim_token, job_priority, retry_count, progress, turn, isolated, job_type, status, worker_id,
               idempotency_key, failure_kind, error_message, progress_message, params, result, traceparent)
        SELECT q.id, q.user_id, q.created_at, q.updated_at, q.scheduled_for, q.expires_at, q.started_at,
               q.completed_at, q.retry_at, q.claim_token, q.job_priority, q.retry_count, q.progress, q.turn,
               q.isolated, q.job_type, q.status, q.worker_id, q.idempotency_key, q.failure_kind, q.error_message,
               q.progress_message, q.params, q.result, q.traceparent
        FROM public.job_queue q WHERE q.id = ANY (v_ids) AND coalesce(q.status, '') <> '';
    END IF;
    RETURN streamvibe.remove_jobs(v_ids, false);
END
$$;
