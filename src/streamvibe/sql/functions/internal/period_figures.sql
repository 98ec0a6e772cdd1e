-- What ended in a period, added up from the figures of its days (streamvibe.day_figures).
-- Returns: {"days", "in_part", "jobs": {"completed", "failed", "cancelled", "error_rate", "avg_processing_seconds",
--          "processing_p50_seconds", …}, "job_types": the same of each type, "errors": [{"job_type", "failure_kind", "jobs"}]}.
--          Percentiles are within 1 %.
CREATE OR REPLACE FUNCTION streamvibe.period_figures(p_from timestamptz, p_to timestamptz) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH day AS MATERIALIZED (
            SELECT r.content FROM streamvibe.report r
            WHERE r.kind = 'daily' AND r.period_start >= p_from AND r.period_start < p_to
        ), figures AS MATERIALIZED (
            SELECT t.* FROM day d
            CROSS JOIN LATERAL jsonb_to_recordset(d.content -> 'job_types') t(
                job_type text, completed bigint, failed bigint, cancelled bigint, waiting_us bigint, processing_us bigint,
                waiting jsonb, processing jsonb)
        ), counted AS (
            -- A row per type, and one for all of them, whose type is NULL.
            SELECT f.job_type, sum(f.completed) AS completed, sum(f.failed) AS failed, sum(f.cancelled) AS cancelled,
                   sum(f.waiting_us) AS waiting_us, sum(f.processing_us) AS processing_us
            FROM figures f GROUP BY GROUPING SETS ((f.job_type), ())
        ), buckets AS (
            SELECT f.job_type, m.measure, b.key::smallint AS bucket, sum(b.value::bigint) AS jobs
            FROM figures f
            CROSS JOIN LATERAL (VALUES ('wait', f.waiting), ('processing', f.processing)) m(measure, sketch)
            CROSS JOIN LATERAL jsonb_each_text(m.sketch) b
            GROUP BY GROUPING SETS ((f.job_type, m.measure, b.key::smallint), (m.measure, b.key::smallint))
        ), ranked AS (
            SELECT b.job_type, b.measure, b.bucket,
                   sum(b.jobs) OVER (PARTITION BY b.job_type, b.measure ORDER BY b.bucket)
                   / nullif(sum(b.jobs) OVER (PARTITION BY b.job_type, b.measure), 0) AS part
            FROM buckets b
        ), percentiles AS (
            SELECT q.job_type, jsonb_object_agg(q.measure || '_' || q.name || '_seconds', q.seconds) AS of
            FROM (SELECT r.job_type, r.measure, p.name,
                         streamvibe.sketch_seconds(min(r.bucket) FILTER (WHERE r.part >= p.share)) AS seconds
                  FROM ranked r CROSS JOIN (VALUES ('p50', 0.50), ('p95', 0.95), ('p99', 0.99)) p(name, share)
                  GROUP BY r.job_type, r.measure, p.name) q
            GROUP BY q.job_type
        ), summed AS (
            SELECT c.job_type, c.completed, c.failed,
                   jsonb_build_object(
                       'completed', coalesce(c.completed, 0), 'failed', coalesce(c.failed, 0), 'cancelled', coalesce(c.cancelled, 0),
                       'error_rate', c.failed / nullif(c.completed + c.failed, 0),
                       'avg_processing_seconds', c.processing_us / 1e6 / nullif(c.completed, 0),
                       'avg_wait_seconds', c.waiting_us / 1e6 / nullif(c.completed, 0))
                   || coalesce(p.of, '{}') AS of
            FROM counted c LEFT JOIN percentiles p ON p.job_type IS NOT DISTINCT FROM c.job_type
        )
        SELECT jsonb_build_object(
            'days', (SELECT count(*) FROM day),
            'in_part', coalesce((SELECT jsonb_agg(DISTINCT t.name ORDER BY t.name)
                                 FROM day d CROSS JOIN LATERAL jsonb_array_elements_text(d.content -> 'in_part') t(name)), '[]'),
            'jobs', (SELECT s.of FROM summed s WHERE s.job_type IS NULL),
            'job_types', coalesce((
                SELECT jsonb_agg(jsonb_build_object('job_type', s.job_type) || s.of
                                 ORDER BY s.failed DESC, s.completed DESC, s.job_type)
                FROM summed s WHERE s.job_type IS NOT NULL), '[]'),
            'errors', coalesce((
                SELECT jsonb_agg(jsonb_build_object('job_type', e.job_type, 'failure_kind', e.failure_kind, 'jobs', e.jobs)
                                 ORDER BY e.jobs DESC, e.job_type, e.failure_kind)
                FROM (SELECT e.job_type, e.failure_kind, sum(e.jobs) AS jobs
                      FROM day d CROSS JOIN LATERAL jsonb_to_recordset(d.content -> 'errors')
                           e(job_type text, failure_kind text, jobs bigint)
                      GROUP BY e.job_type, e.failure_kind) e), '[]'))
    );
END
$$;
