-- Log lines with these filters, newest first, between p_from and p_below (without it); NULL: whatever it is.
-- What is rare is looked up, what is common is met on the way back from the newest line: the planner knows the words and
-- values (a plan of its own for every call) and how common they are, partition by partition, and stops at the limit.
-- Indexes: idx_job_log_job_time, idx_job_log_user_time, idx_job_log_errors, idx_job_log_message_fts,
--          idx_job_log_metadata_gin, and the primary key.
CREATE OR REPLACE FUNCTION streamvibe.find_log_lines(
    p_job_id uuid, p_user_id uuid, p_log_level text, p_from uuid, p_below uuid, p_metadata jsonb, p_query tsquery,
    p_limit integer
) RETURNS SETOF public.job_log
    LANGUAGE plpgsql STABLE ROWS 100
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
    SET enable_seqscan = off
    SET enable_bitmapscan = off
    SET jit = off
AS $$
DECLARE
    v_first timestamptz := streamvibe.id_time(p_from);
    v_last timestamptz := streamvibe.id_time(p_below);
BEGIN
    -- Words and values are only found by a bitmap; anything else is read in order.
    IF p_metadata IS NOT NULL OR p_query IS NOT NULL THEN
        PERFORM set_config('enable_bitmapscan', 'on', true);
    END IF;
    IF p_job_id IS NOT NULL OR p_user_id IS NOT NULL OR p_log_level IN ('error', 'warning') THEN
        RETURN QUERY
        SELECT l.* FROM public.job_log l
        WHERE (p_job_id IS NULL OR l.job_id = p_job_id) AND (p_user_id IS NULL OR l.user_id = p_user_id)
          AND (p_log_level IS NULL OR l.log_level = p_log_level)
          AND (p_metadata IS NULL OR l.metadata @> p_metadata)
          AND (p_query IS NULL OR to_tsvector('english', l.message) @@ p_query)
          AND l.id >= p_from AND l.id < p_below AND l.created_at >= v_first AND l.created_at <= v_last
        ORDER BY l.created_at DESC, l.id DESC LIMIT p_limit;
    ELSE
        RETURN QUERY
        SELECT l.* FROM public.job_log l
        WHERE (p_log_level IS NULL OR l.log_level = p_log_level)
          AND (p_metadata IS NULL OR l.metadata @> p_metadata)
          AND (p_query IS NULL OR to_tsvector('english', l.message) @@ p_query)
          AND l.id >= p_from AND l.id < p_below
        ORDER BY l.id DESC LIMIT p_limit;
    END IF;
END
$$;
