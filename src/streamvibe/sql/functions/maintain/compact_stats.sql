-- Add up what transactions noted in the statistics (streamvibe.stat_delta). Readers see the same numbers before and after.
-- Returns: how many notes it took, at most p_limit; 0 also while another session does the same.
-- Locks:   streamvibe.stat (SHARE ROW EXCLUSIVE, never waits): one session at a time. Nobody who writes jobs waits for it.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.compact_stats(p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM streamvibe.require_service('compact_stats');
    PERFORM streamvibe.require_read_committed('compact_stats', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    BEGIN
        LOCK TABLE streamvibe.stat IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN 0;
    END;
    WITH taken AS MATERIALIZED (
        DELETE FROM streamvibe.stat_delta d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat_delta l LIMIT p_limit))
        RETURNING d.*
    ), summed AS (
        INSERT INTO streamvibe.stat AS s (minutes, since, job_type, status, jobs, waiting_us, processing_us)
        SELECT w.minutes, b.since, t.job_type, t.status, sum(t.jobs),
               coalesce(sum(t.waiting_us), 0), coalesce(sum(t.processing_us), 0)
        FROM taken t
        CROSS JOIN (VALUES (0::smallint), (1::smallint), (60::smallint)) w(minutes)
        CROSS JOIN LATERAL (SELECT CASE w.minutes WHEN 0 THEN 'epoch' WHEN 1 THEN t.minute
                                   ELSE date_bin('1 hour', t.minute, '2000-01-01 00:00:00+00') END AS since) b
        GROUP BY w.minutes, b.since, t.job_type, t.status
        ORDER BY w.minutes, b.since, t.job_type, t.status
        ON CONFLICT (minutes, since, job_type, status) DO UPDATE
        SET jobs = s.jobs + excluded.jobs, waiting_us = s.waiting_us + excluded.waiting_us,
            processing_us = s.processing_us + excluded.processing_us
    ), sketched AS (
        INSERT INTO streamvibe.stat_sketch AS s (minutes, since, job_type, measure, bucket, jobs)
        SELECT w.minutes, b.since, t.job_type, m.measure, m.bucket, sum(sign(t.jobs))
        FROM taken t
        CROSS JOIN (VALUES (0::smallint), (60::smallint)) w(minutes)
        CROSS JOIN LATERAL (SELECT CASE w.minutes WHEN 0 THEN 'epoch'
                                   ELSE date_bin('1 hour', t.minute, '2000-01-01 00:00:00+00') END AS since) b
        CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(t.waited) u(bucket)
                            UNION ALL SELECT 'processing', u.bucket FROM unnest(t.processed) u(bucket)) m(measure, bucket)
        GROUP BY w.minutes, b.since, t.job_type, m.measure, m.bucket
        ON CONFLICT (minutes, since, job_type, measure, bucket) DO UPDATE SET jobs = s.jobs + excluded.jobs
    )
    SELECT count(*) INTO v_count FROM taken;
    -- Of jobs that moved on nothing is left but zeroes.
    IF v_count > 0 THEN
        DELETE FROM streamvibe.stat s WHERE s.jobs = 0 AND s.waiting_us = 0 AND s.processing_us = 0 AND s.minutes > 0;
        DELETE FROM streamvibe.stat_sketch s WHERE s.jobs = 0;
    END IF;
    RETURN v_count;
END
$$;
