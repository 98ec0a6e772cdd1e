-- Note in the statistics that these jobs, as they are now, are there (p_sign 1) or are not any more (-1). Whoever changes
-- their rows calls it before and after, with the rows locked, in the same transaction.
CREATE OR REPLACE FUNCTION streamvibe.count_jobs(p_sign integer, p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH found AS MATERIALIZED (
        SELECT q.*, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)) AS minute
        FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id)) u
        CROSS JOIN LATERAL (SELECT j.tableoid AS leaf, j.job_type, j.status, j.created_at, j.scheduled_for, j.started_at, j.completed_at
                            FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    ), leaves AS MATERIALIZED (
        SELECT l.leaf, coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = l.leaf), 0) AS leaf_number
        FROM (SELECT DISTINCT q.leaf FROM found q) l
    )
    INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
    SELECT l.leaf_number, q.job_type, q.status, q.minute, p_sign * count(*),
           p_sign * sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
           p_sign * sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed'),
           array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
           array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed')
    FROM found q JOIN leaves l USING (leaf)
    GROUP BY l.leaf_number, q.job_type, q.status, q.minute;
END
$$;
