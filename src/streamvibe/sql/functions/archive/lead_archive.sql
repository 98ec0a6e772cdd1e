-- Become, or stay, the one process that writes to the archive, until p_lease from now. Call it every third of p_lease.
-- Returns: the fence under which this process may write; NULL when another one does.
-- Locks:   the only row of streamvibe.archiver, for a moment.
-- Raises:  SV001, SV004, SV017 in a copy of the database whose archive it is.
CREATE OR REPLACE FUNCTION streamvibe.lead_archive(p_holder text, p_lease interval DEFAULT '30 seconds') RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '5s'
AS $$
DECLARE
    v_fence bigint;
BEGIN
    PERFORM streamvibe.require_service('lead_archive');
    IF (length(p_holder) BETWEEN 1 AND 200) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_holder', p_holder, 'p_holder is not a name',
            'Use 1 to 200 characters that no other process uses.');
    ELSIF (p_lease BETWEEN '1 second' AND '1 hour') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_lease', p_lease::text, 'p_lease is out of range',
            'Use ''1 second'' to ''1 hour''.');
    END IF;
    PERFORM streamvibe.refuse_copy();
    PERFORM FROM streamvibe.archiver FOR NO KEY UPDATE;
    UPDATE streamvibe.archiver a
    SET holder = p_holder, expires_at = streamvibe.now() + p_lease,
        fence = CASE WHEN a.holder = p_holder AND a.expires_at >= streamvibe.now() THEN a.fence ELSE a.fence + 1 END
    WHERE a.holder = p_holder OR a.holder IS NULL OR a.expires_at < streamvibe.now()
    RETURNING a.fence INTO v_fence;
    RETURN v_fence;
END
$$;
