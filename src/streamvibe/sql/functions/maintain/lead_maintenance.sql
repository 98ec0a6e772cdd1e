-- Become, or stay, the one process that does maintenance, until p_lease from now. Call it every third of p_lease.
-- Returns: the fence under which this process may begin duties, the same as long as it stays the leader; NULL when another
--          one leads.
-- Locks:   the only row of streamvibe.leader, for a moment.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION streamvibe.lead_maintenance(p_leader_id text, p_lease interval DEFAULT '10 seconds')
    RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_now timestamptz;
    v_fence bigint;
BEGIN
    PERFORM streamvibe.require_service('lead_maintenance');
    IF (length(p_leader_id) BETWEEN 1 AND 200) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_leader_id', p_leader_id, 'p_leader_id is not a name',
            'Use 1 to 200 characters that no other process uses.');
    ELSIF (p_lease BETWEEN '1 second' AND '1 hour') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_lease', p_lease::text, 'p_lease is out of range',
            'Use ''1 second'' to ''1 hour''.');
    END IF;
    PERFORM FROM streamvibe.leader FOR NO KEY UPDATE;
    v_now := streamvibe.now();
    UPDATE streamvibe.leader l
    SET leader_id = p_leader_id, expires_at = v_now + p_lease,
        fence = CASE WHEN l.leader_id = p_leader_id AND l.expires_at >= v_now THEN l.fence ELSE l.fence + 1 END,
        led_since = CASE WHEN l.leader_id = p_leader_id AND l.expires_at >= v_now THEN l.led_since ELSE v_now END
    WHERE l.leader_id = p_leader_id OR l.expires_at < v_now OR l.leader_id IS NULL
    RETURNING l.fence INTO v_fence;
    RETURN v_fence;
END
$$;
