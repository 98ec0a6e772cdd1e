-- A page of a user's jobs by offset, with the total in every row.
-- p_order_by: created_at, completed_at or job_priority; ties by id in the same direction; NULLs last.
-- total_count is counted in this call up to 10,000 jobs; a longer list's is up to five minutes old: total_age.
-- Index:  idx_job_queue_user_status_created. Read are p_offset + p_limit entries of each status; all jobs of the list,
--         10,000 at most, when it is ordered by something else than created_at.
-- Raises: SV001 (also for more than 10,000 jobs by completed_at or job_priority), SV004, SV015 offset past 1000 (use
--         get_user_jobs_by_cursor).
CREATE OR REPLACE FUNCTION public.get_user_jobs(
    p_user_id uuid, p_status text DEFAULT NULL, p_job_type text DEFAULT NULL, p_limit integer DEFAULT 50,
    p_offset integer DEFAULT 0, p_order_by text DEFAULT 'created_at', p_order_dir text DEFAULT 'DESC'
) RETURNS TABLE (
        id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb,
        failure_kind text, error_message text, retry_count integer, progress real, progress_message text,
        worker_id text, created_at timestamptz, updated_at timestamptz, scheduled_for timestamptz,
        started_at timestamptz, completed_at timestamptz, expires_at timestamptz, retry_at timestamptz,
        idempotency_key text, total_count bigint, total_age interval
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_desc boolean := upper(p_order_dir) = 'DESC';
    v_total record;
    v_below uuid;
    v_ids uuid[];
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
    v_total := streamvibe.total_of_user_jobs(v_user_id, p_status, p_job_type, NULL, NULL);
    IF p_order_by = 'created_at' AND v_desc AND p_status IN ('completed', 'failed', 'cancelled') THEN
        -- What is asked for most, in one scan. Later partitions are empty, and are left out; a day, because clocks may be set back.
        v_below := streamvibe.id_bound(streamvibe.now() + interval '1 day');
        RETURN QUERY
        SELECT j.*, v_total.total, v_total.age FROM streamvibe.ended_jobs(v_user_id, p_status, p_job_type, v_below) j
        ORDER BY j.created_at DESC, j.id DESC LIMIT p_limit OFFSET p_offset;
        RETURN;
    ELSIF p_order_by = 'created_at' THEN
        v_ids := ARRAY(SELECT i.id FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, NULL, NULL, p_limit, p_offset,
                                                                v_desc) i);
        RETURN QUERY
        SELECT j.*, v_total.total, v_total.age FROM streamvibe.page_of_jobs(v_ids) j
        ORDER BY CASE WHEN v_desc THEN j.id END DESC, j.id;
        RETURN;
    END IF;
    -- No index has this order for a user. What cannot be sorted within milliseconds is refused.
    IF v_total.total > 10000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_order_by', p_order_by,
            format('the list has %s jobs, and more than 10,000 are only listed in the order of created_at', v_total.total),
            'Order by created_at, or narrow the list with p_status or p_job_type.');
    END IF;
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT i.id, row_number() OVER (
                   ORDER BY CASE WHEN p_order_by = 'completed_at' AND v_desc THEN i.completed_at END DESC NULLS LAST,
                            CASE WHEN p_order_by = 'completed_at' AND NOT v_desc THEN i.completed_at END ASC NULLS LAST,
                            CASE WHEN p_order_by = 'job_priority' AND v_desc THEN i.job_priority END DESC,
                            CASE WHEN p_order_by = 'job_priority' AND NOT v_desc THEN i.job_priority END ASC,
                            CASE WHEN v_desc THEN i.id END DESC,
                            CASE WHEN NOT v_desc THEN i.id END ASC) AS nth
        FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, NULL, NULL, 10000) i
        ORDER BY nth LIMIT p_limit OFFSET p_offset
    )
    SELECT j.*, v_total.total, v_total.age
    FROM page p CROSS JOIN LATERAL (SELECT j.* FROM streamvibe.job j WHERE j.id = p.id OFFSET 0) j
    ORDER BY p.nth;
END
$$;
