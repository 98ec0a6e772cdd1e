-- The workers there are: who takes which job types, and is it alive.
-- Returns: a row per worker, the longest running first. job_types NULL: every type. is_alive: its lease has not run
--          out; the jobs of one whose lease has are taken back within seconds. claimed_jobs: what it holds now.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_workers()
    RETURNS TABLE (
        worker_id text, job_types text[], is_alive boolean, claimed_jobs integer, started_at timestamptz,
        heartbeat_at timestamptz
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_workers');
    RETURN QUERY
    SELECT w.id, w.job_types, w.heartbeat_at + w.lease >= streamvibe.now(),
           coalesce(h.jobs, 0)::integer, w.started_at, w.heartbeat_at
    FROM streamvibe.worker w
    LEFT JOIN (SELECT c.worker_id, sum(cardinality(c.job_ids)) AS jobs FROM streamvibe.live_claims() c
               GROUP BY c.worker_id) h ON h.worker_id = w.id
    ORDER BY w.started_at, w.id;
END
$$;
