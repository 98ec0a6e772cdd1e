-- Refuse what comes under a fence that is not the present one's.
-- Raises: SV016.
CREATE OR REPLACE FUNCTION streamvibe.require_leader(p_fence bigint) RETURNS streamvibe.leader
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leader streamvibe.leader;
BEGIN
    SELECT l.* INTO v_leader FROM streamvibe.leader l;
    IF (v_leader.fence = p_fence AND v_leader.leader_id IS NOT NULL AND v_leader.expires_at >= streamvibe.now()) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV016', 'p_fence', p_fence::text, 'another process does the maintenance now',
            'Lead again before you begin another duty: SELECT streamvibe.lead_maintenance(''name'').');
    END IF;
    RETURN v_leader;
END
$$;
