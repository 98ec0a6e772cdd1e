-- Set how many live jobs one user may have; NULL goes back to the default. Holds from the next request on.
-- Raises: SV001, SV004.
CREATE OR REPLACE FUNCTION public.set_user_limit(p_user_id uuid, p_max_live_jobs integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('set_user_limit');
    IF p_user_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_user_id', NULL, 'p_user_id is missing',
            'Name the user whose limit it is.');
    ELSIF p_max_live_jobs < 0 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_max_live_jobs', p_max_live_jobs::text,
            'p_max_live_jobs is out of range', 'Pass 0 or more, or NULL for the default.');
    END IF;
    INSERT INTO streamvibe.account (user_id, max_live_jobs) VALUES (p_user_id, p_max_live_jobs)
    ON CONFLICT (user_id) DO UPDATE SET max_live_jobs = excluded.max_live_jobs;
END
$$;
