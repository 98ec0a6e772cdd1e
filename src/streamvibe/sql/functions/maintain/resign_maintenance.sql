-- Lead no longer, so that another process need not wait for the lease to end.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION streamvibe.resign_maintenance(p_leader_id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
BEGIN
    PERFORM streamvibe.require_service('resign_maintenance');
    UPDATE streamvibe.leader SET leader_id = NULL, expires_at = '-infinity' WHERE leader_id = p_leader_id;
END
$$;
