-- Write down that an object is about to be written to the archive. Commit before it is.
-- p_replaces: the complete file whose rows it will have, but for erased ones.
-- Returns:    the file's id.
-- Raises:     SV001 there is no such file to replace, SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.begin_archive_file(
    p_fence bigint, p_kind text, p_source text, p_day date, p_url text, p_key text, p_replaces bigint DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id bigint;
BEGIN
    PERFORM streamvibe.require_service('begin_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    IF p_replaces IS NOT NULL AND NOT EXISTS (
        SELECT FROM streamvibe.archive_file f
        WHERE f.id = p_replaces AND f.state = 'complete' AND f.source = p_source AND f.day = p_day
    ) THEN
        PERFORM streamvibe.raise_error('SV001', 'p_replaces', p_replaces::text, 'there is no such file of the archive',
            'See which there are: SELECT * FROM get_archive_files().');
    END IF;
    INSERT INTO streamvibe.archive_file (kind, source, day, url, key, replaces)
    VALUES (p_kind, p_source, p_day, p_url, p_key, p_replaces) RETURNING id INTO v_id;
    RETURN v_id;
END
$$;
