-- Make the leaves of job_queue and job_log from now (and an hour back, for clocks that lag) to p_ahead ahead.
-- Every leaf gets its own settings and statistics targets: neither is inherited from a partitioned table.
-- Call it in a transaction of its own; it does not block readers or writers of other leaves.
-- Returns: the leaves made, none when all were there.
-- Locks:   the table streamvibe.partition against itself; SHARE UPDATE EXCLUSIVE on the parents (CREATE ... PARTITION OF
--          would take ACCESS EXCLUSIVE).
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.ensure_partitions(p_ahead interval DEFAULT '4 weeks')
    RETURNS TABLE (partition_name text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_width interval := (SELECT s.partition_width FROM streamvibe.setting s);
    v_parent text;
    v_lower timestamptz;
    v_upper timestamptz;
BEGIN
    PERFORM streamvibe.require_service('ensure_partitions');
    IF p_ahead IS NULL OR p_ahead NOT BETWEEN '0' AND '2 years' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_ahead', p_ahead::text, 'p_ahead is out of range',
            'Use ''0'' to ''2 years''.');
    END IF;
    -- Not an advisory lock: anybody could hold that.
    LOCK TABLE streamvibe.partition IN SHARE ROW EXCLUSIVE MODE;
    FOREACH v_parent IN ARRAY ARRAY['job_queue', 'job_log'] LOOP
        -- Leaves start where the last one ended, so a changed width never overlaps; the first, on a Monday.
        v_lower := (SELECT max(p.upper_at) FROM streamvibe.partition p WHERE p.parent_name = v_parent);
        IF v_lower IS NULL OR v_lower < v_now - interval '1 hour' THEN
            v_lower := greatest(v_lower, date_bin(v_width, v_now - interval '1 hour', '2024-01-01 00:00+00'));
        END IF;
        WHILE v_lower <= v_now + p_ahead LOOP
            v_upper := date_bin(v_width, v_lower, '2024-01-01 00:00+00') + v_width;
            partition_name := v_parent || to_char(v_lower AT TIME ZONE 'UTC', '_YYYYMMDD');
            EXECUTE format('CREATE TABLE streamvibe.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING GENERATED '
                           'INCLUDING CONSTRAINTS INCLUDING STORAGE)', partition_name, v_parent);
            -- Seen from a leaf, these are what an operator meets first: rows churn, so vacuum early and fast.
            EXECUTE format('ALTER TABLE streamvibe.%I SET (autovacuum_vacuum_scale_factor = 0.05, '
                           'autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05, '
                           'autovacuum_vacuum_cost_limit = 1000)', partition_name);
            IF v_parent = 'job_queue' THEN
                EXECUTE format('ALTER TABLE streamvibe.%I ALTER COLUMN status SET STATISTICS 1000, '
                               'ALTER COLUMN job_type SET STATISTICS 1000', partition_name);
            ELSE
                EXECUTE format('ALTER TABLE streamvibe.%I SET (toast_tuple_target = 8160)', partition_name);
            END IF;
            EXECUTE format('ALTER TABLE streamvibe.%I ENABLE ROW LEVEL SECURITY', partition_name);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION streamvibe.%I FOR VALUES FROM (%L) TO (%L)',
                           v_parent, partition_name, streamvibe.id_bound(v_lower), streamvibe.id_bound(v_upper));
            INSERT INTO streamvibe.partition (parent_name, lower_at, upper_at, upper_id, partition_name)
            VALUES (v_parent, v_lower, v_upper, streamvibe.id_bound(v_upper), partition_name);
            RETURN NEXT;
            v_lower := v_upper;
        END LOOP;
    END LOOP;
END
$$;
