-- Make the statistics say which jobs are in a leaf of job_queue, so that it can be dropped: after an upgrade from a release that did not
-- note it they are counted anew, once (recount_stats). Nothing otherwise. In a transaction of its own.
-- Locks:   where it counts, what recount_stats() locks.
-- Raises:  SV004, SV006, SV009.
CREATE OR REPLACE FUNCTION streamvibe.place_sums(p_partition_name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parent_name text;
BEGIN
    PERFORM streamvibe.require_service('place_sums');
    PERFORM streamvibe.require_read_committed('place_sums', 'Use READ COMMITTED.');
    -- Not locked: recount_stats() has its order.
    SELECT p.parent_name INTO v_parent_name FROM streamvibe.partition p WHERE p.partition_name = p_partition_name;
    IF NOT FOUND THEN
        PERFORM streamvibe.leaf_of_name(p_partition_name);
    END IF;
    IF v_parent_name = 'job_queue' AND streamvibe.has_unplaced_sums() THEN
        PERFORM FROM public.recount_stats();
    END IF;
END
$$;
