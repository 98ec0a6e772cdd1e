-- Make sure that nothing in a leaf changes any more: the time of its ids is over, whoever wrote to it has ended, and its jobs
-- have ended for good. From then on it can be counted and archived without a lock, and dropped. Commit at once.
-- Returns: false when a job is live or may be retried; it is left as it is.
-- Locks:   its row in streamvibe.partition; the leaf against writers, until the transaction ends. Nobody waits long behind it.
-- Raises:  SV001 its time is not over, SV004, SV006, SV009, 55P03 a transaction that wrote to it did not end within p_patience.
CREATE OR REPLACE FUNCTION streamvibe.seal_partition(p_partition_name text, p_patience interval DEFAULT '10 seconds')
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf streamvibe.partition;
BEGIN
    PERFORM streamvibe.require_service('seal_partition');
    PERFORM streamvibe.require_read_committed('seal_partition', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_patience(p_patience);
    v_leaf := streamvibe.leaf_of_name(p_partition_name);
    IF v_leaf.sealed_at IS NOT NULL THEN
        RETURN true;
    ELSIF v_leaf.upper_at + interval '1 hour' > streamvibe.now() THEN
        -- An hour allows for clocks that differ.
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'its time is not over',
            'Wait until an hour after ' || v_leaf.upper_at || '.');
    ELSIF v_leaf.parent_name = 'job_queue'
          AND streamvibe.has_open_jobs(streamvibe.id_bound(v_leaf.lower_at), v_leaf.upper_id) THEN
        RETURN false;
    END IF;
    PERFORM streamvibe.lock_soon(format('ONLY streamvibe.%I', p_partition_name), 'SHARE', p_patience);
    -- Only now is everything committed that was written before.
    IF v_leaf.parent_name = 'job_queue'
       AND streamvibe.has_open_jobs(streamvibe.id_bound(v_leaf.lower_at), v_leaf.upper_id) THEN
        RETURN false;
    END IF;
    UPDATE streamvibe.partition p SET sealed_at = streamvibe.now() WHERE p.partition_name = p_partition_name;
    RETURN true;
END
$$;
