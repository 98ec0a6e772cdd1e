-- Note in the statistics that these jobs, as they are now, are there (p_sign 1) or are not any more (-1). Whoever changes
-- their rows calls it before and after, with the rows locked, in the same transaction.
CREATE OR REPLACE FUNCTION streamvibe.count_jobs(p_sign integer, p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH notes AS MATERIALIZED (
        SELECT q.leaf, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)) AS minute,
               p_sign * count(*) AS jobs,
               p_sign * sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waiting_us,
               p_sign * sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processing_us,
               array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waited,
               array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processed
        FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id)) u
        CROSS JOIN LATERAL (SELECT j.tableoid AS leaf, j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
        GROUP BY q.leaf, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at))
    )
    INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
    SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
           n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed
    FROM notes n;
END
$$;
