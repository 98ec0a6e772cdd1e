-- Take what dropped leaves left behind out of the sums. Readers, who leave it out already, see the same numbers before and after.
-- p_leaf_numbers: dropped leaves of which every note is added up already; the caller has streamvibe.stat_lock's row.
-- p_limit: how many sums it deletes at most, besides those of whole leaves.
-- Returns: how many it deleted; once it is less than p_limit nothing is left of them.
-- Index:   stat_leaf, stat_sketch_leaf.
CREATE OR REPLACE FUNCTION streamvibe.forget_leaves(p_leaf_numbers bigint[], p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    -- Not by reading all sums, nor by comparing each with each (compact_stats has it off).
    SET enable_seqscan = off
    SET enable_hashjoin = on
AS $$
DECLARE
    v_deleted integer;
    v_sketches integer;
BEGIN
    -- The sums of a whole leaf, and what they are of those of all, in one step: readers subtract them as long as they are there.
    WITH gone AS MATERIALIZED (
        DELETE FROM streamvibe.stat s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.leaf_number = ANY (p_leaf_numbers)
        RETURNING s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us
    ), removed AS (
        INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
        SELECT 'removed', g.job_type, '', sum(g.jobs) FROM gone g GROUP BY g.job_type
    )
    UPDATE streamvibe.stat s
    SET jobs = s.jobs - g.jobs, waiting_us = s.waiting_us - g.waiting_us, processing_us = s.processing_us - g.processing_us
    FROM (SELECT g.job_type, g.status, sum(g.jobs) AS jobs, sum(g.waiting_us) AS waiting_us, sum(g.processing_us) AS processing_us
          FROM gone g GROUP BY g.job_type, g.status) g
    WHERE s.minutes = 0 AND s.since = 'epoch' AND s.leaf_number = 0 AND s.job_type = g.job_type AND s.status = g.status;
    IF FOUND THEN
        DELETE FROM streamvibe.stat s WHERE s.minutes = 0 AND s.jobs = 0 AND s.waiting_us = 0 AND s.processing_us = 0;
    END IF;
    WITH gone AS MATERIALIZED (
        DELETE FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.leaf_number = ANY (p_leaf_numbers)
        RETURNING s.job_type, s.measure, s.bucket, s.jobs
    )
    UPDATE streamvibe.stat_sketch s SET jobs = s.jobs - g.jobs
    FROM (SELECT w.minutes, g.job_type, g.measure, w.bucket, sum(g.jobs) AS jobs
          FROM gone g CROSS JOIN LATERAL (VALUES (0, g.bucket), (-2, g.bucket >> 4)) w(minutes, bucket)
          GROUP BY w.minutes, g.job_type, g.measure, w.bucket) g
    WHERE s.minutes = g.minutes AND s.since = 'epoch' AND s.leaf_number = 0 AND s.job_type = g.job_type AND s.measure = g.measure
      AND s.bucket = g.bucket AND s.minutes IN (0, -2);
    IF FOUND THEN
        DELETE FROM streamvibe.stat_sketch s WHERE s.minutes IN (0, -2) AND s.jobs = 0;
    END IF;
    DELETE FROM streamvibe.stat s
    WHERE s.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat l WHERE l.leaf_number = ANY (p_leaf_numbers) LIMIT p_limit));
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    DELETE FROM streamvibe.stat_sketch s
    WHERE s.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat_sketch l
                              WHERE l.leaf_number = ANY (p_leaf_numbers) LIMIT p_limit - v_deleted));
    GET DIAGNOSTICS v_sketches = ROW_COUNT;
    v_deleted := v_deleted + v_sketches;
    IF v_deleted < p_limit THEN
        DELETE FROM streamvibe.dropped_leaf g WHERE g.leaf_number = ANY (p_leaf_numbers);
    END IF;
    RETURN v_deleted;
END
$$;
