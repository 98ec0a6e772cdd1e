-- The whole queue in one row, counted exactly in one snapshot.
-- error_rate: failed / (completed + failed), NULL when nothing is finished. Seconds are averages over completed jobs.
-- jobs_by_type: {"type": {"pending": n, ...}, ...}
-- Raises: SV004.
CREATE OR REPLACE FUNCTION public.get_job_queue_stats()
    RETURNS TABLE (
        total_jobs bigint, pending_jobs bigint, processing_jobs bigint, completed_jobs bigint, failed_jobs bigint,
        cancelled_jobs bigint, avg_processing_seconds double precision, avg_wait_seconds double precision,
        error_rate double precision, jobs_by_type jsonb
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_job_queue_stats');
    RETURN QUERY
    WITH counted AS MATERIALIZED (
        SELECT j.job_type, j.status, count(*) AS n,
               sum(extract(epoch FROM j.completed_at - j.started_at)) AS processing,
               sum(extract(epoch FROM j.started_at - j.scheduled_for)) AS waiting
        FROM streamvibe.job j GROUP BY j.job_type, j.status
    ), by_type AS (
        SELECT c.job_type, jsonb_object_agg(c.status, c.n) AS counts FROM counted c GROUP BY c.job_type
    )
    SELECT coalesce(sum(c.n), 0)::bigint,
           coalesce(sum(c.n) FILTER (WHERE c.status = 'pending'), 0)::bigint,
           coalesce(sum(c.n) FILTER (WHERE c.status = 'processing'), 0)::bigint,
           coalesce(sum(c.n) FILTER (WHERE c.status = 'completed'), 0)::bigint,
           coalesce(sum(c.n) FILTER (WHERE c.status = 'failed'), 0)::bigint,
           coalesce(sum(c.n) FILTER (WHERE c.status = 'cancelled'), 0)::bigint,
           (sum(c.processing) FILTER (WHERE c.status = 'completed')
            / nullif(sum(c.n) FILTER (WHERE c.status = 'completed'), 0))::double precision,
           (sum(c.waiting) FILTER (WHERE c.status = 'completed')
            / nullif(sum(c.n) FILTER (WHERE c.status = 'completed'), 0))::double precision,
           (coalesce(sum(c.n) FILTER (WHERE c.status = 'failed'), 0)
            / nullif(sum(c.n) FILTER (WHERE c.status IN ('completed', 'failed')), 0))::double precision,
           coalesce((SELECT jsonb_object_agg(b.job_type, b.counts) FROM by_type b), '{}')
    FROM counted c;
END
$$;
