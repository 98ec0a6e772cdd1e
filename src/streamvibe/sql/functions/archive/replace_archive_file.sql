-- Let a verified file take the place of the complete one that it replaces; NULL: nothing takes its place, every row of it is
-- erased. In one step, so that a query sees the one or the other. The old object is to be deleted after this.
-- Raises: SV001 there is no such file, or the new one is not verified, SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.replace_archive_file(p_fence bigint, p_file_id bigint, p_by bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('replace_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    UPDATE streamvibe.archive_file f SET state = 'obsolete' WHERE f.id = p_file_id AND f.state = 'complete';
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_file_id', p_file_id::text, 'there is no such file of the archive',
            'See which there are: SELECT * FROM get_archive_files().');
    END IF;
    IF p_by IS NOT NULL THEN
        UPDATE streamvibe.archive_file f SET state = 'complete', replaces = NULL
        WHERE f.id = p_by AND f.replaces = p_file_id AND f.state = 'writing' AND f.verified_at IS NOT NULL AND f.deleted_at IS NULL;
        IF NOT FOUND THEN
            PERFORM streamvibe.raise_error('SV001', 'p_by', p_by::text, 'no such file was verified to replace it',
                'Begin one with p_replaces, write it, read it back, and end it.');
        END IF;
    END IF;
END
$$;
