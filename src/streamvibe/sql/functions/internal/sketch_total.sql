-- How many completed jobs of a type, '' for all types together, waited and were processed for how long, of all time; rows of one measure
-- and bucket are to be added up. Without what is only noted yet (streamvibe.sketch_note).
-- Reads: of a dropped leaf that is not taken out yet no other types' rows.
CREATE OR REPLACE FUNCTION streamvibe.sketch_total(p_job_type text) RETURNS TABLE (measure text, bucket smallint, jobs bigint)
    LANGUAGE sql STABLE ROWS 1000
AS $$
    SELECT s.measure, s.bucket, s.jobs FROM streamvibe.stat_sketch s
    WHERE s.minutes = 0 AND s.since = 'epoch' AND s.job_type = p_job_type
    UNION ALL
    SELECT l.measure, l.bucket, -l.jobs
    FROM streamvibe.dropped_leaf g
    CROSS JOIN LATERAL (
        SELECT s.measure, s.bucket, s.jobs FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.leaf_number = g.leaf_number OFFSET 0) l
$$;
