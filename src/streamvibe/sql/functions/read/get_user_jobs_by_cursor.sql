-- A page of a user's jobs, newest first, after p_cursor; NULL is the first page.
-- Returns: 0..p_limit rows; next_cursor (pass it for the next page) and has_more are the same in every row.
-- Index:   idx_job_queue_user_status_created, p_limit + 1 entries of each status at any depth.
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
    v_ids uuid[];
    v_has_more boolean;
    v_next text;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    v_ids := ARRAY(SELECT i.id FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, NULL, v_after, p_limit + 1) i);
    v_has_more := cardinality(v_ids) > p_limit;
    IF v_has_more THEN
        v_next := streamvibe.cursor_of(v_ids[p_limit], v_filter);
        v_ids := v_ids[:p_limit];
    END IF;
    RETURN QUERY
    SELECT j.*, v_next, v_has_more FROM streamvibe.page_of_jobs(v_ids) j ORDER BY j.id DESC;
END
$$;
