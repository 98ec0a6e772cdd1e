-- How large the database and the queue are, and how fast they grow since the report before.
-- p_before:  the same of that one; NULL: nothing is known of growth.
-- days_until_10m_jobs: null when the queue does not grow; 0 when it has as many.
CREATE OR REPLACE FUNCTION streamvibe.report_growth(p_now timestamptz, p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_days double precision := extract(epoch FROM p_now - (p_before ->> 'at')::timestamptz) / 86400;
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'at', p_now, 'database_bytes', n.database_bytes, 'queue_bytes', n.queue_bytes, 'jobs', n.jobs,
            'database_bytes_per_day', g.database_bytes, 'jobs_per_day', g.jobs,
            'days_until_10m_jobs', CASE WHEN n.jobs >= 10000000 THEN 0 WHEN g.jobs > 0 THEN ceil((10000000 - n.jobs) / g.jobs) END,
            'before', p_before - 'before')
        FROM (SELECT pg_database_size(current_database()) AS database_bytes,
                     (SELECT sum(h.size_bytes + h.index_bytes)::bigint FROM public.get_table_health() h) AS queue_bytes,
                     (SELECT s.total_jobs FROM public.get_job_queue_stats() s) AS jobs) n
        CROSS JOIN LATERAL (
            SELECT (n.database_bytes - (p_before ->> 'database_bytes')::bigint) / nullif(v_days, 0) AS database_bytes,
                   (n.jobs - (p_before ->> 'jobs')::bigint) / nullif(v_days, 0) AS jobs) g
    );
END
$$;
