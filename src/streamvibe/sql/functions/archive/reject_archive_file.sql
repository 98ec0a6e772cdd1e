-- Write down that an object will not become part of the archive: it is to be deleted, now or, where its place cannot be reached, later.
-- Raises: SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.reject_archive_file(p_fence bigint, p_file_id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('reject_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    UPDATE streamvibe.archive_file f SET state = 'obsolete' WHERE f.id = p_file_id AND f.state = 'writing';
END
$$;
