-- A user's jobs that ended with this status, made before p_below, as readers see them (streamvibe.job). No worker holds any of
-- them, so what their rows say is so, and a page of them takes one scan: ORDER BY created_at DESC, id DESC, with a LIMIT.
-- p_job_type: only jobs of this type; NULL: of all.
-- Index: idx_job_queue_user_status_created. Inlined, so it has the settings and the LIMIT of whoever calls it. Of one that it
-- does not know a plan expects a tenth of the list, and sorts nothing for that; a bound below the ids as well would change it.
CREATE OR REPLACE FUNCTION streamvibe.ended_jobs(p_user_id uuid, p_status text, p_job_type text, p_below uuid)
    RETURNS SETOF streamvibe.job
    LANGUAGE sql STABLE
AS $$
    SELECT q.id, q.user_id, q.job_type, q.status, q.job_priority::integer, q.params, q.result, q.failure_kind, q.error_message,
           q.retry_count::integer, q.progress, q.progress_message, q.worker_id, q.created_at, q.updated_at, q.scheduled_for,
           q.started_at, q.completed_at, q.expires_at, q.retry_at, q.idempotency_key
    FROM public.job_queue q
    WHERE q.user_id = p_user_id AND q.status = p_status AND q.id < p_below AND (p_job_type IS NULL OR q.job_type = p_job_type)
$$;
