-- Make this table the leaf of a range of time. Its indexes are built now, much faster than row by row: fill it before.
-- The primary key's comes last: of indexes that cost the same the planner takes the one made last, and while a leaf is known to be
-- empty all cost the same, for sessions that keep the plan when it fills, too. By any other index a job is not looked up by its id.
-- (Leaves that were there before, or come from a dump, have another order until they are a few weeks old.)
-- Locks: SHARE UPDATE EXCLUSIVE on the parent (CREATE ... PARTITION OF would take ACCESS EXCLUSIVE).
CREATE OR REPLACE FUNCTION streamvibe.attach_leaf(
    p_parent text, p_name text, p_lower timestamptz, p_upper timestamptz
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_index text;
BEGIN
    FOR v_index IN
        SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i
        WHERE i.indrelid = format('public.%I', p_parent)::regclass
          AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid) ORDER BY i.indexrelid
    LOOP
        EXECUTE regexp_replace(v_index, ' INDEX .+? ON ONLY .+? USING ', format(' INDEX ON streamvibe.%I USING ', p_name));
    END LOOP;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION streamvibe.%I FOR VALUES FROM (%L) TO (%L)',
                   p_parent, p_name, streamvibe.id_bound(p_lower), streamvibe.id_bound(p_upper));
    INSERT INTO streamvibe.partition (parent_name, lower_at, upper_at, upper_id, partition_name)
    VALUES (p_parent, p_lower, p_upper, streamvibe.id_bound(p_upper), p_name);
END
$$;
