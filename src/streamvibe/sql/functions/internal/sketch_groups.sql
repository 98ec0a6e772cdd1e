-- How many completed jobs of a type, '' for all types together, waited and were processed for how long, of all time, by groups of sixteen
-- buckets: group n is the buckets from 16 n on. Rows of one measure and group are to be added up. Without what is only noted yet
-- (streamvibe.sketch_note).
-- Reads: of a dropped leaf that is not taken out yet its buckets, and no other types' rows.
CREATE OR REPLACE FUNCTION streamvibe.sketch_groups(p_job_type text)
    RETURNS TABLE (measure text, bucket_group integer, jobs bigint)
    LANGUAGE sql STABLE ROWS 100
AS $$
    SELECT s.measure, s.bucket::integer, s.jobs FROM streamvibe.stat_sketch s
    WHERE s.minutes = -2 AND s.since = 'epoch' AND s.job_type = p_job_type
    UNION ALL
    SELECT l.measure, l.bucket >> 4, -l.jobs
    FROM streamvibe.dropped_leaf g
    CROSS JOIN LATERAL (
        SELECT s.measure, s.bucket, s.jobs FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.leaf_number = g.leaf_number OFFSET 0) l
$$;
