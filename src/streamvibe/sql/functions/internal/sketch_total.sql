-- How many completed jobs of a type, '' for all types together, waited and were processed for how long, of all time: of one measure, and of the
-- buckets of one group (streamvibe.sketch_groups). Rows of one bucket are to be added up. Without what is only noted yet
-- (streamvibe.sketch_note).
-- Reads: sixteen rows, and as many of each dropped leaf that is not taken out yet.
-- Its parameters were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.sketch_total(text);
CREATE OR REPLACE FUNCTION streamvibe.sketch_total(p_job_type text, p_measure text, p_group integer)
    RETURNS TABLE (bucket smallint, jobs bigint)
    LANGUAGE sql STABLE ROWS 16
AS $$
    SELECT s.bucket, s.jobs FROM streamvibe.stat_sketch s
    WHERE s.minutes = 0 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.measure = p_measure
      AND s.bucket >= p_group << 4 AND s.bucket < (p_group + 1) << 4
    UNION ALL
    SELECT l.bucket, -l.jobs
    FROM streamvibe.dropped_leaf g
    CROSS JOIN LATERAL (
        SELECT s.bucket, s.jobs FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.measure = p_measure
          AND s.bucket >= p_group << 4 AND s.bucket < (p_group + 1) << 4 AND s.leaf_number = g.leaf_number OFFSET 0) l
$$;
