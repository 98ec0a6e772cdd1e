-- The files of the archive, by kind, day and source: each row that was archived is in exactly one of them.
-- key: below url. checksum: the sum of its rows' digests (see the views archivable_job, archivable_line).
-- Raises: SV004.
CREATE OR REPLACE FUNCTION public.get_archive_files()
    RETURNS TABLE (file_id bigint, kind text, source text, day date, url text, key text, row_count bigint, byte_count bigint,
                   checksum numeric, verified_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_archive_files');
    RETURN QUERY
    SELECT f.id, f.kind, f.source, f.day, f.url, f.key, f.row_count, f.byte_count, f.checksum, f.verified_at
    FROM streamvibe.archive_file f WHERE f.state = 'complete' ORDER BY f.kind, f.day, f.source;
END
$$;
