-- Take back pause_jobs() with the same arguments, and wake the workers. What else is paused stays so: everything is only
-- resumed when it was paused as a whole.
-- Returns: whether it was paused.
-- Raises:  SV001, SV002, SV004.
CREATE OR REPLACE FUNCTION public.resume_jobs(p_job_type text DEFAULT NULL, p_user_id uuid DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('resume_jobs');
    DELETE FROM streamvibe.pause p
    USING streamvibe.pause_key(p_job_type, p_user_id) k
    WHERE p.kind = k.kind AND p.name = k.name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM streamvibe.wake_workers(t.name) FROM streamvibe.job_type t WHERE p_job_type IS NULL OR t.name = p_job_type;
    RETURN true;
END
$$;
