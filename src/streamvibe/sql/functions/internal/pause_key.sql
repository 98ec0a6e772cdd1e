-- Which pause a job type, a user, or neither means. Raises: SV001 both are given, SV002 the type is unknown.
CREATE OR REPLACE FUNCTION streamvibe.pause_key(p_job_type text, p_user_id uuid, OUT kind text, OUT name text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_job_type IS NOT NULL AND p_user_id IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_user_id', p_user_id::text, 'a type or a user can be paused, not a type of a user',
            'Leave p_job_type or p_user_id out; without both, everything is meant.');
    ELSIF p_job_type IS NOT NULL THEN
        PERFORM streamvibe.known_job_type(p_job_type);
    END IF;
    kind := CASE WHEN p_job_type IS NOT NULL THEN 'job_type' WHEN p_user_id IS NOT NULL THEN 'user' ELSE 'all' END;
    name := coalesce(p_job_type, p_user_id::text, '');
END
$$;
