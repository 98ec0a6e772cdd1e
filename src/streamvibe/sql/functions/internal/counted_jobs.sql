-- Jobs counted one by one, from one id to before another: what streamvibe.stat and stat_delta must add up to, for all ids and
-- in any snapshot.
CREATE OR REPLACE FUNCTION streamvibe.counted_jobs(
    p_from uuid DEFAULT '00000000-0000-0000-0000-000000000000', p_before uuid DEFAULT 'ffffffff-ffff-ffff-ffff-ffffffffffff'
) RETURNS TABLE (
    job_type text, status text, minute timestamptz, jobs bigint, waiting_us bigint, processing_us bigint,
    waited smallint[], processed smallint[]
)
    LANGUAGE sql STABLE
AS $$
    SELECT q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)), count(*),
           sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
           sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed'),
           array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
           array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed')
    FROM public.job_queue q
    WHERE q.id >= p_from AND q.id < p_before
    GROUP BY q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at))
$$;
