-- Drop a leaf of job_queue or job_log with all that is in it; its jobs leave the statistics with it.
-- Locks:  the leaf against VACUUM (an automatic one ends itself for it within a second or so); then the parent and the leaf
--         (ACCESS EXCLUSIVE) until the transaction ends: commit at once. Nobody waits long behind it before it has them,
--         everybody while it then counts the leaf's jobs, 3 us each: a lock that only kept writers from this leaf would stop
--         every UPDATE whose leaves are not known when it is planned.
-- Raises: SV001, SV006, SV009 there is no such leaf, 55P03 a transaction that uses the queue did not end within p_patience.
CREATE OR REPLACE FUNCTION streamvibe.drop_partition(p_partition_name text, p_patience interval DEFAULT '10 seconds')
    RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf record;
BEGIN
    -- Otherwise what is dropped and what is counted would be of different moments.
    PERFORM streamvibe.require_read_committed('drop_partition', 'Use READ COMMITTED.');
    IF (p_patience BETWEEN '0' AND '1 day') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_patience', p_patience::text, 'p_patience is out of range',
            'Use an interval from 0 to 1 day.');
    END IF;
    DELETE FROM streamvibe.partition p WHERE p.partition_name = p_partition_name
    RETURNING p.parent_name, streamvibe.id_bound(p.lower_at) AS lower_id, p.upper_id INTO v_leaf;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV009', 'p_partition_name', p_partition_name, 'there is no such partition',
            'See which there are: SELECT partition_name FROM streamvibe.partition.');
    END IF;
    -- Neither readers nor writers wait behind this one, so it may take the second after which autovacuum steps aside.
    PERFORM streamvibe.lock_soon(format('ONLY streamvibe.%I', p_partition_name), 'SHARE UPDATE EXCLUSIVE', p_patience,
                                 '3 seconds');
    PERFORM streamvibe.lock_soon(
        format('ONLY public.%I, ONLY streamvibe.%I', v_leaf.parent_name, p_partition_name), 'ACCESS EXCLUSIVE', p_patience);
    IF v_leaf.parent_name = 'job_queue' THEN
        INSERT INTO streamvibe.stat_delta (job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT c.job_type, c.status, c.minute, -c.jobs, -c.waiting_us, -c.processing_us, c.waited, c.processed
        FROM streamvibe.counted_jobs(v_leaf.lower_id, v_leaf.upper_id) c;
    END IF;
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION streamvibe.%I', v_leaf.parent_name, p_partition_name);
    EXECUTE format('DROP TABLE streamvibe.%I', p_partition_name);
END
$$;
