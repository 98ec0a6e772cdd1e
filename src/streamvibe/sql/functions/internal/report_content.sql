-- What a weekly or monthly report says, with the report before it compared.
-- p_before: the content of that one, NULL when there is none: then nothing is said of it, and of what only counts up (scans,
--           calls) not how much it was in the period.
-- Returns:  {"days", "in_part", "jobs", "job_types", "errors" (see period_figures; with "before", the same of the period before),
--           "queue", "alerts", "growth", "tables", "indexes", "partitions", "statements", "duties"}. Lists begin with the worst.
-- Reads:    as get_index_bloat().
CREATE OR REPLACE FUNCTION streamvibe.report_content(p_from timestamptz, p_to timestamptz, p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_now CONSTANT timestamptz := streamvibe.now();
    v_figures jsonb := streamvibe.period_figures(p_from, p_to);
    v_of record;
BEGIN
    -- Each of the lists with its line of the report before, where there was one.
    FOR v_of IN SELECT * FROM (VALUES ('job_types', '{job_type}'::text[]), ('errors', '{job_type,failure_kind}')) l(name, keys) LOOP
        v_figures := jsonb_set(v_figures, ARRAY[v_of.name], streamvibe.beside_before(
            v_figures -> v_of.name, p_before -> v_of.name, v_of.keys));
    END LOOP;
    RETURN v_figures || jsonb_build_object(
        'jobs', (v_figures -> 'jobs') || jsonb_build_object('before', (p_before -> 'jobs') - 'before'),
        'queue', (SELECT jsonb_build_object('pending', s.pending_jobs, 'processing', s.processing_jobs, 'jobs', s.total_jobs)
                  FROM public.get_job_queue_stats() s),
        'alerts', coalesce((SELECT jsonb_agg(to_jsonb(a)) FROM public.get_job_queue_alerts() a), '[]'),
        'tables', streamvibe.beside_before(streamvibe.report_tables(), p_before -> 'tables', '{table_name}'),
        'indexes', streamvibe.report_indexes(p_before -> 'indexes'),
        'statements', streamvibe.report_statements(p_before -> 'statements'),
        'partitions', (
            SELECT jsonb_agg(to_jsonb(p) ORDER BY p.parent_name)
            FROM (SELECT l.parent_name, count(*) AS leaves, min(l.lower_at) AS oldest_from, max(l.upper_at) AS ahead_until,
                         count(*) FILTER (WHERE l.sealed_at IS NOT NULL) AS sealed
                  FROM streamvibe.partition l GROUP BY l.parent_name) p),
        'duties', coalesce((
            SELECT jsonb_agg(to_jsonb(d) ORDER BY d.failures DESC, d.duty)
            FROM (SELECT r.duty, count(*) AS failures, (array_agg(r.error ORDER BY r.id DESC))[1] AS last_error
                  FROM streamvibe.duty_run r
                  WHERE r.error IS NOT NULL AND r.started_at >= p_from AND r.started_at < p_to
                  GROUP BY r.duty) d), '[]'),
        'growth', streamvibe.report_growth(v_now, p_before -> 'growth'));
END
$$;
