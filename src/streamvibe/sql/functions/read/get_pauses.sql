-- What is paused (pause_jobs), the oldest first. job_type and user_id are both NULL where everything is.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION public.get_pauses()
    RETURNS TABLE (job_type text, user_id uuid, paused_at timestamptz, reason text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('get_pauses');
    RETURN QUERY
    SELECT CASE WHEN p.kind = 'job_type' THEN p.name END, CASE WHEN p.kind = 'user' THEN p.name::uuid END, p.paused_at, p.reason
    FROM streamvibe.pause p ORDER BY p.paused_at, p.kind, p.name;
END
$$;
