-- The slowest statements as a report lists them: those that took the most time since the report before, as far as it is known.
-- p_before: {"items"} of that one.
-- Returns:  {"problem", "fix": of get_slow_statements(); "items": [{"statement", "query_id", "calls", "total_seconds",
--           "mean_seconds" (since the report before; where "is_total", since the extension began to count), "max_seconds",
--           "blocks_per_call", "calls_total", "total_seconds_total", "since"}]}
CREATE OR REPLACE FUNCTION streamvibe.report_statements(p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH found AS MATERIALIZED (
            SELECT * FROM public.get_slow_statements(100)
        ), listed AS (
            SELECT f.statement, f.query_id::text AS query_id, f.max_seconds, f.blocks_per_call, f.calls AS calls_total,
                   f.total_seconds AS total_seconds_total, f.since, o.calls_total IS NULL AS is_total,
                   f.calls - coalesce(o.calls_total, 0) AS calls,
                   f.total_seconds - coalesce(o.total_seconds_total, 0) AS total_seconds,
                   (f.total_seconds - coalesce(o.total_seconds_total, 0)) / nullif(f.calls - coalesce(o.calls_total, 0), 0) AS mean_seconds
            FROM found f
            LEFT JOIN jsonb_to_recordset(p_before -> 'items') o(query_id text, calls_total bigint, total_seconds_total double precision,
                                                                since timestamptz)
                -- A statement that was forgotten meanwhile began again.
                ON o.query_id = f.query_id::text AND o.since = f.since AND o.calls_total <= f.calls
                   AND o.total_seconds_total <= f.total_seconds
            WHERE f.problem IS NULL
        )
        SELECT jsonb_build_object(
            'problem', (SELECT f.problem FROM found f WHERE f.problem IS NOT NULL),
            'fix', (SELECT f.fix FROM found f WHERE f.problem IS NOT NULL),
            'items', coalesce((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.total_seconds DESC, l.query_id)
                               FROM listed l WHERE l.calls > 0), '[]'))
    );
END
$$;
