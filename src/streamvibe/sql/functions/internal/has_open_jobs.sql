-- Whether a job between these ids is live, or may become so again.
-- Index: idx_job_queue_user_active, idx_job_queue_retry_eligible.
CREATE OR REPLACE FUNCTION streamvibe.has_open_jobs(p_from uuid, p_before uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM public.job_queue q
                   WHERE q.status IN ('pending', 'processing') AND q.id >= p_from AND q.id < p_before)
        OR EXISTS (SELECT FROM generate_series(0, 100) n(retry_count)
                   CROSS JOIN LATERAL (
                       SELECT FROM public.job_queue q
                       WHERE q.status = 'failed' AND q.retry_count = n.retry_count AND q.retry_at >= '-infinity'
                         AND q.id >= p_from AND q.id < p_before
                       ORDER BY q.retry_at LIMIT 1) f)
$$;
