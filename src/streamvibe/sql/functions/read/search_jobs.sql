-- A page of jobs whose params and result contain these JSON values (@>), newest first, after p_cursor; NULL is the first.
-- p_user_id NULL: the caller's own; for the service, everybody's. At least one of p_params and p_result is needed.
-- Returns: 0..p_limit rows; next_cursor (pass it for the next page) and has_more are the same in every row.
-- Indexes: those of streamvibe.find_jobs.
-- Raises:  SV001, SV003 a value that is too long to search for, SV004, SV014.
CREATE OR REPLACE FUNCTION public.search_jobs(
    p_user_id uuid DEFAULT NULL, p_params jsonb DEFAULT NULL, p_result jsonb DEFAULT NULL, p_status text DEFAULT NULL,
    p_job_type text DEFAULT NULL, p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL
) RETURNS TABLE (
        id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb,
        failure_kind text, error_message text, retry_count integer, progress real, progress_message text,
        worker_id text, created_at timestamptz, updated_at timestamptz, scheduled_for timestamptz,
        started_at timestamptz, completed_at timestamptz, expires_at timestamptz, retry_at timestamptz,
        idempotency_key text, next_cursor text, has_more boolean
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
    v_filter text := concat_ws('|', 'search', coalesce(v_user_id::text, '*'), coalesce(p_status, '*'),
                               coalesce(p_job_type, '*'), coalesce(p_params::text, '*'), coalesce(p_result::text, '*'));
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_ids uuid[];
    v_has_more boolean;
    v_next text;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    IF p_params IS NULL AND p_result IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_params', NULL, 'there is nothing to look for',
            'Pass p_params, p_result or both, like {"channel": "UC1"}; get_user_jobs_by_cursor lists all.');
    END IF;
    PERFORM streamvibe.check_contained('p_params', p_params);
    PERFORM streamvibe.check_contained('p_result', p_result);
    v_ids := ARRAY(SELECT i FROM streamvibe.find_jobs(v_user_id, p_params, p_result, p_status, p_job_type, v_after, p_limit + 1) i);
    v_has_more := cardinality(v_ids) > p_limit;
    IF v_has_more THEN
        v_next := streamvibe.cursor_of(v_ids[p_limit], v_filter);
        v_ids := v_ids[:p_limit];
    END IF;
    RETURN QUERY
    SELECT j.*, v_next, v_has_more FROM streamvibe.page_of_jobs(v_ids) j ORDER BY j.id DESC;
END
$$;
