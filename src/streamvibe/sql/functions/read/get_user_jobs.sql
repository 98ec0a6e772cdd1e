-- A page of a user's jobs by offset, with the total in every row.
-- p_order_by: created_at, completed_at or job_priority; ties by id in the same direction; NULLs last.
-- Raises: SV001, SV004, SV015 offset past 1000 (use get_user_jobs_by_cursor).
CREATE OR REPLACE FUNCTION public.get_user_jobs(
    p_user_id uuid, p_status text DEFAULT NULL, p_job_type text DEFAULT NULL, p_limit integer DEFAULT 50,
    p_offset integer DEFAULT 0, p_order_by text DEFAULT 'created_at', p_order_dir text DEFAULT 'DESC'
) RETURNS TABLE (
        id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb,
        failure_kind text, error_message text, retry_count integer, progress real, progress_message text,
        worker_id text, created_at timestamptz, updated_at timestamptz, scheduled_for timestamptz,
        started_at timestamptz, completed_at timestamptz, expires_at timestamptz, retry_at timestamptz,
        idempotency_key text, total_count bigint
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_desc boolean := upper(p_order_dir) = 'DESC';
    v_total bigint;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    IF p_offset IS NULL OR p_offset < 0 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_offset', p_offset::text, 'p_offset is out of range',
            'Use 0 to 1000.');
    ELSIF p_offset > 1000 THEN
        PERFORM streamvibe.raise_error('SV015', 'p_offset', p_offset::text,
            'p_offset is past 1000, where pages get slow and shift',
            'Use get_user_jobs_by_cursor(p_user_id, p_cursor), which costs the same at any depth.');
    ELSIF (p_order_by IN ('created_at', 'completed_at', 'job_priority')) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_order_by', p_order_by, 'p_order_by is unknown',
            'Use created_at, completed_at or job_priority.');
    ELSIF (upper(p_order_dir) IN ('ASC', 'DESC')) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_order_dir', p_order_dir, 'p_order_dir is unknown',
            'Use ASC or DESC.');
    END IF;
    SELECT count(*) INTO v_total FROM streamvibe.job j
    WHERE j.user_id = v_user_id AND (p_status IS NULL OR j.status = p_status)
      AND (p_job_type IS NULL OR j.job_type = p_job_type);
    RETURN QUERY
    SELECT j.*, v_total FROM streamvibe.job j
    WHERE j.user_id = v_user_id AND (p_status IS NULL OR j.status = p_status)
      AND (p_job_type IS NULL OR j.job_type = p_job_type)
    ORDER BY CASE WHEN p_order_by = 'completed_at' AND v_desc THEN j.completed_at END DESC NULLS LAST,
             CASE WHEN p_order_by = 'completed_at' AND NOT v_desc THEN j.completed_at END ASC NULLS LAST,
             CASE WHEN p_order_by = 'job_priority' AND v_desc THEN j.job_priority END DESC,
             CASE WHEN p_order_by = 'job_priority' AND NOT v_desc THEN j.job_priority END ASC,
             CASE WHEN v_desc THEN j.id END DESC,
             CASE WHEN NOT v_desc THEN j.id END ASC
    LIMIT p_limit OFFSET p_offset;
END
$$;
