-- Count a sealed leaf: how many rows it has, and of job_queue what the statistics will be without them. 2 us a job, during which
-- everybody goes on. Once is enough.
-- Returns: the number of rows.
-- Locks:   its row in streamvibe.partition.
-- Raises:  SV001 it is not sealed, SV004, SV006, SV009.
CREATE OR REPLACE FUNCTION streamvibe.count_partition(p_partition_name text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf streamvibe.partition;
    v_from uuid;
    v_rows bigint;
    v_work_mem text := current_setting('work_mem');
BEGIN
    PERFORM streamvibe.require_service('count_partition');
    PERFORM streamvibe.require_read_committed('count_partition', 'Use READ COMMITTED.');
    v_leaf := streamvibe.leaf_of_name(p_partition_name);
    IF v_leaf.row_count IS NOT NULL THEN
        RETURN v_leaf.row_count;
    ELSIF v_leaf.sealed_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'it is not sealed',
            format('SELECT streamvibe.seal_partition(%L), and commit.', p_partition_name));
    END IF;
    v_from := streamvibe.id_bound(v_leaf.lower_at);
    IF v_leaf.parent_name = 'job_queue' THEN
        -- It is alone (the row is locked), and adds up in memory what would go through files with what a session usually has.
        IF pg_size_bytes(v_work_mem) < pg_size_bytes('64MB') THEN
            PERFORM set_config('work_mem', '64MB', true);
        END IF;
        WITH counted AS MATERIALIZED (
            SELECT q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)) AS minute, count(*) AS jobs,
                   sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waiting_us,
                   sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processing_us
            FROM public.job_queue q WHERE q.id >= v_from AND q.id < v_leaf.upper_id
            GROUP BY 1, 2, 3
        ), noted AS (
            INSERT INTO streamvibe.leaf_stat (leaf_number, job_type, status, minutes, jobs, waiting_us, processing_us)
            SELECT v_leaf.leaf_number, c.job_type, c.status, array_agg(c.minute), array_agg(-c.jobs), array_agg(-c.waiting_us),
                   array_agg(-c.processing_us)
            FROM counted c
            GROUP BY c.job_type, c.status, date_bin('1 hour', c.minute, '2000-01-01 00:00:00+00')
        )
        SELECT coalesce(sum(c.jobs), 0) INTO v_rows FROM counted c;
        INSERT INTO streamvibe.leaf_sketch (leaf_number, job_type, hour, waited, processed)
        SELECT v_leaf.leaf_number, q.job_type, date_bin('1 hour', q.completed_at, '2000-01-01 00:00:00+00'),
               array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)),
               array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at))
        FROM public.job_queue q
        WHERE q.id >= v_from AND q.id < v_leaf.upper_id AND q.status = 'completed'
        GROUP BY 2, 3;
        PERFORM set_config('work_mem', v_work_mem, true);
    ELSE
        SELECT count(*) INTO v_rows FROM public.job_log l WHERE l.id >= v_from AND l.id < v_leaf.upper_id;
    END IF;
    UPDATE streamvibe.partition p SET row_count = v_rows WHERE p.partition_name = p_partition_name;
    RETURN v_rows;
END
$$;
