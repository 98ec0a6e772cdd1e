-- A page of log lines, newest first, after p_cursor; NULL is the first page.
-- p_job_id: that job's; NULL: all jobs'. p_user_id NULL: the caller's own; for the service, anybody's.
-- p_log_level; p_since (with it) and p_until (without it); p_metadata, what the line's metadata contain (@>);
-- p_search, words, "a phrase", or and -not (websearch_to_tsquery, English), marked ** and ** in snippet: all of the message up
-- to 200 characters, else the parts that have them.
-- Returns: 0..p_limit rows; none for another user's job. next_cursor and has_more are the same in every row. snippet is
--          NULL without p_search.
-- Indexes: idx_job_log_job_time for one job's log; else those of streamvibe.find_log_lines.
-- Raises:  SV001, SV003, SV004, SV014.
CREATE OR REPLACE FUNCTION public.get_job_logs(
    p_job_id uuid DEFAULT NULL, p_user_id uuid DEFAULT NULL, p_log_level text DEFAULT NULL, p_limit integer DEFAULT 100,
    p_cursor text DEFAULT NULL, p_since timestamptz DEFAULT NULL, p_until timestamptz DEFAULT NULL,
    p_metadata jsonb DEFAULT NULL, p_search text DEFAULT NULL
) RETURNS TABLE (
        id uuid, job_id uuid, user_id uuid, log_level text, message text, metadata jsonb, created_at timestamptz,
        next_cursor text, has_more boolean, snippet text
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
    v_filter text := concat_ws('|', 'logs', coalesce(p_job_id::text, '*'), coalesce(v_user_id::text, '*'),
                               coalesce(p_log_level, '*'), coalesce(extract(epoch FROM p_since)::text, '*'),
                               coalesce(extract(epoch FROM p_until)::text, '*'), coalesce(p_metadata::text, '*'), p_search);
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_query tsquery;
    v_from uuid := coalesce(streamvibe.id_floor(p_since), '00000000-0000-0000-0000-000000000000');
    v_below uuid := coalesce(v_after, streamvibe.id_floor(p_until),
                             streamvibe.id_bound(streamvibe.now() + interval '1 day'));
BEGIN
    PERFORM streamvibe.check_page(p_limit, NULL);
    IF p_log_level NOT IN ('debug', 'info', 'warning', 'error') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_log_level', p_log_level, 'the log level is unknown',
            'Use debug, info, warning or error, or NULL for all.');
    ELSIF p_since >= p_until THEN
        PERFORM streamvibe.raise_error('SV001', 'p_until', p_until::text, 'p_until is not after p_since',
            'Swap them, or leave one out.');
    ELSIF length(p_search) > 1000 THEN
        PERFORM streamvibe.raise_error('SV003', 'p_search', length(p_search) || ' characters',
            'p_search is too long', 'Use 1000 characters at most.');
    END IF;
    PERFORM streamvibe.check_contained('p_metadata', p_metadata);
    IF p_search IS NOT NULL THEN
        v_query := websearch_to_tsquery('english', p_search);
        IF numnode(v_query) = 0 THEN
            PERFORM streamvibe.raise_error('SV001', 'p_search', p_search, 'p_search has no word to look for',
                'Use at least one word that is not as common as "the" or "and", or NULL.');
        END IF;
    END IF;
    -- A job's log begins with the job, and is in no partition before.
    v_from := greatest(v_from, p_job_id);
    IF p_job_id IS NOT NULL AND p_metadata IS NULL AND v_query IS NULL THEN
        RETURN QUERY
        WITH found AS MATERIALIZED (
            SELECT l.*, row_number() OVER (ORDER BY l.created_at DESC, l.id DESC) AS n FROM public.job_log l
            WHERE l.job_id = p_job_id AND (v_user_id IS NULL OR l.user_id = v_user_id)
              AND (p_log_level IS NULL OR l.log_level = p_log_level)
              AND l.id >= v_from AND l.id < v_below
            ORDER BY l.created_at DESC, l.id DESC LIMIT p_limit + 1
        ), page_end AS (
            SELECT (SELECT f.id FROM found f WHERE f.n = p_limit) AS last_id,
                   (SELECT count(*) FROM found) > p_limit AS has_more
        )
        SELECT f.id, f.job_id, f.user_id, f.log_level, f.message, f.metadata, f.created_at,
               CASE WHEN e.has_more THEN streamvibe.cursor_of(e.last_id, v_filter) END, e.has_more, NULL::text
        FROM found f CROSS JOIN page_end e
        WHERE f.n <= p_limit ORDER BY f.n;
        RETURN;
    END IF;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.id DESC) AS n
        FROM streamvibe.find_log_lines(p_job_id, v_user_id, p_log_level, v_from, v_below, p_metadata, v_query,
                                       p_limit + 1) l
    ), page_end AS (
        SELECT (SELECT f.id FROM found f WHERE f.n = p_limit) AS last_id,
               (SELECT count(*) FROM found) > p_limit AS has_more
    )
    SELECT f.id, f.job_id, f.user_id, f.log_level, f.message, f.metadata, f.created_at,
           CASE WHEN e.has_more THEN streamvibe.cursor_of(e.last_id, v_filter) END, e.has_more,
           CASE WHEN v_query IS NOT NULL THEN
               ts_headline('english', f.message, v_query, 'StartSel=**, StopSel=**, ' || CASE
                   WHEN length(f.message) <= 200 THEN 'HighlightAll=true' ELSE 'MaxFragments=2, MaxWords=30, MinWords=10' END)
           END
    FROM found f CROSS JOIN page_end e
    WHERE f.n <= p_limit ORDER BY f.n;
END
$$;
