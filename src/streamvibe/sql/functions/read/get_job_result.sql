-- One job's outcome. p_user_id NULL: the caller's own; for the service, anybody's.
-- Returns: 0 or 1 row; result is NULL until the job is completed.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_job_result(p_job_id uuid, p_user_id uuid DEFAULT NULL)
    RETURNS TABLE (
        job_id uuid, status text, result jsonb, failure_kind text, error_message text, completed_at timestamptz
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
BEGIN
    RETURN QUERY SELECT j.id, j.status, j.result, j.failure_kind, j.error_message, j.completed_at
                 FROM streamvibe.job j
                 WHERE j.id = p_job_id AND (v_user_id IS NULL OR j.user_id = v_user_id);
END
$$;
