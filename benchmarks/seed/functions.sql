-- The functions the document names, with the arguments it shows, "SECURITY DEFINER to bypass RLS checks".

CREATE FUNCTION seed.get_user_jobs(
    p_user_id uuid, p_status text DEFAULT NULL, p_job_type text DEFAULT NULL, p_limit integer DEFAULT 50,
    p_offset integer DEFAULT 0, p_order_by text DEFAULT 'created_at', p_order_dir text DEFAULT 'DESC'
) RETURNS TABLE (job seed.job_queue, total_count bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
BEGIN
    -- "Total count included (no separate query)", "Works with any sort order"
    RETURN QUERY EXECUTE format(
        'SELECT q, count(*) OVER () FROM seed.job_queue q
         WHERE q.user_id = $1 AND ($2 IS NULL OR q.status = $2) AND ($3 IS NULL OR q.job_type = $3)
         ORDER BY q.%I %s LIMIT $4 OFFSET $5', p_order_by, CASE WHEN upper(p_order_dir) = 'ASC' THEN 'ASC' ELSE 'DESC' END)
    USING p_user_id, p_status, p_job_type, p_limit, p_offset;
END
$$;

CREATE FUNCTION seed.get_cached_job_result(
    p_user_id uuid, p_job_type text, p_params jsonb, p_cache_ttl interval DEFAULT '1 hour'
) RETURNS TABLE (job_id uuid, result jsonb, completed_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
BEGIN
    RETURN QUERY SELECT q.id, q.result, q.completed_at FROM seed.job_queue q
    WHERE q.user_id = p_user_id AND q.job_type = p_job_type AND q.status = 'completed' AND q.params = p_params
      AND q.result IS NOT NULL AND q.completed_at > now() - p_cache_ttl
    ORDER BY q.completed_at DESC LIMIT 1;
END
$$;

CREATE FUNCTION seed.find_or_create_job(
    p_user_id uuid, p_job_type text, p_params jsonb, p_dedupe_window interval DEFAULT '5 minutes'
) RETURNS TABLE (job_id uuid, is_new boolean, existing_status text)
    LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    v_id uuid;
    v_status text;
BEGIN
    SELECT q.id, q.status INTO v_id, v_status FROM seed.job_queue q
    WHERE q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
      AND q.status IN ('pending', 'processing') AND q.created_at > now() - p_dedupe_window
    ORDER BY q.created_at DESC LIMIT 1;
    IF FOUND THEN
        RETURN QUERY SELECT v_id, false, v_status;
        RETURN;
    END IF;
    INSERT INTO seed.job_queue (user_id, job_type, params) VALUES (p_user_id, p_job_type, p_params) RETURNING id INTO v_id;
    RETURN QUERY SELECT v_id, true, NULL::text;
END
$$;

CREATE FUNCTION seed.get_job_queue_stats() RETURNS TABLE (
    total_jobs bigint, pending_jobs bigint, processing_jobs bigint, completed_jobs bigint, failed_jobs bigint,
    avg_processing_seconds double precision, jobs_by_type jsonb, error_rate double precision
)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
AS $$
BEGIN
    RETURN QUERY
    SELECT count(*), count(*) FILTER (WHERE q.status = 'pending'), count(*) FILTER (WHERE q.status = 'processing'),
           count(*) FILTER (WHERE q.status = 'completed'), count(*) FILTER (WHERE q.status = 'failed'),
           avg(date_part('epoch', q.completed_at - q.started_at)) FILTER (WHERE q.status = 'completed'),
           (SELECT jsonb_object_agg(t.job_type, t.n)
            FROM (SELECT j.job_type, count(*) AS n FROM seed.job_queue j GROUP BY j.job_type) t),
           count(*) FILTER (WHERE q.status = 'failed')::double precision
           / nullif(count(*) FILTER (WHERE q.status IN ('completed', 'failed')), 0)
    FROM seed.job_queue q;
END
$$;
