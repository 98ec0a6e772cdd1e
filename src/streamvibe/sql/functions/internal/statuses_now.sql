-- The status of each of these jobs as its row has it, in any order: 'busy' for those of p_busy, NULL where there is
-- no such job. What the functions that move held jobs say of those that they did not move.
CREATE OR REPLACE FUNCTION streamvibe.statuses_now(p_job_ids uuid[], p_busy uuid[])
    RETURNS TABLE (job_id uuid, status text)
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT u.id, CASE WHEN u.id IN (SELECT unnest(p_busy)) THEN 'busy' ELSE q.status END
    FROM unnest(p_job_ids) u(id)
    LEFT JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q ON true
$$;
