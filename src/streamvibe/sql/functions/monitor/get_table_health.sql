-- Every table of the queue, leaves added up: rows, dead rows, size, and when autovacuum was there last.
-- verdict: 'bloated' (more than a quarter of 50,000 rows or more is dead), 'not analyzed' (rows, and never analyzed),
--          'wraparound' (half of the way to a forced vacuum), 'ok'.
-- worst_table: the leaf with the most dead rows.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_table_health()
    RETURNS TABLE (
        table_name text, leaves integer, live_rows bigint, dead_rows bigint, size_bytes bigint, index_bytes bigint,
        last_vacuum timestamptz, last_analyze timestamptz, changed_since_analyze bigint, transaction_age integer,
        worst_table text, verdict text
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('get_table_health');
    RETURN QUERY
    SELECT h.name, h.parts, h.live, h.dead, h.size, h.indexes, h.vacuumed, h.analyzed, h.changed, h.age, h.worst,
           CASE WHEN h.age > h.freeze_max / 2 THEN 'wraparound' WHEN h.dead > 50000 AND h.dead > h.live / 4 THEN 'bloated'
                WHEN h.live > 10000 AND h.analyzed IS NULL THEN 'not analyzed' ELSE 'ok' END
    FROM (SELECT r.name, count(*)::integer AS parts, sum(s.n_live_tup)::bigint AS live, sum(s.n_dead_tup)::bigint AS dead,
                 sum(pg_table_size(r.relation))::bigint AS size, sum(pg_indexes_size(r.relation))::bigint AS indexes,
                 max(greatest(s.last_vacuum, s.last_autovacuum)) AS vacuumed,
                 max(greatest(s.last_analyze, s.last_autoanalyze)) AS analyzed,
                 sum(s.n_mod_since_analyze)::bigint AS changed, max(age(c.relfrozenxid)) AS age,
                 (array_agg(r.relation::regclass::text ORDER BY s.n_dead_tup DESC))[1] AS worst,
                 current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max
          FROM streamvibe.own_relations() r
          JOIN pg_class c ON c.oid = r.relation
          JOIN pg_stat_user_tables s ON s.relid = r.relation
          WHERE r.kind = 'r'
          GROUP BY r.name) h
    ORDER BY h.size + h.indexes DESC, h.name;
END
$$;
