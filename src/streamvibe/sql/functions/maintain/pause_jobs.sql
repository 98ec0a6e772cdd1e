-- Let no job of a type, or of a user, be claimed from now on; without both, no job at all. What runs goes on, and jobs can be
-- asked for. A claim that is being made at this moment still counts as before.
-- Of a paused user the jobs stay where they are in the queue: claims walk past them, so pause no user with 100,000 of them
-- for long.
-- Returns: whether it was not paused before.
-- Raises:  SV001, SV002, SV004.
CREATE OR REPLACE FUNCTION public.pause_jobs(
    p_job_type text DEFAULT NULL, p_user_id uuid DEFAULT NULL, p_reason text DEFAULT NULL
) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('pause_jobs');
    INSERT INTO streamvibe.pause (kind, name, paused_at, reason)
    SELECT k.kind, k.name, streamvibe.now(), left(p_reason, 1000) FROM streamvibe.pause_key(p_job_type, p_user_id) k
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;
