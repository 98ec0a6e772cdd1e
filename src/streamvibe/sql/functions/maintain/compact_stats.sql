-- Add up what transactions noted in the statistics (streamvibe.stat_delta) and counters (counter_note), and what dropped leaves left
-- behind (leaf_stat, leaf_sketch). Readers see the same numbers before and after.
-- Returns: about how many notes it took, p_limit or more when there are more left; 0 also while another session does the same, or counts anew.
-- Locks:   the row of streamvibe.stat_keeper (SKIP LOCKED): one session at a time. Nobody who writes jobs waits for it.
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
    v_done record;
BEGIN
    PERFORM streamvibe.require_service('compact_stats');
    PERFORM streamvibe.require_read_committed('compact_stats', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    PERFORM FROM streamvibe.stat_keeper FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH noted AS MATERIALIZED (
        DELETE FROM streamvibe.stat_delta d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat_delta l LIMIT p_limit))
        RETURNING d.*
    ), room AS (
        -- Each row that a leaf left behind is of an hour.
        SELECT CASE WHEN count(*) < p_limit THEN (p_limit - count(*)) / 50 + 1 ELSE 0 END AS hours FROM noted
    ), counts AS MATERIALIZED (
        DELETE FROM streamvibe.counter_note d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.counter_note l
                                  LIMIT (SELECT greatest(p_limit - count(*), 0) FROM noted)))
        RETURNING d.*
    ), left_behind AS MATERIALIZED (
        DELETE FROM streamvibe.leaf_stat d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.dropped_leaf g
                                  CROSS JOIN LATERAL (SELECT l.ctid FROM streamvibe.leaf_stat l
                                                      WHERE l.leaf_number = g.leaf_number OFFSET 0) l
                                  LIMIT (SELECT r.hours FROM room r)))
        RETURNING d.*
    ), sketches_left_behind AS MATERIALIZED (
        DELETE FROM streamvibe.leaf_sketch d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.dropped_leaf g
                                  CROSS JOIN LATERAL (SELECT l.ctid FROM streamvibe.leaf_sketch l
                                                      WHERE l.leaf_number = g.leaf_number OFFSET 0) l
                                  LIMIT (SELECT r.hours FROM room r)))
        RETURNING d.*
    ), taken AS MATERIALIZED (
        SELECT n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, false AS is_of_leaf FROM noted n
        UNION ALL
        SELECT l.job_type, l.status, u.minute, u.jobs, u.waiting_us, u.processing_us, true
        FROM left_behind l
        CROSS JOIN LATERAL unnest(l.minutes, l.jobs, l.waiting_us, l.processing_us) u(minute, jobs, waiting_us, processing_us)
    ), summed AS (
        INSERT INTO streamvibe.stat AS s (minutes, since, job_type, status, jobs, waiting_us, processing_us)
        SELECT w.minutes, b.since, t.job_type, t.status, sum(t.jobs),
               coalesce(sum(t.waiting_us), 0), coalesce(sum(t.processing_us), 0)
        FROM taken t
        CROSS JOIN (VALUES (0::smallint), (1::smallint), (60::smallint), (1440::smallint)) w(minutes)
        CROSS JOIN LATERAL (SELECT CASE w.minutes WHEN 0 THEN 'epoch' WHEN 1 THEN t.minute
                                   ELSE date_bin(w.minutes * interval '1 minute', t.minute, '2000-01-01 00:00:00+00') END AS since) b
        GROUP BY w.minutes, b.since, t.job_type, t.status
        ORDER BY w.minutes, b.since, t.job_type, t.status
        ON CONFLICT (minutes, since, job_type, status) DO UPDATE
        SET jobs = s.jobs + excluded.jobs, waiting_us = s.waiting_us + excluded.waiting_us,
            processing_us = s.processing_us + excluded.processing_us
        RETURNING s.minutes, s.since, s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us
    ), counted AS (
        INSERT INTO streamvibe.counter AS c (name, job_type, detail, value)
        SELECT e.name, e.job_type, e.detail, sum(e.value)
        FROM (SELECT n.name, n.job_type, n.detail, n.value FROM counts n
              UNION ALL
              SELECT s.name, n.job_type, s.detail, s.value
              FROM noted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              WHERE n.jobs > 0 AND n.status IN ('completed', 'failed', 'cancelled')
              UNION ALL
              SELECT 'removed', t.job_type, '', -t.jobs FROM taken t WHERE t.is_of_leaf) e
        GROUP BY e.name, e.job_type, e.detail
        ORDER BY e.name, e.job_type, e.detail
        ON CONFLICT (name, job_type, detail) DO UPDATE SET value = c.value + excluded.value
    ), sketched AS (
        INSERT INTO streamvibe.stat_sketch AS s (minutes, since, job_type, measure, bucket, jobs)
        SELECT w.minutes, CASE w.minutes WHEN 0 THEN 'epoch' ELSE e.hour END, e.job_type, e.measure, e.bucket, sum(e.jobs)
        FROM (SELECT n.job_type, date_bin('1 hour', n.minute, '2000-01-01 00:00:00+00') AS hour, m.measure, m.bucket,
                     sign(n.jobs) AS jobs
              FROM noted n
              CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(n.waited) u(bucket)
                                  UNION ALL SELECT 'processing', u.bucket FROM unnest(n.processed) u(bucket)) m(measure, bucket)
              UNION ALL
              SELECT l.job_type, l.hour, m.measure, m.bucket, -1
              FROM sketches_left_behind l
              CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(l.waited) u(bucket)
                                  UNION ALL SELECT 'processing', u.bucket FROM unnest(l.processed) u(bucket)) m(measure, bucket)) e
        CROSS JOIN (VALUES (0::smallint), (60::smallint)) w(minutes)
        GROUP BY 1, 2, 3, 4, 5
        ON CONFLICT (minutes, since, job_type, measure, bucket) DO UPDATE SET jobs = s.jobs + excluded.jobs
        RETURNING s.minutes, s.since, s.job_type, s.measure, s.bucket, s.jobs
    )
    SELECT t.count, s.minutes, s.since, s.job_types, s.statuses, b.minutes AS sketch_minutes, b.since AS sketch_since,
           b.job_types AS sketch_job_types, b.measures, b.buckets INTO v_done
    FROM (SELECT ((SELECT count(*) FROM noted) + (SELECT count(*) FROM counts)
                  + 50 * ((SELECT count(*) FROM left_behind) + (SELECT count(*) FROM sketches_left_behind)))::integer AS count) t,
         (SELECT array_agg(s.minutes) AS minutes, array_agg(s.since) AS since, array_agg(s.job_type) AS job_types,
                 array_agg(s.status) AS statuses
          FROM summed s WHERE s.jobs = 0 AND s.waiting_us = 0 AND s.processing_us = 0) s,
         (SELECT array_agg(b.minutes) AS minutes, array_agg(b.since) AS since, array_agg(b.job_type) AS job_types,
                 array_agg(b.measure) AS measures, array_agg(b.bucket) AS buckets
          FROM sketched b WHERE b.jobs = 0) b;
    -- Of jobs that moved on, nothing is left but zeroes.
    DELETE FROM streamvibe.stat s
    USING unnest(v_done.minutes, v_done.since, v_done.job_types, v_done.statuses) z(minutes, since, job_type, status)
    WHERE s.minutes = z.minutes AND s.since = z.since AND s.job_type = z.job_type AND s.status = z.status;
    DELETE FROM streamvibe.stat_sketch s
    USING unnest(v_done.sketch_minutes, v_done.sketch_since, v_done.sketch_job_types, v_done.measures, v_done.buckets)
          z(minutes, since, job_type, measure, bucket)
    WHERE s.minutes = z.minutes AND s.since = z.since AND s.job_type = z.job_type AND s.measure = z.measure
      AND s.bucket = z.bucket;
    DELETE FROM streamvibe.dropped_leaf g
    WHERE NOT EXISTS (SELECT FROM streamvibe.leaf_stat l WHERE l.leaf_number = g.leaf_number)
      AND NOT EXISTS (SELECT FROM streamvibe.leaf_sketch l WHERE l.leaf_number = g.leaf_number);
    RETURN v_done.count;
END
$$;
