-- What is to be in the archive of a sealed leaf, or of a batch of deleted jobs ('leaving-' and its number): for each day of their ids
-- (UTC) how many rows, and the sum of their digests.
-- Raises: SV001 the leaf is not sealed, SV004, SV009 there is no such leaf.
CREATE OR REPLACE FUNCTION streamvibe.archive_days(p_source text) RETURNS TABLE (day date, row_count bigint, checksum numeric)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_batch bigint := substring(p_source FROM '^leaving-([0-9]{1,18})$')::bigint;
    v_leaf streamvibe.partition;
    v_from uuid;
BEGIN
    PERFORM streamvibe.require_service('archive_days');
    IF v_batch IS NOT NULL THEN
        RETURN QUERY
        SELECT '1970-01-01'::date + d.day, d.row_count, d.checksum
        FROM (SELECT streamvibe.day_of_id(a.row_id) AS day, count(*) AS row_count, sum(a.digest) AS checksum
              FROM streamvibe.archivable_job a WHERE a.place = 'leaving' AND a.batch = v_batch GROUP BY 1) d
        ORDER BY d.day;
        RETURN;
    END IF;
    v_leaf := streamvibe.sealed_leaf(p_source);
    v_from := streamvibe.id_bound(v_leaf.lower_at);
    IF v_leaf.parent_name = 'job_queue' THEN
        RETURN QUERY
        SELECT '1970-01-01'::date + d.day, d.row_count, d.checksum
        FROM (SELECT streamvibe.day_of_id(a.row_id) AS day, count(*) AS row_count, sum(a.digest) AS checksum
              FROM streamvibe.archivable_job a
              WHERE a.place = 'queue' AND a.row_id >= v_from AND a.row_id < v_leaf.upper_id GROUP BY 1) d
        ORDER BY d.day;
    ELSE
        RETURN QUERY
        SELECT '1970-01-01'::date + d.day, d.row_count, d.checksum
        FROM (SELECT streamvibe.day_of_id(a.row_id) AS day, count(*) AS row_count, sum(a.digest) AS checksum
              FROM streamvibe.archivable_line a WHERE a.row_id >= v_from AND a.row_id < v_leaf.upper_id GROUP BY 1) d
        ORDER BY d.day;
    END IF;
END
$$;
