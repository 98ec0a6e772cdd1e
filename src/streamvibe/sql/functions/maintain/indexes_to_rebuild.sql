-- Commands, each to be run by itself outside of a transaction: first those that remove what an interrupted rebuild left behind,
-- then one that rebuilds the most bloated index of a leaf: more than half of it, and 10 MB, is empty. Nothing for a role that does
-- not own the tables.
-- Reads:  as get_index_bloat().
CREATE OR REPLACE FUNCTION streamvibe.indexes_to_rebuild() RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = 'public.job_queue'::regclass) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT format('DROP INDEX CONCURRENTLY streamvibe.%I', c.relname)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = 'streamvibe'::regnamespace
      AND c.relname ~ '_cc(new|old)[0-9]*$'
      AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = i.indexrelid);
    RETURN QUERY
    SELECT format('REINDEX INDEX CONCURRENTLY %s', b.index_oid::regclass)
    FROM streamvibe.leaf_index_bloat() b
    WHERE b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > b.size_bytes / 2
    ORDER BY b.bloat_bytes DESC LIMIT 1;
END
$$;
