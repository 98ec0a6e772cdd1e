-- Count every job there is, and make the statistics say that: for when somebody changed rows past the functions. Others may
-- go on meanwhile; what they change counts on top. Counters of what happened (streamvibe.counter) stay as they are.
-- Returns: for each type and status whose number was wrong, what it was and what it is; the same twice where only the sums of
--          times were wrong.
-- Locks:   the row of streamvibe.stat_lock: waits for a compact_stats() that is under way; the rows of sealed leaves in
--          streamvibe.partition, which must be counted again before they are archived; that table against
--          ensure_partitions().
-- Reads:   all of job_queue.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.recount_stats()
    RETURNS TABLE (job_type text, status text, jobs_before bigint, jobs_now bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('recount_stats');
    PERFORM streamvibe.require_read_committed('recount_stats', 'Use READ COMMITTED.');
    PERFORM FROM streamvibe.stat_lock FOR UPDATE;
    -- Whoever drops a leaf has its row before its table: so that nobody waits for the other.
    PERFORM FROM streamvibe.partition p WHERE p.sealed_at IS NOT NULL ORDER BY p.parent_name, p.lower_at FOR UPDATE;
    RETURN QUERY
    -- One statement, one snapshot: a note is either seen and replaced, together with the rows it speaks of, or neither.
    WITH noted AS (
        DELETE FROM streamvibe.stat_delta d
        RETURNING d.leaf_number, d.job_type, d.status, d.jobs::bigint AS jobs, coalesce(d.waiting_us, 0) AS waiting_us,
                  coalesce(d.processing_us, 0) AS processing_us, d.waited, d.processed
    ), gone AS (
        DELETE FROM streamvibe.dropped_leaf g RETURNING g.leaf_number
    ), to_count_again AS (
        UPDATE streamvibe.partition p SET row_count = NULL WHERE p.parent_name = 'job_queue' AND p.row_count IS NOT NULL
    ), added AS (
        DELETE FROM streamvibe.stat s RETURNING s.*
    ), sketched AS (
        DELETE FROM streamvibe.stat_sketch
    ), counted AS MATERIALIZED (
        SELECT * FROM streamvibe.counted_jobs()
    ), fresh AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT c.leaf_number, c.job_type, c.status, c.minute, c.jobs, c.waiting_us, c.processing_us, c.waited, c.processed
        FROM counted c
    ), kept AS (
        -- The new notes look like jobs that come to an end now, and took the place of those that did.
        INSERT INTO streamvibe.counter AS c (name, job_type, detail, value)
        SELECT e.name, e.job_type, e.detail, sum(e.value)
        FROM (SELECT s.name, n.job_type, s.detail, s.value
              FROM noted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              UNION ALL
              SELECT s.name, n.job_type, s.detail, -s.value
              FROM counted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              UNION ALL
              SELECT 'removed', n.job_type, '', n.jobs FROM noted n
              UNION ALL
              SELECT 'removed', a.job_type, '', a.jobs FROM added a WHERE a.minutes = 0
              UNION ALL
              SELECT 'removed', n.job_type, '', -n.jobs FROM counted n) e
        GROUP BY e.name, e.job_type, e.detail
        ORDER BY e.name, e.job_type, e.detail
        ON CONFLICT (name, job_type, detail) DO UPDATE SET value = c.value + excluded.value
    )
    SELECT e.job_type, e.status, sum(e.was)::bigint, sum(e.is_now)::bigint
    FROM (SELECT n.job_type, n.status, n.jobs AS was, 0::bigint AS is_now, -n.waiting_us AS waiting, -n.processing_us AS processing
          FROM noted n WHERE NOT EXISTS (SELECT FROM gone g WHERE g.leaf_number = n.leaf_number)
          UNION ALL
          SELECT a.job_type, a.status, a.jobs, 0, -a.waiting_us, -a.processing_us FROM added a WHERE a.minutes = 0
          UNION ALL
          SELECT a.job_type, a.status, -a.jobs, 0, a.waiting_us, a.processing_us FROM added a JOIN gone g USING (leaf_number)
          WHERE a.minutes = -1
          UNION ALL
          SELECT c.job_type, c.status, 0, c.jobs, coalesce(c.waiting_us, 0), coalesce(c.processing_us, 0) FROM counted c) e
    GROUP BY e.job_type, e.status
    HAVING sum(e.was) <> sum(e.is_now) OR sum(e.waiting) <> 0 OR sum(e.processing) <> 0
    ORDER BY e.job_type, e.status;
END
$$;
