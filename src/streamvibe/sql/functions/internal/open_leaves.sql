-- Let rows be deleted from the leaves that these ids are in, also from sealed ones, which must be counted again before they are archived.
-- p_ids: of job_queue or job_log, as p_parent says; the caller has the leaves' rows in streamvibe.partition locked.
CREATE OR REPLACE FUNCTION streamvibe.open_leaves(p_parent text, p_ids uuid[]) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE streamvibe.partition p SET row_count = NULL
    WHERE p.parent_name = p_parent AND p.row_count IS NOT NULL AND EXISTS (
        SELECT FROM unnest(p_ids) u(id) WHERE u.id >= streamvibe.id_bound(p.lower_at) AND u.id < p.upper_id)
$$;
