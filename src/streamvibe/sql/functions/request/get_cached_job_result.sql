-- The newest completed job of this user, type and exactly equal params that ended inside the TTL.
-- Returns: 0 or 1 row. p_cache_ttl NULL means what the job type says.
-- Index:   idx_job_queue_identity.
-- Raises:  SV001, SV002, SV003, SV004.
CREATE OR REPLACE FUNCTION public.get_cached_job_result(
    p_user_id uuid, p_job_type text, p_params jsonb DEFAULT '{}', p_cache_ttl interval DEFAULT NULL
) RETURNS TABLE (job_id uuid, result jsonb, completed_at timestamptz, result_age interval)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_type streamvibe.job_type := streamvibe.known_job_type(p_job_type);
    v_now timestamptz := streamvibe.now();
    v_id uuid;
BEGIN
    PERFORM streamvibe.check_request('p_', v_user_id, p_params, v_type.max_params_bytes, NULL, NULL);
    PERFORM streamvibe.check_window('p_cache_ttl', p_cache_ttl);
    -- First the id, then the row: inside WHERE the search would run once for every row of the table.
    v_id := streamvibe.find_same_work(v_user_id, p_job_type, p_params,
                                      v_now - coalesce(p_cache_ttl, v_type.cache_ttl), 'infinity', v_now,
                                      'ffffffff-ffff-ffff-ffff-ffffffffffff');
    RETURN QUERY
    SELECT q.id, q.result, q.completed_at, v_now - q.completed_at FROM public.job_queue q WHERE q.id = v_id;
END
$$;
