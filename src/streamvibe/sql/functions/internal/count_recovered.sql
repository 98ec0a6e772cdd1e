-- Count jobs that were taken back from workers that are gone: in streamvibe.counter, by type.
-- p_outcome: 'isolated' and 'released' as recover_stuck_jobs() has them; 'crashed': retried or failed.
CREATE OR REPLACE FUNCTION streamvibe.count_recovered(p_outcome text, p_job_ids uuid[]) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'recovered', q.job_type, p_outcome, count(*)
    FROM unnest(p_job_ids) u(id) CROSS JOIN LATERAL (SELECT j.job_type FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    GROUP BY q.job_type
$$;
