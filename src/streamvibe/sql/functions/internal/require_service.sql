-- Refuse everybody but the service.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION streamvibe.require_service(p_function text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT streamvibe.is_service() THEN
        PERFORM streamvibe.raise_error('SV004', 'role',
            CASE WHEN current_setting('role') = 'none' THEN session_user ELSE current_setting('role') END,
            p_function || ' is for the service only',
            'Call it as service_role (SET ROLE service_role) or as the owner of job_queue.');
    END IF;
END
$$;
