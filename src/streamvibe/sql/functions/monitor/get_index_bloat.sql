-- How much of every B-tree of the queue is empty, those of the leaves added up.
-- method:  'pgstattuple' where that extension is there and may be used: every leaf page was read. Else 'estimate': pages compared
--          with what the entries need by the statistics of their columns; 20 % either way, too much for many equal keys, and
--          nothing before the first ANALYZE.
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
BEGIN
    PERFORM streamvibe.require_service('get_index_bloat');
    RETURN QUERY
    SELECT b.index_name, b.table_name, sum(b.size_bytes)::bigint, sum(b.bloat_bytes)::bigint,
           sum(b.leaf_density * b.size_bytes) / nullif(sum(b.size_bytes) FILTER (WHERE b.leaf_density IS NOT NULL), 0),
           (array_agg(b.index_oid::regclass::text ORDER BY b.bloat_bytes DESC))[1],
           CASE WHEN bool_and(b.is_exact) THEN 'pgstattuple' ELSE 'estimate' END
    FROM streamvibe.leaf_index_bloat() b
    GROUP BY b.index_name, b.table_name ORDER BY 4 DESC, 1;
END
$$;
