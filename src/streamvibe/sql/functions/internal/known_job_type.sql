-- The settings of a registered job type.
-- Raises: SV002 not registered.
CREATE OR REPLACE FUNCTION streamvibe.known_job_type(p_job_type text) RETURNS streamvibe.job_type
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type streamvibe.job_type;
BEGIN
    SELECT t.* INTO v_type FROM streamvibe.job_type t WHERE t.name = p_job_type;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV002', 'p_job_type', p_job_type, 'job type is not registered',
            'Check the spelling, or register it: SELECT register_job_type(''name'').');
    END IF;
    RETURN v_type;
END
$$;
