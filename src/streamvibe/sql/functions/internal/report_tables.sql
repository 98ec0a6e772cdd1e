-- The tables of the queue as a report lists them, those with something wrong first, then the largest; advice: what to do about
-- what get_table_health() says of it.
CREATE OR REPLACE FUNCTION streamvibe.report_tables() RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object(
                   'table_name', h.table_name, 'live_rows', h.live_rows, 'dead_rows', h.dead_rows,
                   'size_bytes', h.size_bytes, 'index_bytes', h.index_bytes, 'last_vacuum', h.last_vacuum,
                   'last_analyze', h.last_analyze, 'verdict', h.verdict,
                   'advice', CASE h.verdict
                       WHEN 'bloated' THEN
                           'Dead rows gather faster than autovacuum removes them: streamvibe doctor names what holds them back. '
                           'When nothing does: ALTER TABLE ' || h.worst_table || ' SET (autovacuum_vacuum_cost_delay = 0). '
                           'Space already lost comes back with VACUUM FULL ' || h.worst_table || ', which locks everybody out of it.'
                       WHEN 'not analyzed' THEN 'ANALYZE ' || h.worst_table
                       WHEN 'wraparound' THEN 'VACUUM (FREEZE) ' || h.worst_table || '; autovacuum does not get to it'
                   END) ORDER BY h.verdict = 'ok', h.size_bytes + h.index_bytes DESC, h.table_name)
        FROM public.get_table_health() h
    );
END
$$;
