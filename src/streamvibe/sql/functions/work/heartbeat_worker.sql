-- Register a worker or renew its lease, and learn which of the jobs it believes it holds it does not.
-- p_worker_id: different for every process, also for the next one in the same place. Under an id that outlives its process
--              a new process renews the dead one's lease, so that nobody learns that a job killed it: that job is handed
--              out again and again, and no attempt counts.
-- p_job_types NULL: it takes any type. p_tokens and p_job_ids are parallel: the jobs being run.
-- Returns: 0..n rows; reason 'cancelled' (stop the handler) or 'lost' (another worker may run it; stop too).
-- Locks:   the worker's own row.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.heartbeat_worker(
    p_worker_id text,
    p_job_types text[] DEFAULT NULL,
    p_lease interval DEFAULT '10 seconds',
    p_job_ids uuid[] DEFAULT '{}',
    p_tokens bigint[] DEFAULT '{}',
    p_metadata jsonb DEFAULT NULL
) RETURNS TABLE (job_id uuid, reason text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
BEGIN
    PERFORM streamvibe.require_service('heartbeat_worker');
    IF p_worker_id IS NULL OR length(p_worker_id) NOT BETWEEN 1 AND 200 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_worker_id', p_worker_id, 'p_worker_id has the wrong length',
            'Use 1 to 200 characters, different for every worker process.');
    ELSIF p_lease IS NULL OR p_lease NOT BETWEEN '500 milliseconds' AND '1 day' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_lease', p_lease::text, 'p_lease is out of range',
            'Use 0.5 seconds to 1 day, and renew it three times as often.');
    END IF;
    INSERT INTO streamvibe.worker AS w (id, job_types, lease, heartbeat_at, started_at, metadata)
    VALUES (p_worker_id, p_job_types, p_lease, v_now, v_now, p_metadata)
    ON CONFLICT (id) DO UPDATE
    SET heartbeat_at = excluded.heartbeat_at, job_types = excluded.job_types, lease = excluded.lease,
        metadata = coalesce(excluded.metadata, w.metadata), left_over = NULL;
    RETURN QUERY
    SELECT r.job_id, CASE WHEN q.status = 'cancelled' THEN 'cancelled' ELSE 'lost' END
    FROM unnest(p_tokens, p_job_ids) r(token, job_id)
    LEFT JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h ON h.token = r.token AND h.job_id = r.job_id
    LEFT JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = r.job_id OFFSET 0) q ON true
    WHERE h.job_id IS NULL OR q.status IS DISTINCT FROM 'pending' AND q.status IS DISTINCT FROM 'processing';
END
$$;
