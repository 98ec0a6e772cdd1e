-- Tables of which more than a sixth is empty: what statistics add up to (stat, stat_sketch; when a leaf leaves, all of its hours leave
-- them, and only the next week would fill the room), and the list of the archive's files, each of whose rows is written three times.
-- Small ones alone, 128 KB to 32 MB, which are rewritten in a fraction of a second, for which compact_stats(), recount_stats(), whoever
-- reads statistics, and the archive wait. And only where pgstattuple tells how full they are.
-- (Not what every worker writes to: what is empty of that is used again at once.)
DROP FUNCTION IF EXISTS streamvibe.sums_to_pack();
CREATE OR REPLACE FUNCTION streamvibe.tables_to_pack() RETURNS TABLE (name text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function text := streamvibe.pgstattuple_function('pgstattuple');
BEGIN
    IF v_function IS NULL THEN
        RETURN;
    END IF;
    -- A row takes a line pointer of 4 bytes, and is filled up to a multiple of 8, 4 more on average; a page has 24 of its own.
    RETURN QUERY EXECUTE format($query$
        SELECT c.relname::text
        FROM pg_class c
        CROSS JOIN LATERAL (SELECT coalesce((SELECT o.option_value::integer FROM pg_options_to_table(c.reloptions) o
                                             WHERE o.option_name = 'fillfactor'), 100) AS fillfactor) o
        CROSS JOIN LATERAL (SELECT t.table_len, (t.tuple_len + 8 * t.tuple_count) * 100.0 / o.fillfactor * 8192 / 8168 AS needed
                            FROM %s(c.oid::regclass) t) t
        WHERE c.relnamespace = 'streamvibe'::regnamespace AND c.relname IN ('stat', 'stat_sketch', 'archive_file')
          AND pg_relation_size(c.oid) BETWEEN 128 * 1024 AND 32 * 1024 * 1024
          AND t.table_len - t.needed > t.table_len / 6
    $query$, v_function);
END
$$;
