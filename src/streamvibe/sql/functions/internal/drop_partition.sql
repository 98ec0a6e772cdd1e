-- Drop a leaf of job_queue or job_log with all that is in it; its jobs leave the statistics with it.
-- Locks:  the parent (ACCESS EXCLUSIVE), until the transaction ends.
-- Raises: SV009 there is no such leaf.
CREATE OR REPLACE FUNCTION streamvibe.drop_partition(p_partition_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parent text;
BEGIN
    DELETE FROM streamvibe.partition p WHERE p.partition_name = p_partition_name RETURNING p.parent_name INTO v_parent;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV009', 'p_partition_name', p_partition_name, 'there is no such partition',
            'See which there are: SELECT partition_name FROM streamvibe.partition.');
    END IF;
    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', v_parent);
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION streamvibe.%I', v_parent, p_partition_name);
    IF v_parent = 'job_queue' THEN
        EXECUTE format($sql$
            INSERT INTO streamvibe.stat_delta (job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
            SELECT q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)), -count(*),
                   -sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
                   -sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed'),
                   array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed'),
                   array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed')
            FROM streamvibe.%I q GROUP BY q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at))
            $sql$, p_partition_name);
    END IF;
    EXECUTE format('DROP TABLE streamvibe.%I', p_partition_name);
END
$$;
