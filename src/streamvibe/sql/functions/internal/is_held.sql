-- Whether a pending job stands in a claim's list, which makes it processing for every reader.
CREATE OR REPLACE FUNCTION streamvibe.is_held(p_job_id uuid) RETURNS boolean
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM streamvibe.claim c WHERE p_job_id = ANY (c.job_ids))
$$;
