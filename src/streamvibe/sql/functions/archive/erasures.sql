-- Users who are gone from the queue and are to be erased from the archive: jobs of theirs with an id below before_id,
-- and log lines that have one, or whose job has.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION streamvibe.erasures() RETURNS TABLE (user_id uuid, before_id uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('erasures');
    RETURN QUERY
    SELECT e.user_id, e.before_id FROM streamvibe.erasure e WHERE e.left_queue_at IS NOT NULL ORDER BY e.left_queue_at, e.user_id;
END
$$;
