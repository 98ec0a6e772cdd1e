-- Append log lines of claimed jobs, in the order given; the arrays are parallel.
-- Levels: debug, info, warning, error. Messages are cut at 10000 characters.
-- Returns: the jobs that are not this worker's any more; their lines are refused, the others kept.
-- Raises:  SV001, SV004, SV009.
CREATE OR REPLACE FUNCTION public.append_job_logs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_levels text[], p_messages text[],
    p_metadata jsonb[] DEFAULT NULL
) RETURNS TABLE (job_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_level text;
    v_random bigint := streamvibe.random_bits();
BEGIN
    PERFORM streamvibe.require_service('append_job_logs');
    SELECT l.level INTO v_level FROM unnest(p_levels) l(level)
    WHERE (l.level IN ('debug', 'info', 'warning', 'error')) IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_levels', v_level, 'the log level is unknown',
            'Use debug, info, warning or error.');
    END IF;
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens,
        ARRAY[cardinality(p_job_ids), cardinality(p_levels), cardinality(p_messages),
              coalesce(cardinality(p_metadata), cardinality(p_tokens))]);
    v_now := streamvibe.now();
    PERFORM streamvibe.require_partition('job_log', v_now);
    PERFORM streamvibe.require_partition('job_log', v_now + cardinality(p_job_ids) * interval '1 microsecond');
    -- A microsecond apart, so that lines written together keep their order.
    INSERT INTO public.job_log (id, job_id, user_id, job_type, log_level, message, metadata)
    SELECT streamvibe.make_id(streamvibe.microseconds(v_now) + a.n, hashint8extended(a.n, v_random)), a.job_id, q.user_id, q.job_type,
           a.level, left(coalesce(a.message, ''), 10000), a.metadata
    FROM unnest(p_tokens, p_job_ids, p_levels, p_messages, coalesce(p_metadata, '{}'))
         WITH ORDINALITY a(token, job_id, level, message, metadata, n)
    JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id)
    CROSS JOIN LATERAL (SELECT j.user_id, j.job_type FROM public.job_queue j WHERE j.id = a.job_id OFFSET 0) q;
    RETURN QUERY
    SELECT DISTINCT a.job_id FROM unnest(p_tokens, p_job_ids) a(token, job_id)
    WHERE NOT EXISTS (SELECT FROM streamvibe.held_jobs(p_worker_id, p_tokens) h
                      WHERE h.token = a.token AND h.job_id = a.job_id);
END
$$;
