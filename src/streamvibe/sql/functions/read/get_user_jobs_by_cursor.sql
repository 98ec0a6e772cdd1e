-- A page of a user's jobs, newest first, after p_cursor; NULL is the first page.
-- Returns: 0..p_limit rows; next_cursor (pass it for the next page) and has_more are the same in every row.
-- Raises:  SV001, SV004, SV014 the cursor is broken or was made for another user or filter.
CREATE OR REPLACE FUNCTION public.get_user_jobs_by_cursor(
    p_user_id uuid, p_cursor text DEFAULT NULL, p_status text DEFAULT NULL, p_job_type text DEFAULT NULL,
    p_limit integer DEFAULT 50
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
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_filter text := concat_ws('|', 'jobs', v_user_id, coalesce(p_status, '*'), coalesce(p_job_type, '*'));
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT j.*, row_number() OVER (ORDER BY j.id DESC) AS n FROM streamvibe.job j
        WHERE j.user_id = v_user_id AND (v_after IS NULL OR j.id < v_after)
          AND (p_status IS NULL OR j.status = p_status) AND (p_job_type IS NULL OR j.job_type = p_job_type)
        ORDER BY j.id DESC LIMIT p_limit + 1
    ), page_end AS (
        SELECT (SELECT f.id FROM found f WHERE f.n <= p_limit ORDER BY f.n DESC LIMIT 1) AS last_id,
               (SELECT count(*) FROM found) > p_limit AS has_more
    )
    SELECT f.id, f.user_id, f.job_type, f.status, f.job_priority, f.params, f.result, f.failure_kind,
           f.error_message, f.retry_count, f.progress, f.progress_message, f.worker_id, f.created_at, f.updated_at,
           f.scheduled_for, f.started_at, f.completed_at, f.expires_at, f.retry_at, f.idempotency_key,
           CASE WHEN e.has_more THEN streamvibe.cursor_of(e.last_id, v_filter) END, e.has_more
    FROM found f CROSS JOIN page_end e
    WHERE f.n <= p_limit ORDER BY f.n;
END
$$;
