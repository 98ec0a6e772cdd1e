-- The whole queue in one row, exact in the snapshot it is asked in, without reading the jobs.
-- p_since:     only jobs that ended since that minute, or were asked for since when they have not ended.
-- p_job_type:  only jobs of this type.
-- error_rate:  failed / (completed + failed), NULL when nothing is finished; error_rates: the same of what ended in the last
--              "1 hour", "1 day" and "7 days".
-- Averages and percentiles are over completed jobs, in seconds: waiting from due to started, processing from started to
-- ended. Percentiles are within 1 % of the exact ones; with p_since they are of whole hours.
-- jobs_by_type: {"type": {"pending": n, ...}, ...}
-- Reads:   what compact_stats() has not yet added up, one row per type and status, and with p_since a row per day,
--          and per hour, ten minutes and minute of the first one, besides.
-- Raises:  SV001, SV002, SV004.
CREATE OR REPLACE FUNCTION public.get_job_queue_stats(p_since timestamptz DEFAULT NULL, p_job_type text DEFAULT NULL)
    RETURNS TABLE (
        total_jobs bigint, pending_jobs bigint, processing_jobs bigint, completed_jobs bigint, failed_jobs bigint,
        cancelled_jobs bigint, avg_processing_seconds double precision, avg_wait_seconds double precision,
        error_rate double precision, jobs_by_type jsonb, error_rates jsonb,
        processing_p50_seconds double precision, processing_p95_seconds double precision,
        processing_p99_seconds double precision, wait_p50_seconds double precision, wait_p95_seconds double precision,
        wait_p99_seconds double precision
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_since timestamptz;
BEGIN
    PERFORM streamvibe.require_service('get_job_queue_stats');
    IF NOT isfinite(p_since) OR p_since >= '9999-01-01' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_since', p_since::text, 'p_since is not a moment',
            'Pass a time such as now() - interval ''1 day'', or NULL for everything.');
    ELSIF p_job_type IS NOT NULL THEN
        PERFORM streamvibe.known_job_type(p_job_type);
    END IF;
    v_since := streamvibe.minute_of(p_since);
    RETURN QUERY
    WITH noted AS MATERIALIZED (
        SELECT d.job_type, d.status, d.minute, sum(d.jobs) AS jobs, coalesce(sum(d.waiting_us), 0) AS waiting_us,
               coalesce(sum(d.processing_us), 0) AS processing_us
        FROM streamvibe.stat_note d
        WHERE p_job_type IS NULL OR d.job_type = p_job_type
        GROUP BY d.job_type, d.status, d.minute
    ), held AS MATERIALIZED (
        -- Their rows say pending; a worker has them.
        SELECT q.job_type, count(*) AS n
        FROM (SELECT DISTINCT unnest(c.job_ids) AS id FROM streamvibe.live_claims() c) h
        CROSS JOIN LATERAL (SELECT j.job_type, j.status, j.created_at FROM public.job_queue j WHERE j.id = h.id OFFSET 0) q
        WHERE q.status = 'pending' AND (v_since IS NULL OR q.created_at >= v_since)
        GROUP BY q.job_type
    ), counted AS MATERIALIZED (
        SELECT e.job_type, e.status, sum(e.jobs) AS n, sum(e.waiting_us) AS waiting_us, sum(e.processing_us) AS processing_us
        FROM (SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_since(v_since) s
              UNION ALL SELECT n.job_type, n.status, n.jobs, n.waiting_us, n.processing_us FROM noted n
                        WHERE v_since IS NULL OR n.minute >= v_since
              UNION ALL SELECT h.job_type, 'pending', -h.n, 0, 0 FROM held h
              UNION ALL SELECT h.job_type, 'processing', h.n, 0, 0 FROM held h) e
        WHERE p_job_type IS NULL OR e.job_type = p_job_type
        GROUP BY e.job_type, e.status HAVING sum(e.jobs) <> 0
    ), by_type AS (
        SELECT c.job_type, jsonb_object_agg(c.status, c.n) AS counts FROM counted c GROUP BY c.job_type
    ), ended AS (
        SELECT e.name, (sum(e.jobs) FILTER (WHERE e.status = 'failed') / nullif(sum(e.jobs), 0))::double precision AS rate,
               sum(e.jobs) AS jobs
        FROM (SELECT w.name, x.*
              FROM (SELECT i.name, streamvibe.minute_of(streamvibe.now() - i.long) AS since
                    FROM (VALUES ('1 hour', interval '1:00'), ('1 day', '24:00'), ('7 days', '168:00')) i(name, long)) w
              CROSS JOIN LATERAL (
                  SELECT s.job_type, s.status, s.jobs FROM streamvibe.stat_since(w.since) s
                  UNION ALL
                  SELECT n.job_type, n.status, n.jobs FROM noted n WHERE n.minute >= w.since) x) e
        WHERE e.status IN ('completed', 'failed') AND (p_job_type IS NULL OR e.job_type = p_job_type)
        GROUP BY e.name
    ), loose AS MATERIALIZED (
        -- Durations of which no groups are kept.
        SELECT s.measure, s.bucket, s.jobs FROM streamvibe.sketch_now s
        WHERE s.hour >= date_bin('1 hour', v_since, '2000-01-01 00:00:00+00')
          AND (p_job_type IS NULL OR s.job_type = p_job_type)
        UNION ALL
        SELECT n.measure, n.bucket, n.jobs FROM streamvibe.sketch_note n
        WHERE n.hour >= coalesce(date_bin('1 hour', v_since, '2000-01-01 00:00:00+00'), '-infinity')
          AND (p_job_type IS NULL OR n.job_type = p_job_type)
    ), groups AS MATERIALIZED (
        -- As double precision, which is exact for whole numbers up to 2^53, and added up three times as fast as numeric.
        SELECT g.measure, g.bucket_group, g.jobs,
               sum(g.jobs) OVER (PARTITION BY g.measure ORDER BY g.bucket_group ROWS UNBOUNDED PRECEDING) AS up_to
        FROM (SELECT e.measure, e.bucket_group, sum(e.jobs::double precision) AS jobs
              FROM (SELECT s.measure, s.bucket_group, s.jobs FROM streamvibe.sketch_groups(coalesce(p_job_type, '')) s
                    WHERE v_since IS NULL
                    UNION ALL
                    SELECT l.measure, l.bucket >> 4, l.jobs FROM loose l) e
              GROUP BY e.measure, e.bucket_group HAVING sum(e.jobs::double precision) <> 0) g
    ), wanted AS MATERIALIZED (
        -- In which group each percentile is: the first up to which there are so many.
        SELECT DISTINCT ON (a.measure, a.part) a.measure, a.part, a.place, g.bucket_group, g.up_to - g.jobs AS before
        FROM (SELECT m.measure, p.part, p.part * max(m.up_to) AS place
              FROM groups m CROSS JOIN (VALUES (0.50), (0.95), (0.99)) p(part) GROUP BY m.measure, p.part) a
        JOIN groups g ON g.measure = a.measure AND g.up_to >= a.place
        ORDER BY a.measure, a.part, g.bucket_group
    ), buckets AS (
        SELECT e.measure, e.bucket_group, e.bucket,
               sum(sum(e.jobs::double precision)) OVER (PARTITION BY e.measure, e.bucket_group ORDER BY e.bucket) AS up_to
        FROM (SELECT w.measure, w.bucket_group, s.bucket, s.jobs
              FROM (SELECT DISTINCT w.measure, w.bucket_group FROM wanted w WHERE v_since IS NULL) w
              CROSS JOIN LATERAL streamvibe.sketch_total(coalesce(p_job_type, ''), w.measure, w.bucket_group) s
              UNION ALL
              SELECT l.measure, l.bucket >> 4, l.bucket, l.jobs FROM loose l
              WHERE (l.measure, l.bucket >> 4) IN (SELECT w.measure, w.bucket_group FROM wanted w)) e
        GROUP BY e.measure, e.bucket_group, e.bucket
    ), percentiles AS (
        SELECT f.measure, max(f.seconds) FILTER (WHERE f.part = 0.50) AS p50, max(f.seconds) FILTER (WHERE f.part = 0.95) AS p95,
               max(f.seconds) FILTER (WHERE f.part = 0.99) AS p99
        FROM (SELECT w.measure, w.part, streamvibe.sketch_seconds(min(b.bucket)) AS seconds
              FROM wanted w JOIN buckets b ON b.measure = w.measure AND b.bucket_group = w.bucket_group AND w.before + b.up_to >= w.place
              GROUP BY w.measure, w.part) f
        GROUP BY f.measure
    )
    SELECT t.*, p.p50, p.p95, p.p99, w.p50, w.p95, w.p99
    FROM (
        SELECT coalesce(sum(c.n), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'pending'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'processing'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'completed'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'failed'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'cancelled'), 0)::bigint,
               (sum(c.processing_us) / 1000000 / nullif(sum(c.n) FILTER (WHERE c.status = 'completed'), 0))::double precision,
               (sum(c.waiting_us) / 1000000 / nullif(sum(c.n) FILTER (WHERE c.status = 'completed'), 0))::double precision,
               (coalesce(sum(c.n) FILTER (WHERE c.status = 'failed'), 0)
                / nullif(sum(c.n) FILTER (WHERE c.status IN ('completed', 'failed')), 0))::double precision,
               coalesce((SELECT jsonb_object_agg(b.job_type, b.counts) FROM by_type b), '{}'),
               (SELECT jsonb_object_agg(i.name, CASE WHEN e.jobs > 0 THEN coalesce(e.rate, 0) END)
                FROM (VALUES ('1 hour'), ('1 day'), ('7 days')) i(name) LEFT JOIN ended e USING (name))
        FROM counted c
    ) t
    LEFT JOIN percentiles p ON p.measure = 'processing'
    LEFT JOIN percentiles w ON w.measure = 'waiting';
END
$$;
