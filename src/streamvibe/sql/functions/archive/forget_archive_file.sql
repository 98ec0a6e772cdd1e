-- Write down that an object that is not part of the archive was deleted; the second time, forget it.
-- Raises: SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.forget_archive_file(p_fence bigint, p_file_id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('forget_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    DELETE FROM streamvibe.archive_file f WHERE f.id = p_file_id AND f.state <> 'complete' AND f.deleted_at IS NOT NULL;
    UPDATE streamvibe.archive_file f SET state = 'obsolete', deleted_at = streamvibe.now()
    WHERE f.id = p_file_id AND f.state <> 'complete';
END
$$;
