-- The identical live job of this user inside the dedupe window, or a new one; the cache is not asked.
-- Returns: one row; existing_status is NULL for a new job. p_dedupe_window NULL means what the type says.
-- Locks, raises: as request_job.
-- Its parameters or columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS public.find_or_create_job(uuid, text, jsonb, interval);
CREATE OR REPLACE FUNCTION public.find_or_create_job(
    p_user_id uuid, p_job_type text, p_params jsonb DEFAULT '{}', p_dedupe_window interval DEFAULT '5 minutes',
    p_traceparent text DEFAULT NULL
) RETURNS TABLE (job_id uuid, is_new boolean, existing_status text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.job_id, r.outcome = 'created', CASE WHEN r.outcome = 'joined' THEN r.status END
    FROM public.request_job(p_user_id, p_job_type, p_params, p_force := true,
                            p_dedupe_window := p_dedupe_window, p_traceparent := p_traceparent) r
$$;
