-- Commands, each to be run by itself outside of a transaction: first those that remove what an interrupted rebuild left behind,
-- then those that rewrite small tables (tables_to_pack), whose indexes are built anew by that, then those that rebuild
-- what is bloated:
-- - indexes of leaves whose time is over, which nothing will fill again, of the statistics that are added up, from which whole weeks
--   leave, of the list of the archive's files, and of leaves that are written to as long as they are small (256 MB), when more than an eighth is empty (1.14 times what
--   is needed: 1.3 is not reached before the next night), 20 at most, but only where pgstattuple tells how full an index is: an
--   estimate would be as wrong the night after;
-- - of what is left, the most bloated index, if more than half of it, and 10 MB, is empty.
-- Nothing for a role that does not own the tables.
-- Reads:  as get_index_bloat().
CREATE OR REPLACE FUNCTION streamvibe.indexes_to_rebuild() RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_tables text[];
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
    v_tables := ARRAY(SELECT t.name FROM streamvibe.tables_to_pack() t);
    RETURN QUERY SELECT format('VACUUM (FULL, ANALYZE, SKIP_LOCKED) streamvibe.%I', t.name) FROM unnest(v_tables) t(name);
    RETURN QUERY
    WITH bloat AS MATERIALIZED (
        SELECT b.*, p.sealed_at IS NOT NULL AS is_leaving,
               p.upper_at + interval '1 hour' < streamvibe.now() OR t.relname IN ('stat', 'stat_sketch', 'archive_file')
               OR p.parent_name IS NOT NULL AND b.size_bytes < 256 * 1024 * 1024 AS is_packed
        FROM streamvibe.leaf_index_bloat() b
        JOIN pg_index i ON i.indexrelid = b.index_oid
        JOIN pg_class t ON t.oid = i.indrelid
        LEFT JOIN streamvibe.partition p ON p.partition_name = t.relname
    )
    (SELECT format('REINDEX INDEX CONCURRENTLY %s', b.index_oid::regclass)
     FROM bloat b
     WHERE b.is_packed AND NOT b.is_leaving AND b.is_exact
       AND b.bloat_bytes > b.size_bytes / 8
       AND b.table_name <> ALL (v_tables)
     ORDER BY b.bloat_bytes DESC LIMIT 20)
    UNION ALL
    (SELECT format('REINDEX INDEX CONCURRENTLY %s', b.index_oid::regclass)
     FROM bloat b
     WHERE NOT (b.is_packed AND b.is_exact) IS TRUE AND b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > b.size_bytes / 2
     ORDER BY b.bloat_bytes DESC LIMIT 1);
END
$$;
