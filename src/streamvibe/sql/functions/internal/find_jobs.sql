-- The ids of jobs whose params and result contain these, newest first, below p_below; NULL: whatever it is.
-- What is rare is looked up, what is common is met on the way back from the newest job: as in find_log_lines.
-- Indexes: idx_job_queue_params_gin, idx_job_queue_result_gin, idx_job_queue_user_status_created, and the primary key.
-- It returned another column once.
DROP FUNCTION IF EXISTS streamvibe.find_jobs(uuid, jsonb, jsonb, text, text, uuid, integer);
CREATE OR REPLACE FUNCTION streamvibe.find_jobs(
    p_user_id uuid, p_params jsonb, p_result jsonb, p_status text, p_job_type text, p_below uuid, p_limit integer
) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE ROWS 50
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
    SET enable_seqscan = off
    SET enable_bitmapscan = on
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    v_statuses text[] := CASE WHEN p_status IS NOT NULL THEN streamvibe.stored_statuses(p_status) END;
    v_held uuid[];
    v_below uuid := coalesce(p_below, streamvibe.id_bound(streamvibe.now() + interval '1 day'));
BEGIN
    IF p_status IN ('pending', 'processing') THEN
        v_held := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    END IF;
    RETURN QUERY
    SELECT q.id FROM public.job_queue q
    WHERE (p_user_id IS NULL OR q.user_id = p_user_id)
      AND (p_params IS NULL OR q.params @> p_params) AND (p_result IS NULL OR q.result @> p_result)
      AND (v_statuses IS NULL OR q.status = ANY (v_statuses))
      AND (p_job_type IS NULL OR q.job_type = p_job_type)
      AND (v_held IS NULL OR q.status <> 'pending' OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing'))
      AND q.id < v_below
    ORDER BY q.id DESC LIMIT p_limit;
END
$$;
