-- Delete these jobs, whose rows the caller has locked, or waits for: they leave the statistics, and are counted as removed, so that they stay
-- among those that were created (of dropped leaves both is drop_partition()'s and forget_leaves()' doing).
-- p_ended: only those that have ended for good.
-- Returns: how many.
-- Index:   the primary key, once.
-- Its name or its parameters were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.count_removed(uuid[]);
DROP FUNCTION IF EXISTS streamvibe.remove_jobs(uuid[]);
CREATE OR REPLACE FUNCTION streamvibe.remove_jobs(p_job_ids uuid[], p_ended boolean) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
DECLARE
    -- (min(uuid) came with PostgreSQL 18.)
    v_first uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id LIMIT 1);
    v_last uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id DESC LIMIT 1);
    v_count integer;
BEGIN
    WITH gone AS MATERIALIZED (
        DELETE FROM public.job_queue q
        WHERE q.id = ANY (p_job_ids) AND q.id BETWEEN v_first AND v_last AND coalesce(q.status, '') <> ''
          AND (NOT p_ended OR coalesce(q.status, '') IN ('completed', 'failed', 'cancelled') AND q.retry_at IS NULL)
        RETURNING q.tableoid AS leaf, q.job_type, q.status, q.created_at, q.scheduled_for, q.started_at, q.completed_at
    ), notes AS MATERIALIZED (
        -- As count_jobs(-1, ...), which would look all of them up again.
        SELECT g.leaf, g.job_type, g.status, streamvibe.minute_of(coalesce(g.completed_at, g.created_at)) AS minute, -count(*) AS jobs,
               -sum(streamvibe.duration_us(g.scheduled_for, g.started_at)) FILTER (WHERE g.status = 'completed') AS waiting_us,
               -sum(streamvibe.duration_us(g.started_at, g.completed_at)) FILTER (WHERE g.status = 'completed') AS processing_us,
               array_agg(streamvibe.sketch_bucket(g.scheduled_for, g.started_at)) FILTER (WHERE g.status = 'completed') AS waited,
               array_agg(streamvibe.sketch_bucket(g.started_at, g.completed_at)) FILTER (WHERE g.status = 'completed') AS processed
        FROM gone g
        GROUP BY g.leaf, g.job_type, g.status, streamvibe.minute_of(coalesce(g.completed_at, g.created_at))
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
               n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed
        FROM notes n
    ), counted AS (
        INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
        SELECT 'removed', g.job_type, '', count(*) FROM gone g GROUP BY g.job_type
    )
    SELECT count(*) INTO v_count FROM gone;
    RETURN v_count;
END
$$;
