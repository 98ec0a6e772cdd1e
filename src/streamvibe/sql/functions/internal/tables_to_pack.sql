-- Tables, but for partitions, that are small and take much more than they need, themselves or an index of theirs:
-- - less than 128 KB, when it is more than 1.25 times what is needed: most are passed through within seconds, and would stay as large as they
--   once were;
-- - up to 32 MB what statistics add up to (stat, stat_sketch; when a leaf leaves, all of its hours leave them, and only the next week would
--   fill the room), and the list of the archive's files, each of whose rows is written three times, of which more than a sixth is empty.
-- They are rewritten in a few milliseconds, or a fraction of a second, for which whoever uses them waits. Only where pgstattuple tells
-- how full they are. (Not what is larger, and written to by everybody: what is empty of that is used again.)
DROP FUNCTION IF EXISTS streamvibe.sums_to_pack();
CREATE OR REPLACE FUNCTION streamvibe.tables_to_pack() RETURNS TABLE (name text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_tables text := streamvibe.pgstattuple_function('pgstattuple');
    v_indexes text := streamvibe.pgstattuple_function('pgstatindex');
BEGIN
    IF v_tables IS NULL OR v_indexes IS NULL THEN
        RETURN;
    END IF;
    -- A row takes a line pointer of 4 bytes, and is filled up to a multiple of 8; a page has 24 of its own.
    RETURN QUERY EXECUTE format($query$
        SELECT c.relname::text
        FROM (SELECT t.oid, t.relname, t.reloptions FROM pg_class t
              WHERE t.relnamespace = 'streamvibe'::regnamespace AND t.relkind = 'r' AND NOT t.relispartition
                AND pg_relation_size(t.oid) <= 32 * 1024 * 1024
                AND (pg_relation_size(t.oid) < 128 * 1024 OR t.relname IN ('stat', 'stat_sketch', 'archive_file')) OFFSET 0) c
        CROSS JOIN LATERAL (SELECT 8168 * coalesce((SELECT o.option_value::integer FROM pg_options_to_table(c.reloptions) o
                                                    WHERE o.option_name = 'fillfactor'), 100) / 100 AS bytes) page
        CROSS JOIN LATERAL (
            SELECT t.table_len, (t.tuple_len + 8 * t.tuple_count) * 8192.0 / page.bytes AS needed,
                   -- As many whole rows as fit, of few pages; a page where there is none.
                   8192 * greatest(ceil(t.tuple_count::numeric
                                        / greatest(floor(page.bytes / (t.tuple_len::numeric / nullif(t.tuple_count, 0) + 11)), 1)), 1) AS whole
            FROM %s(c.oid::regclass) t) t
        WHERE CASE WHEN t.table_len >= 128 * 1024 THEN t.table_len - t.needed > t.table_len / 6
              ELSE t.table_len > 1.25 * coalesce(t.whole, 8192)
                   OR EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                              JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
                              CROSS JOIN LATERAL %s(x.oid::regclass) s
                              WHERE i.indrelid = c.oid AND i.indisvalid AND pg_relation_size(x.oid)
                                    > 1.25 * 8192 * streamvibe.index_pages(s.leaf_pages, s.avg_leaf_density, s.internal_pages))
              END
    $query$, v_tables, v_indexes);
END
$$;
