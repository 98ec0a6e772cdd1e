-- The jobs that a user created in one hour, day, week (from Monday) or month: page 1 is the present one, page N the
-- one N - 1 before it. Newest first; of a bucket with more than p_limit jobs the next part comes after p_cursor, which
-- stays in its bucket, whatever the time has become.
-- p_time_zone: whose hours and days; a name like Europe/Berlin.
-- Returns: 1..p_limit rows, each with the bucket's bounds and total (up to five minutes old above 10,000 jobs: bucket_total_age),
--          next_cursor and has_more. An empty bucket is one row, in which only they are not NULL.
-- Index:   idx_job_queue_user_status_created, p_limit + 1 entries of each status, and the bucket's for its total.
-- Raises:  SV001, SV004, SV014 the cursor is broken or was made for another list.
CREATE OR REPLACE FUNCTION public.get_user_jobs_by_bucket(
    p_user_id uuid, p_bucket text DEFAULT 'day', p_page integer DEFAULT 1, p_status text DEFAULT NULL,
    p_job_type text DEFAULT NULL, p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL, p_time_zone text DEFAULT 'UTC'
) RETURNS TABLE (
        id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb,
        failure_kind text, error_message text, retry_count integer, progress real, progress_message text,
        worker_id text, created_at timestamptz, updated_at timestamptz, scheduled_for timestamptz,
        started_at timestamptz, completed_at timestamptz, expires_at timestamptz, retry_at timestamptz,
        idempotency_key text, bucket_start timestamptz, bucket_end timestamptz, bucket_total bigint,
        bucket_total_age interval, next_cursor text, has_more boolean
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_filter text := concat_ws('|', 'bucket', v_user_id, coalesce(p_status, '*'), coalesce(p_job_type, '*'), p_bucket,
                               p_page, p_time_zone);
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_at timestamptz := coalesce(streamvibe.id_time(v_after), streamvibe.now());
    v_back integer := CASE WHEN v_after IS NULL THEN p_page - 1 ELSE 0 END;
    v_width interval;
    v_local timestamp;
    v_start timestamptz;
    v_end timestamptz;
    v_total record;
    v_ids uuid[];
    v_has_more boolean;
    v_next text;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    IF (p_bucket IN ('hour', 'day', 'week', 'month')) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_bucket', p_bucket, 'p_bucket is unknown',
            'Use hour, day, week or month.');
    ELSIF p_page IS NULL OR p_page NOT BETWEEN 1 AND 1000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_page', p_page::text, 'p_page is out of range',
            'Use 1 (the present one) to 1000, or a wider bucket.');
    END IF;
    v_width := ('1 ' || p_bucket)::interval;
    BEGIN
        v_local := date_trunc(p_bucket, v_at AT TIME ZONE p_time_zone) - v_back * v_width;
    EXCEPTION
        WHEN invalid_parameter_value THEN NULL;
    END;
    IF v_local IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_time_zone', p_time_zone, 'p_time_zone is unknown',
            'Use a name of the time zone database, like UTC or Europe/Berlin.');
    ELSIF p_bucket = 'hour' THEN
        -- Hours are counted in time that passes: when clocks are set back, one comes twice.
        v_start := date_trunc(p_bucket, v_at, p_time_zone) - v_back * v_width;
        v_end := v_start + v_width;
    ELSE
        v_start := v_local AT TIME ZONE p_time_zone;
        v_end := (v_local + v_width) AT TIME ZONE p_time_zone;
    END IF;
    v_total := streamvibe.total_of_user_jobs(v_user_id, p_status, p_job_type, v_start, v_end);
    v_ids := ARRAY(SELECT i.id FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, streamvibe.id_floor(v_start),
                                                            coalesce(v_after, streamvibe.id_floor(v_end)), p_limit + 1) i);
    v_has_more := cardinality(v_ids) > p_limit;
    IF v_has_more THEN
        v_next := streamvibe.cursor_of(v_ids[p_limit], v_filter);
        v_ids := v_ids[:p_limit];
    END IF;
    RETURN QUERY
    SELECT j.*, v_start, v_end, v_total.total, v_total.age, v_next, v_has_more
    FROM (SELECT) one LEFT JOIN streamvibe.page_of_jobs(v_ids) j ON true
    ORDER BY j.id DESC;
END
$$;
