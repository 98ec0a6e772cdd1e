-- Whether a leaf must not be dropped yet because it is to be archived first.
-- Raises: SV004.
CREATE OR REPLACE FUNCTION streamvibe.awaits_archive(p_partition_name text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('awaits_archive');
    RETURN EXISTS (SELECT FROM streamvibe.partition p, streamvibe.setting s
                   WHERE p.partition_name = p_partition_name AND s.archive_url IS NOT NULL
                     AND (p.archived_at IS NULL OR s.archive_owner <> streamvibe.this_database()));
END
$$;
