-- Commands that vacuum small tables (32 MB) with dead rows, each to be run by itself outside of a transaction: autovacuum leaves a few of them
-- alone, and how full an index is can only be told without them (streamvibe.indexes_to_rebuild). Not what is about to leave.
-- Nothing for a role that does not own the tables.
CREATE OR REPLACE FUNCTION streamvibe.tables_to_vacuum() RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = 'public.job_queue'::regclass) THEN
        RETURN;
    END IF;
    -- INDEX_CLEANUP: else indexes are left alone where dead rows are on fewer than two of a hundred pages.
    RETURN QUERY
    SELECT format('VACUUM (INDEX_CLEANUP ON, SKIP_LOCKED) streamvibe.%I', s.relname)
    FROM pg_stat_all_tables s
    WHERE s.schemaname = 'streamvibe' AND s.n_dead_tup > 0 AND pg_relation_size(s.relid) <= 32 * 1024 * 1024
      AND NOT EXISTS (SELECT FROM streamvibe.partition p WHERE p.partition_name = s.relname AND p.sealed_at IS NOT NULL)
    ORDER BY s.relname;
END
$$;
