-- Write down what was read back of an object that was written: it is whole, but not part of the archive yet.
-- Raises: SV001 no such file is being written, SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.end_archive_file(
    p_fence bigint, p_file_id bigint, p_row_count bigint, p_byte_count bigint, p_checksum numeric
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('end_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    UPDATE streamvibe.archive_file f
    SET row_count = p_row_count, byte_count = p_byte_count, checksum = p_checksum, verified_at = streamvibe.now()
    WHERE f.id = p_file_id AND f.state = 'writing' AND f.deleted_at IS NULL;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_file_id', p_file_id::text, 'no such file is being written',
            'Begin it: SELECT streamvibe.begin_archive_file(...).');
    END IF;
END
$$;
