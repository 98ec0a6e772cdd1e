-- Make the leaves of job_queue and job_log from now (and an hour back, for clocks that lag) to p_ahead ahead.
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
    -- In seconds: days are 23 or 25 hours long where the session's clocks change.
    v_width interval := (SELECT make_interval(secs => extract(epoch FROM s.partition_width)) FROM streamvibe.setting s);
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
            -- With the hour, where an older release ended a leaf an hour early: the day's name is taken then.
            partition_name := v_parent || to_char(v_lower AT TIME ZONE 'UTC',
                CASE WHEN v_lower = date_trunc('day', v_lower, 'UTC') THEN '_YYYYMMDD' ELSE '_YYYYMMDD_HH24' END);
            PERFORM streamvibe.make_leaf(v_parent, partition_name);
            PERFORM streamvibe.attach_leaf(v_parent, partition_name, v_lower, v_upper);
            RETURN NEXT;
            v_lower := v_upper;
        END LOOP;
    END LOOP;
END
$$;
