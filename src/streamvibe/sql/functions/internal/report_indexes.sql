-- The indexes of the queue as a report lists them: invalid and bloated ones first, then those that were used least for their size.
-- p_before:    the same list of the report before.
-- scans:       since that one; null when it is not known, because there is none or the statistics began anew.
-- scans_total: since the statistics began.
CREATE OR REPLACE FUNCTION streamvibe.report_indexes(p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH listed AS (
            SELECT u.index_name, u.table_name, u.size_bytes, u.scans AS scans_total, u.since, u.verdict,
                   b.bloat_bytes, b.method AS bloat_method, o.size_bytes AS size_bytes_before,
                   -- A dropped leaf takes its scans with it.
                   CASE WHEN o.since IS NOT DISTINCT FROM u.since AND u.scans >= o.scans_total THEN u.scans - o.scans_total END AS scans,
                   CASE WHEN b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > u.size_bytes / 2
                        THEN 'REINDEX INDEX CONCURRENTLY ' || b.worst_index END AS advice
            FROM public.get_index_usage() u
            LEFT JOIN public.get_index_bloat() b USING (index_name, table_name)
            LEFT JOIN jsonb_to_recordset(p_before) o(index_name text, table_name text, size_bytes bigint, scans_total bigint,
                                                     since timestamptz) USING (index_name, table_name)
        )
        SELECT jsonb_agg(to_jsonb(l) ORDER BY l.verdict <> 'invalid', l.advice IS NULL, l.verdict NOT IN ('unused'),
                         l.bloat_bytes DESC NULLS LAST, l.size_bytes DESC, l.index_name)
        FROM listed l
    );
END
$$;
