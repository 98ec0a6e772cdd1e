-- Lock jobs' rows in id order, as many as nobody else holds: an application's open transaction that cancelled a
-- job must not keep a worker, and with it all its other jobs, waiting.
-- locked:     the ids that are locked now, in order. The others are tried again later by whoever asked.
-- processing: those of them whose rows say so.
-- Locks:   the jobs' rows (SKIP LOCKED); never waits.
CREATE OR REPLACE FUNCTION streamvibe.lock_jobs(p_job_ids uuid[], OUT locked uuid[], OUT processing uuid[])
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT coalesce(array_agg(l.id ORDER BY l.id), '{}'),
           coalesce(array_agg(l.id) FILTER (WHERE l.status = 'processing'), '{}') INTO locked, processing
    FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id) ORDER BY 1) r
    CROSS JOIN LATERAL (
        SELECT q.id, q.status FROM public.job_queue q WHERE q.id = r.id FOR NO KEY UPDATE SKIP LOCKED) l;
END
$$;
