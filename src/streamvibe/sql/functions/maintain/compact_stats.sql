-- Add up what transactions noted in the statistics (streamvibe.stat_delta) and counters (counter_note), and take out what dropped
-- leaves left behind. Readers see the same numbers before and after.
-- Returns: how many notes it took, and sums it took out; p_limit when there are more; 0 also while another session does the same, or
--          counts anew.
-- Locks:   the row of streamvibe.stat_lock (SKIP LOCKED): one session at a time. Nobody who writes jobs waits for it.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.compact_stats(p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- What is emptied is looked up by its key, not by reading all sums.
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET enable_seqscan = off
AS $$
DECLARE
    v_gone bigint[];
    v_done record;
BEGIN
    PERFORM streamvibe.require_service('compact_stats');
    PERFORM streamvibe.require_read_committed('compact_stats', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    PERFORM FROM streamvibe.stat_lock FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- Before the notes are taken: nobody notes anything of a leaf once it is dropped.
    v_gone := ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g);
    WITH noted AS MATERIALIZED (
        DELETE FROM streamvibe.stat_delta d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat_delta l LIMIT p_limit))
        RETURNING d.*
    ), counts AS MATERIALIZED (
        DELETE FROM streamvibe.counter_note d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.counter_note l
                                  LIMIT (SELECT greatest(p_limit - count(*), 0) FROM noted)))
        RETURNING d.*
    ), by_minute AS MATERIALIZED (
        SELECT coalesce(n.leaf_number, -1) AS leaf_number, n.minute, n.job_type, n.status, sum(n.jobs) AS jobs,
               coalesce(sum(n.waiting_us), 0) AS waiting_us, coalesce(sum(n.processing_us), 0) AS processing_us
        FROM noted n GROUP BY 1, n.minute, n.job_type, n.status
    ), summed AS (
        INSERT INTO streamvibe.stat AS s (leaf_number, minutes, since, job_type, status, jobs, waiting_us, processing_us)
        SELECT b.leaf_number, w.minutes, b.since, n.job_type, n.status, sum(n.jobs), sum(n.waiting_us), sum(n.processing_us)
        FROM by_minute n
        CROSS JOIN unnest('{-1,0,1,10,60,1440}'::smallint[]) w(minutes)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN w.minutes <= 0 THEN 'epoch'
                        ELSE date_bin(w.minutes * interval '1 minute', n.minute, '2000-01-01 00:00:00+00') END AS since,
                   CASE w.minutes WHEN 0 THEN 0 ELSE n.leaf_number END AS leaf_number) b
        GROUP BY w.minutes, b.since, n.job_type, n.status, b.leaf_number
        ORDER BY w.minutes, b.since, n.job_type, n.status, b.leaf_number
        ON CONFLICT (minutes, since, job_type, status, leaf_number) DO UPDATE
        SET jobs = s.jobs + excluded.jobs, waiting_us = s.waiting_us + excluded.waiting_us,
            processing_us = s.processing_us + excluded.processing_us
        RETURNING s.leaf_number, s.minutes, s.since, s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us
    ), counted AS (
        INSERT INTO streamvibe.counter AS c (name, job_type, detail, value)
        SELECT e.name, e.job_type, e.detail, sum(e.value)
        FROM (SELECT n.name, n.job_type, n.detail, n.value FROM counts n
              UNION ALL
              SELECT s.name, n.job_type, s.detail, s.value
              FROM noted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              WHERE n.jobs > 0 AND n.status IN ('completed', 'failed', 'cancelled')) e
        GROUP BY e.name, e.job_type, e.detail
        ORDER BY e.name, e.job_type, e.detail
        ON CONFLICT (name, job_type, detail) DO UPDATE SET value = c.value + excluded.value
    ), by_hour AS MATERIALIZED (
        SELECT coalesce(n.leaf_number, -1) AS leaf_number, date_bin('1 hour', n.minute, '2000-01-01 00:00:00+00') AS hour, n.job_type,
               m.measure, m.bucket, sum(sign(n.jobs)) AS jobs
        FROM noted n
        CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(n.waited) u(bucket)
                            UNION ALL SELECT 'processing', u.bucket FROM unnest(n.processed) u(bucket)) m(measure, bucket)
        GROUP BY 1, 2, n.job_type, m.measure, m.bucket
    ), sketched AS (
        INSERT INTO streamvibe.stat_sketch AS s (leaf_number, minutes, since, job_type, measure, bucket, jobs)
        SELECT b.leaf_number, w.minutes, b.since, b.job_type, n.measure, b.bucket, sum(n.jobs)
        FROM by_hour n
        -- All types together as well, so that what is asked of them reads one type's rows; not by the hour, where they are many.
        CROSS JOIN (SELECT m.minutes, a.of_all_types
                    FROM unnest('{-2,-1,0,60}'::smallint[]) m(minutes), (VALUES (false), (true)) a(of_all_types)
                    WHERE m.minutes <> 60 OR NOT a.of_all_types) w
        CROSS JOIN LATERAL (SELECT CASE w.minutes WHEN 60 THEN n.hour ELSE 'epoch' END AS since,
                                   CASE WHEN w.minutes IN (-2, 0) THEN 0 ELSE n.leaf_number END AS leaf_number,
                                   CASE WHEN w.of_all_types THEN '' ELSE n.job_type END AS job_type,
                                   CASE w.minutes WHEN -2 THEN n.bucket >> 4 ELSE n.bucket END AS bucket) b
        GROUP BY w.minutes, b.since, b.job_type, n.measure, b.bucket, b.leaf_number
        -- What is read together lies together.
        ORDER BY w.minutes, b.since, b.job_type, n.measure, b.bucket, b.leaf_number
        ON CONFLICT (minutes, since, job_type, measure, bucket, leaf_number) DO UPDATE SET jobs = s.jobs + excluded.jobs
        RETURNING s.leaf_number, s.minutes, s.since, s.job_type, s.measure, s.bucket, s.jobs
    )
    SELECT t.taken, s.leaf_numbers, s.minutes, s.since, s.job_types, s.statuses,
           b.leaf_numbers AS sketch_leaf_numbers, b.minutes AS sketch_minutes, b.since AS sketch_since,
           b.job_types AS sketch_job_types, b.measures, b.buckets INTO v_done
    FROM (SELECT (count(*) + (SELECT count(*) FROM counts))::integer AS taken FROM noted n) t,
         (SELECT array_agg(s.leaf_number) AS leaf_numbers, array_agg(s.minutes) AS minutes, array_agg(s.since) AS since,
                 array_agg(s.job_type) AS job_types, array_agg(s.status) AS statuses
          FROM summed s WHERE s.jobs = 0 AND s.waiting_us = 0 AND s.processing_us = 0) s,
         (SELECT array_agg(b.leaf_number) AS leaf_numbers, array_agg(b.minutes) AS minutes, array_agg(b.since) AS since,
                 array_agg(b.job_type) AS job_types, array_agg(b.measure) AS measures, array_agg(b.bucket) AS buckets
          FROM sketched b WHERE b.jobs = 0) b;
    -- Of jobs that moved on, nothing is left but zeroes.
    DELETE FROM streamvibe.stat s
    USING unnest(v_done.leaf_numbers, v_done.minutes, v_done.since, v_done.job_types, v_done.statuses)
          z(leaf_number, minutes, since, job_type, status)
    WHERE s.minutes = z.minutes AND s.since = z.since AND s.job_type = z.job_type AND s.status = z.status
      AND s.leaf_number = z.leaf_number;
    DELETE FROM streamvibe.stat_sketch s
    USING unnest(v_done.sketch_leaf_numbers, v_done.sketch_minutes, v_done.sketch_since, v_done.sketch_job_types, v_done.measures,
                 v_done.buckets) z(leaf_number, minutes, since, job_type, measure, bucket)
    WHERE s.minutes = z.minutes AND s.since = z.since AND s.job_type = z.job_type AND s.measure = z.measure
      AND s.bucket = z.bucket AND s.leaf_number = z.leaf_number;
    IF v_gone <> '{}' AND v_done.taken < p_limit THEN
        v_done.taken := v_done.taken + streamvibe.forget_leaves(v_gone, p_limit - v_done.taken);
    END IF;
    RETURN v_done.taken;
END
$$;
