-- Objects that are not part of the archive: what a process that died was writing, and what was replaced. Those without verified_at, and those
-- with a deleted_at, are to be deleted (again: a process that was stopped may have finished writing since; a week later that is over).
-- Index:  archive_file_incomplete.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION streamvibe.unfinished_archive_files()
    RETURNS TABLE (file_id bigint, source text, day date, url text, key text, row_count bigint, checksum numeric, to_delete boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('unfinished_archive_files');
    RETURN QUERY
    SELECT f.id, f.source, f.day, f.url, f.key, f.row_count, f.checksum,
           f.state = 'obsolete' OR f.verified_at IS NULL OR f.replaces IS NOT NULL
    FROM streamvibe.archive_file f
    WHERE f.state <> 'complete' AND (f.deleted_at IS NULL OR f.deleted_at < streamvibe.now() - interval '7 days')
    ORDER BY f.id;
END
$$;
