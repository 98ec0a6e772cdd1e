-- Count jobs that were taken back from workers that are gone: in streamvibe.counter, by type.
-- p_outcome:   'isolated' and 'released' as recover_stuck_jobs() has them; 'crashed': retried or failed.
-- p_job_types: each job's.
CREATE OR REPLACE FUNCTION streamvibe.count_recovered(p_outcome text, p_job_types text[]) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'recovered', u.job_type, p_outcome, count(*)
    FROM unnest(p_job_types) u(job_type)
    GROUP BY u.job_type
$$;
