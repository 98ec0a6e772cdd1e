-- Count every job there is, and make the statistics say that: for when somebody changed rows past the functions. Others may
-- go on meanwhile; what they change counts on top.
-- Returns: for each type and status whose number was wrong, what it was and what it is.
-- Locks:   streamvibe.stat (SHARE ROW EXCLUSIVE): waits for a compact_stats() that is under way.
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
    LOCK TABLE streamvibe.stat IN SHARE ROW EXCLUSIVE MODE;
    RETURN QUERY
    -- One statement, one snapshot: a note is either seen and replaced, together with the rows it speaks of, or neither.
    WITH noted AS (
        DELETE FROM streamvibe.stat_delta d RETURNING d.job_type, d.status, d.jobs::bigint AS jobs
    ), added AS (
        DELETE FROM streamvibe.stat s RETURNING s.job_type, s.status, CASE s.minutes WHEN 0 THEN s.jobs ELSE 0 END AS jobs
    ), sketched AS (
        DELETE FROM streamvibe.stat_sketch
    ), counted AS MATERIALIZED (
        SELECT * FROM streamvibe.stat_counted
    ), fresh AS (
        INSERT INTO streamvibe.stat_delta (job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT c.job_type, c.status, c.minute, c.jobs, c.waiting_us, c.processing_us, c.waited, c.processed FROM counted c
    )
    SELECT e.job_type, e.status, sum(e.was)::bigint, sum(e.is_now)::bigint
    FROM (SELECT n.job_type, n.status, n.jobs AS was, 0::bigint AS is_now FROM noted n
          UNION ALL SELECT a.job_type, a.status, a.jobs, 0 FROM added a
          UNION ALL SELECT c.job_type, c.status, 0, c.jobs FROM counted c) e
    GROUP BY e.job_type, e.status HAVING sum(e.was) <> sum(e.is_now)
    ORDER BY e.job_type, e.status;
END
$$;
