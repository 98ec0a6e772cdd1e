-- Jobs counted one by one: what streamvibe.stat and stat_delta must add up to, of each leaf and in any snapshot.
-- Its columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.counted_jobs();
CREATE OR REPLACE FUNCTION streamvibe.counted_jobs() RETURNS TABLE (
    leaf_number bigint, job_type text, status text, minute timestamptz, jobs bigint, waiting_us bigint, processing_us bigint,
    waited smallint[], processed smallint[]
)
    LANGUAGE sql STABLE
AS $$
    SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = q.tableoid), 0),
           q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)), count(*),
           sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
           sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed'),
           array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
           array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed')
    FROM public.job_queue q
    GROUP BY q.tableoid, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at))
$$;
