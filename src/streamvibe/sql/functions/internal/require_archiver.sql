-- Refuse what a process does that is not, or not any more, the one that writes to the archive.
-- Locks:  the row of streamvibe.archiver (FOR SHARE): nobody takes over before this transaction ends.
-- Raises: SV016.
CREATE OR REPLACE FUNCTION streamvibe.require_archiver(p_fence bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM streamvibe.archiver a
    WHERE a.fence = p_fence AND a.holder IS NOT NULL AND a.expires_at >= streamvibe.now() FOR SHARE;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV016', 'p_fence', p_fence::text, 'another process writes to the archive now',
            'Wait until it is done: streamvibe archive status says which.');
    END IF;
END
$$;
