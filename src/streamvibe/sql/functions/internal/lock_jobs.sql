-- Lock jobs' rows in id order, the one order in which every function takes them, so that no two ever deadlock.
-- An UPDATE alone takes them in whatever order its plan finds them.
-- Locks: the jobs' rows.
CREATE OR REPLACE FUNCTION streamvibe.lock_jobs(p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id) r
    CROSS JOIN LATERAL (SELECT FROM public.job_queue q WHERE q.id = r.id FOR NO KEY UPDATE) l;
END
$$;
