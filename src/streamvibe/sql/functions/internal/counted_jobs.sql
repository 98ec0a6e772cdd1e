-- Jobs counted one by one: what streamvibe.stat and stat_delta must add up to, of each leaf and in any snapshot.
-- Its columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.counted_jobs();
CREATE OR REPLACE FUNCTION streamvibe.counted_jobs() RETURNS TABLE (
    leaf_number bigint, job_type text, status text, minute timestamptz, jobs bigint, waiting_us bigint, processing_us bigint,
    waited smallint[], processed smallint[]
)
    LANGUAGE sql STABLE
AS $$
    SELECT coalesce(f.leaf_number, 0), c.job_type, c.status, c.minute, c.jobs, c.waiting_us, c.processing_us, c.waited, c.processed
    FROM (SELECT q.tableoid AS leaf, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)) AS minute,
                 count(*) AS jobs,
                 sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waiting_us,
                 sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processing_us,
                 array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waited,
                 array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processed
          FROM public.job_queue q GROUP BY 1, 2, 3, 4) c
    LEFT JOIN streamvibe.leaf f ON f.table_oid = c.leaf
$$;
