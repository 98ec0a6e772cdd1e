-- How much of every B-tree of the queue is empty, those of the leaves added up.
-- method:  'pgstattuple' where that extension is there: every leaf page was read. Else 'estimate': pages compared with what the
--          entries need by the statistics of their columns; 20 % either way, and nothing before the first ANALYZE.
-- bloat_bytes: what a freshly built index would not have; one is full to 90 %.
-- worst_index: the leaf's index with the most of it.
-- Reads:   with pgstattuple, all of every index.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_index_bloat()
    RETURNS TABLE (
        index_name text, table_name text, size_bytes bigint, bloat_bytes bigint, leaf_density double precision,
        worst_index text, method text
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_schema name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                      WHERE e.extname = 'pgstattuple');
    v_density text := 'NULL::float8';
BEGIN
    PERFORM streamvibe.require_service('get_index_bloat');
    IF v_schema IS NOT NULL THEN
        v_density := format('(SELECT CASE WHEN s.leaf_pages > 0 THEN s.avg_leaf_density END FROM %I.pgstatindex(r.relation::regclass) s)', v_schema);
    END IF;
    RETURN QUERY EXECUTE format($query$
        WITH b AS MATERIALIZED (
            SELECT r.relation, r.name, r.table_name, pg_relation_size(r.relation) AS size, %s AS density,
                   -- A page has 24 bytes of its own and 16 at its end; an entry a pointer, 8 bytes, and its columns, to a multiple
                   -- of 8 bytes.
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
        ), e AS (
            SELECT b.*, greatest(CASE WHEN b.density IS NOT NULL THEN b.size * (1 - b.density / 90) WHEN b.is_known THEN b.size - b.needed ELSE 0 END, 0)::bigint AS bloat
            FROM b
        )
        SELECT e.name, e.table_name, sum(e.size)::bigint, sum(e.bloat)::bigint,
               sum(e.density * e.size) / nullif(sum(e.size) FILTER (WHERE e.density IS NOT NULL), 0),
               (array_agg(e.relation::regclass::text ORDER BY e.bloat DESC))[1],
               CASE WHEN %L THEN 'pgstattuple' ELSE 'estimate' END
        FROM e GROUP BY e.name, e.table_name ORDER BY 4 DESC, 1
    $query$, v_density, v_schema IS NOT NULL);
END
$$;
