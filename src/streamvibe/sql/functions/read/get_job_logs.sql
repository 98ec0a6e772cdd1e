-- A page of one job's log, newest first, after p_cursor. p_user_id NULL: the caller's own job; for the service, any.
-- Returns: 0..p_limit rows; none for another user's job. next_cursor and has_more are the same in every row.
-- Index:   idx_job_log_job_time.
-- Raises:  SV001, SV004, SV014.
CREATE OR REPLACE FUNCTION public.get_job_logs(
    p_job_id uuid, p_user_id uuid DEFAULT NULL, p_log_level text DEFAULT NULL, p_limit integer DEFAULT 100,
    p_cursor text DEFAULT NULL
) RETURNS TABLE (
        id uuid, job_id uuid, user_id uuid, log_level text, message text, metadata jsonb, created_at timestamptz,
        next_cursor text, has_more boolean
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
    v_filter text := concat_ws('|', 'logs', p_job_id, coalesce(v_user_id::text, '*'), coalesce(p_log_level, '*'));
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
BEGIN
    PERFORM streamvibe.check_page(p_limit, NULL);
    IF p_log_level NOT IN ('debug', 'info', 'warning', 'error') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_log_level', p_log_level, 'the log level is unknown',
            'Use debug, info, warning or error, or NULL for all.');
    END IF;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.created_at DESC, l.id DESC) AS n FROM public.job_log l
        WHERE l.job_id = p_job_id AND (v_user_id IS NULL OR l.user_id = v_user_id)
          AND (p_log_level IS NULL OR l.log_level = p_log_level)
          AND l.id >= p_job_id
          AND (v_after IS NULL OR l.id < v_after)
        ORDER BY l.created_at DESC, l.id DESC LIMIT p_limit + 1
    ), page_end AS (
        SELECT (SELECT f.id FROM found f WHERE f.n <= p_limit ORDER BY f.n DESC LIMIT 1) AS last_id,
               (SELECT count(*) FROM found) > p_limit AS has_more
    )
    SELECT f.id, f.job_id, f.user_id, f.log_level, f.message, f.metadata, f.created_at,
           CASE WHEN e.has_more THEN streamvibe.cursor_of(e.last_id, v_filter) END, e.has_more
    FROM found f CROSS JOIN page_end e
    WHERE f.n <= p_limit ORDER BY f.n;
END
$$;
