-- Count jobs that are about to be deleted: in streamvibe.counter, by type, so that they stay among those that were created.
-- Whoever deletes jobs calls it beside count_jobs(-1, ...); compact_stats() does it for dropped leaves.
CREATE OR REPLACE FUNCTION streamvibe.count_removed(p_job_ids uuid[]) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'removed', q.job_type, '', count(*)
    FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id)) u
    CROSS JOIN LATERAL (SELECT j.job_type FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    GROUP BY q.job_type
$$;
