-- The reports of a kind ('weekly', 'monthly'; 'daily': the figures those are added up from), newest first.
-- content: what streamvibe.report_content() says of it: jobs by type with percentiles, errors, queue, alerts, growth, tables,
--          indexes, partitions, statements, duties that failed; each beside what the report before said.
-- p_limit: 1 to 1000.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.get_reports(p_kind text DEFAULT 'weekly', p_limit integer DEFAULT 1)
    RETURNS TABLE (
        kind text, period_start timestamptz, period_end timestamptz, made_at timestamptz, content jsonb
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('get_reports');
    PERFORM streamvibe.report_unit(p_kind);
    PERFORM streamvibe.check_page(p_limit, NULL);
    RETURN QUERY
    SELECT r.kind, r.period_start, r.period_end, r.made_at, r.content FROM streamvibe.report r
    WHERE r.kind = p_kind ORDER BY r.period_start DESC LIMIT p_limit;
END
$$;
