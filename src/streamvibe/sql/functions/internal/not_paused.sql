-- Those of these job types that are not paused; none when everything is.
CREATE OR REPLACE FUNCTION streamvibe.not_paused(p_job_types text[]) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT u.name FROM unnest(p_job_types) u(name)
                 WHERE NOT EXISTS (SELECT FROM streamvibe.pause p
                                   WHERE p.kind = 'all' OR p.kind = 'job_type' AND p.name = u.name))
$$;
