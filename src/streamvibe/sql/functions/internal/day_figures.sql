-- What ended in a day (UTC), as far as it is still there: jobs by type, how long they waited and were processed (sums, and how
-- many fell into each bucket of streamvibe.sketch_bucket), and failures by kind.
-- Returns: {"job_types": [{"job_type", "completed", "failed", "cancelled", "waiting_us", "processing_us", "waiting": {bucket: n},
--          "processing": {bucket: n}}], "errors": [{"job_type", "failure_kind", "jobs"}], "in_part": types whose retention is so
--          short that some of that day's jobs may be gone}
-- Index:   the statistics by the day and, for the buckets, by the hour; idx_job_queue_cleanup for the day's failures.
CREATE OR REPLACE FUNCTION streamvibe.day_figures(p_day timestamptz) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_end CONSTANT timestamptz := p_day + interval '24 hours';
BEGIN
    RETURN (
        WITH counted AS (
            SELECT e.job_type, sum(e.jobs) FILTER (WHERE e.status = 'completed') AS completed,
                   sum(e.jobs) FILTER (WHERE e.status = 'failed') AS failed,
                   sum(e.jobs) FILTER (WHERE e.status = 'cancelled') AS cancelled,
                   sum(e.waiting_us) AS waiting_us, sum(e.processing_us) AS processing_us
            FROM (SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
                  WHERE s.minutes = 1440 AND s.since = p_day
                  UNION ALL
                  SELECT n.job_type, n.status, n.jobs, n.waiting_us, n.processing_us FROM streamvibe.stat_note n
                  WHERE n.minute >= p_day AND n.minute < v_end) e
            WHERE e.status IN ('completed', 'failed', 'cancelled')
            GROUP BY e.job_type
        ), buckets AS (
            SELECT e.job_type, e.measure, e.bucket, sum(e.jobs) AS jobs
            FROM (SELECT s.job_type, s.measure, s.bucket, s.jobs FROM streamvibe.sketch_now s
                  WHERE s.hour >= p_day AND s.hour < v_end
                  UNION ALL
                  SELECT n.job_type, n.measure, n.bucket, n.jobs FROM streamvibe.sketch_note n
                  WHERE n.hour >= p_day AND n.hour < v_end) e
            GROUP BY e.job_type, e.measure, e.bucket HAVING sum(e.jobs) <> 0
        ), sketches AS (
            SELECT b.job_type, jsonb_object_agg(b.bucket, b.jobs) FILTER (WHERE b.measure = 'waiting') AS waiting,
                   jsonb_object_agg(b.bucket, b.jobs) FILTER (WHERE b.measure = 'processing') AS processing
            FROM buckets b GROUP BY b.job_type
        ), errors AS (
            SELECT f.job_type, coalesce(f.failure_kind, 'error') AS failure_kind, count(*) AS jobs
            -- The status as a variable, or an index on failures alone is read, with every failure there is.
            FROM unnest('{failed}'::text[]) s(status)
            CROSS JOIN LATERAL (SELECT q.job_type, q.failure_kind FROM public.job_queue q
                                WHERE q.status = s.status AND q.status IN ('completed', 'cancelled', 'failed')
                                  AND q.completed_at >= p_day AND q.completed_at < v_end) f
            GROUP BY 1, 2
        )
        SELECT jsonb_build_object(
            'job_types', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'job_type', c.job_type, 'completed', coalesce(c.completed, 0), 'failed', coalesce(c.failed, 0),
                    'cancelled', coalesce(c.cancelled, 0), 'waiting_us', coalesce(c.waiting_us, 0),
                    'processing_us', coalesce(c.processing_us, 0), 'waiting', coalesce(s.waiting, '{}'),
                    'processing', coalesce(s.processing, '{}')) ORDER BY c.job_type)
                FROM counted c LEFT JOIN sketches s USING (job_type)
                WHERE c.completed <> 0 OR c.failed <> 0 OR c.cancelled <> 0), '[]'),
            'errors', coalesce((SELECT jsonb_agg(to_jsonb(e) ORDER BY e.job_type, e.failure_kind) FROM errors e), '[]'),
            'in_part', coalesce((SELECT jsonb_agg(t.name ORDER BY t.name) FROM streamvibe.job_type t
                                 WHERE p_day + t.retention < streamvibe.now()), '[]'))
    );
END
$$;
