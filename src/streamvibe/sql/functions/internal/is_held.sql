-- Whether a pending job stands in a claim's list, which makes it processing for every reader. To look at one job by hand;
-- what looks at many reads the lists (live_claims) once.
CREATE OR REPLACE FUNCTION streamvibe.is_held(p_job_id uuid) RETURNS boolean
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM streamvibe.live_claims() c WHERE p_job_id = ANY (c.job_ids))
$$;
