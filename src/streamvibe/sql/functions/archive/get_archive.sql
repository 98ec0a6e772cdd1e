-- The archive: where it is, who writes to it, what is in it, and what waits to be archived.
-- Returns: one row. url NULL: what leaves is not kept from now on. archiver: the process that writes to it now.
--          leaves_waiting, jobs_waiting: partitions that are old, and jobs deleted one by one, that are not archived yet.
--          erasures: users who are to be erased from it.
--          is_copy: it is the archive of the database that this one is a copy of: nothing is written before set_archive().
-- Index:   as old_partitions(); streamvibe.leaving_job and archive_file are read whole.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_archive()
    RETURNS TABLE (
        url text, archive_id uuid, archiver text, files bigint, jobs bigint, lines bigint, bytes bigint, first_day date, last_day date,
        last_written_at timestamptz, leaves_waiting bigint, jobs_waiting bigint, erasures bigint,
        is_copy boolean
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_archive');
    RETURN QUERY
    SELECT s.archive_url, s.archive_id, CASE WHEN a.expires_at >= streamvibe.now() THEN a.holder END, f.files, f.jobs, f.lines, f.bytes,
           f.first_day, f.last_day, f.last_written_at,
           CASE WHEN s.archive_url IS NULL THEN 0
                ELSE (SELECT count(*) FROM streamvibe.old_partitions() p WHERE p.archived_at IS NULL) END,
           (SELECT count(*) FROM streamvibe.leaving_job), (SELECT count(*) FROM streamvibe.erasure),
           coalesce(s.archive_owner <> streamvibe.this_database(), false)
    FROM streamvibe.setting s CROSS JOIN streamvibe.archiver a
    CROSS JOIN (SELECT count(*) AS files, coalesce(sum(c.row_count) FILTER (WHERE c.kind = 'jobs'), 0)::bigint AS jobs,
                       coalesce(sum(c.row_count) FILTER (WHERE c.kind = 'logs'), 0)::bigint AS lines,
                       coalesce(sum(c.byte_count), 0)::bigint AS bytes, min(c.day) AS first_day, max(c.day) AS last_day,
                       max(c.verified_at) AS last_written_at
                FROM streamvibe.archive_file c WHERE c.state = 'complete') f;
END
$$;
