-- Let another process write to the archive at once; nothing when another one does.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION streamvibe.resign_archive(p_fence bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '5s'
AS $$
BEGIN
    PERFORM streamvibe.require_service('resign_archive');
    UPDATE streamvibe.archiver a SET holder = NULL, expires_at = '-infinity' WHERE a.fence = p_fence;
END
$$;
