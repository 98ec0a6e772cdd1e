-- One job. p_user_id NULL: the caller's own; for the service, anybody's.
-- Returns: 0 or 1 row; another user's job is not there.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_job(p_job_id uuid, p_user_id uuid DEFAULT NULL)
    RETURNS TABLE (
        id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb,
        failure_kind text, error_message text, retry_count integer, progress real, progress_message text,
        worker_id text, created_at timestamptz, updated_at timestamptz, scheduled_for timestamptz,
        started_at timestamptz, completed_at timestamptz, expires_at timestamptz, retry_at timestamptz,
        idempotency_key text
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
BEGIN
    RETURN QUERY SELECT j.* FROM streamvibe.job j
                 WHERE j.id = p_job_id AND (v_user_id IS NULL OR j.user_id = v_user_id);
END
$$;
