-- Delete those of these jobs that have ended for good; they leave the statistics.
-- Returns: how many.
-- Locks:   their rows (SKIP LOCKED).
CREATE OR REPLACE FUNCTION streamvibe.delete_jobs(p_job_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
DECLARE
    v_ids uuid[];
BEGIN
    v_ids := ARRAY(SELECT l.id FROM unnest(p_job_ids) u(id)
                   CROSS JOIN LATERAL (SELECT q.id FROM public.job_queue q
                                       WHERE q.id = u.id AND coalesce(q.status, '') IN ('completed', 'failed', 'cancelled')
                                         AND q.retry_at IS NULL
                                       FOR UPDATE SKIP LOCKED) l);
    PERFORM streamvibe.count_jobs(-1, v_ids);
    PERFORM streamvibe.count_removed(v_ids);
    DELETE FROM public.job_queue q WHERE q.id = ANY (v_ids) AND coalesce(q.status, '') <> '';
    RETURN cardinality(v_ids);
END
$$;
