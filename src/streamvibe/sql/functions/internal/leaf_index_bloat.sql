-- How much of each B-tree of the queue is empty, a row per leaf's index. See get_index_bloat().
-- p_suspicious_only: whole indexes are read only where the estimate says that a quarter is empty, or cannot tell; is_exact is true of
-- those alone.
-- Its parameters were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.leaf_index_bloat();
CREATE OR REPLACE FUNCTION streamvibe.leaf_index_bloat(p_suspicious_only boolean DEFAULT false)
    RETURNS TABLE (
        index_oid oid, index_name text, table_name text, size_bytes bigint, bloat_bytes bigint, leaf_density double precision,
        is_exact boolean
    )
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function text := streamvibe.pgstattuple_function('pgstatindex');
    v_found text := 'SELECT NULL::double precision AS density, NULL::double precision AS pages';
BEGIN
    IF v_function IS NOT NULL THEN
        -- (The condition stands in a subquery of its own, so that the function is not called where it is not met.)
        v_found := format('SELECT CASE WHEN s.leaf_pages > 0 THEN s.avg_leaf_density END AS density, '
                          'streamvibe.index_pages(s.leaf_pages, s.avg_leaf_density, s.internal_pages) AS pages '
                          'FROM (SELECT WHERE NOT $1 OR NOT e.is_known OR e.needed < 0.75 * e.size) g, '
                          'LATERAL %s(e.relation::regclass) s', v_function);
    END IF;
    RETURN QUERY EXECUTE format($query$
        WITH e AS MATERIALIZED (
            SELECT r.relation, r.name, r.table_name, pg_relation_size(r.relation) AS size,
                   -- A page has 24 bytes of its own and 16 at its end; an entry a pointer, 8 bytes, and its columns, to a
                   -- multiple of 8 bytes.
                   ceil(c.reltuples * (12 + 8 * ceil(coalesce(w.width, 16) / 8.0)) / (8152 * 0.9)) * 8192 + 8192 AS needed,
                   c.reltuples >= 0 AND t.reltuples >= 0 AS is_known
            FROM streamvibe.own_relations() r
            JOIN pg_index i ON i.indexrelid = r.relation AND i.indisvalid
            JOIN pg_class c ON c.oid = r.relation
            JOIN pg_class t ON t.oid = i.indrelid
            JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
            LEFT JOIN LATERAL (
                SELECT sum(coalesce(s.avg_width, CASE WHEN a.attlen > 0 THEN a.attlen ELSE 16 END)) AS width
                FROM pg_attribute a
                LEFT JOIN pg_attribute ta ON ta.attrelid = i.indrelid AND ta.attnum = i.indkey[a.attnum - 1]
                LEFT JOIN pg_stats s ON s.schemaname = 'streamvibe' AND s.tablename = t.relname AND s.attname = ta.attname
                WHERE a.attrelid = r.relation) w ON true
            WHERE r.kind = 'i' AND pg_relation_size(r.relation) > 0
        )
        SELECT e.relation, e.name, e.table_name, e.size,
               greatest(CASE WHEN f.pages IS NOT NULL THEN e.size - f.pages * current_setting('block_size')::integer
                             WHEN e.is_known THEN e.size - e.needed ELSE 0 END, 0)::bigint,
               f.density, f.pages IS NOT NULL
        FROM e LEFT JOIN LATERAL (%s) f ON true
    $query$, v_found) USING p_suspicious_only;
END
$$;
