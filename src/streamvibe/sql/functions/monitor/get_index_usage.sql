-- Every index of the queue, those of the leaves added up: how often it is used, and what to make of that.
-- verdict: 'invalid', 'unused' (no scan since the statistics began), 'hot' (more than a tenth of all scans), 'used', or
--          'constraint' for one that is never scanned but keeps ids unique.
-- since:   when the statistics began, as far as it is known.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_index_usage()
    RETURNS TABLE (
        index_name text, table_name text, scans bigint, tuples_read bigint, tuples_fetched bigint, size_bytes bigint,
        leaves integer, since timestamptz, verdict text
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('get_index_usage');
    RETURN QUERY
    SELECT u.name, u.of, u.scanned, u.read, u.fetched, u.size, u.parts, d.stats_reset,
           CASE WHEN u.bad THEN 'invalid' WHEN u.scanned = 0 AND u.needed THEN 'constraint' WHEN u.scanned = 0 THEN 'unused'
                WHEN u.scanned > 0.1 * sum(u.scanned) OVER () THEN 'hot' ELSE 'used' END
    FROM (SELECT r.name, r.table_name AS of, sum(s.idx_scan)::bigint AS scanned, sum(s.idx_tup_read)::bigint AS read,
                 sum(s.idx_tup_fetch)::bigint AS fetched, sum(pg_relation_size(r.relation))::bigint AS size,
                 count(*)::integer AS parts, bool_or(NOT i.indisvalid) AS bad, bool_or(i.indisunique) AS needed
          FROM streamvibe.own_relations() r
          JOIN pg_index i ON i.indexrelid = r.relation
          JOIN pg_stat_user_indexes s ON s.indexrelid = r.relation
          WHERE r.kind = 'i'
          GROUP BY r.name, r.table_name) u
    CROSS JOIN pg_stat_database d
    WHERE d.datname = current_database()
    ORDER BY u.scanned DESC, u.name;
END
$$;
