-- remove_jobs() for those that have ended for good, without locking their rows first.
-- Returns: how many; NULL, and nothing is deleted, when somebody has one of them for longer than 10 ms.
CREATE OR REPLACE FUNCTION streamvibe.remove_jobs_soon(p_job_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '10ms'
AS $$
BEGIN
    RETURN streamvibe.remove_jobs(p_job_ids, true);
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;
