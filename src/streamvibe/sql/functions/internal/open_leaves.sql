-- Let rows be deleted from the leaves that these ids are in, also from sealed ones: what was counted of those is taken back, and they
-- must be counted again before they are dropped or archived.
-- p_ids: of job_queue or job_log, as p_parent says; the caller has the leaves' rows in streamvibe.partition locked.
CREATE OR REPLACE FUNCTION streamvibe.open_leaves(p_parent text, p_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_numbers bigint[];
BEGIN
    WITH opened AS (
        UPDATE streamvibe.partition p SET row_count = NULL
        WHERE p.parent_name = p_parent AND p.row_count IS NOT NULL AND EXISTS (
            SELECT FROM unnest(p_ids) u(id) WHERE u.id >= streamvibe.id_bound(p.lower_at) AND u.id < p.upper_id)
        RETURNING p.leaf_number
    )
    SELECT array_agg(o.leaf_number) INTO v_numbers FROM opened o;
    DELETE FROM streamvibe.leaf_stat l WHERE l.leaf_number = ANY (v_numbers);
    DELETE FROM streamvibe.leaf_sketch l WHERE l.leaf_number = ANY (v_numbers);
END
$$;
