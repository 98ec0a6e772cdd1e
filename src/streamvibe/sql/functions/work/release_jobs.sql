-- Hand claimed jobs back unfinished: no attempt is counted, they are due as before, others are woken.
-- Returns: only those that were not this worker's any more, with their status now.
-- Locks:   the claims, then the jobs' rows in id order.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.release_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[])
    RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_held uuid[];
BEGIN
    PERFORM streamvibe.require_service('release_jobs');
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens, ARRAY[cardinality(p_job_ids)]);
    SELECT coalesce(array_agg(a.job_id ORDER BY a.job_id), '{}') INTO v_held
    FROM unnest(p_tokens, p_job_ids) a(token, job_id)
    JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id);
    PERFORM streamvibe.put_back(v_held, false);
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids);
    PERFORM streamvibe.wake_workers(d.job_type)
    FROM (SELECT DISTINCT q.job_type FROM public.job_queue q JOIN unnest(v_held) u(id) ON q.id = u.id
          WHERE q.status = 'pending') d;
    RETURN QUERY
    SELECT a.job_id, q.status
    FROM unnest(p_job_ids) a(job_id) LEFT JOIN public.job_queue q ON q.id = a.job_id
    WHERE a.job_id NOT IN (SELECT unnest(v_held)) OR q.status IS DISTINCT FROM 'pending';
END
$$;
