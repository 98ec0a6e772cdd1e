-- Make this table the leaf of a range of time. Its indexes are built now, much faster than row by row: fill it before.
-- Locks: SHARE UPDATE EXCLUSIVE on the parent (CREATE ... PARTITION OF would take ACCESS EXCLUSIVE).
CREATE OR REPLACE FUNCTION streamvibe.attach_leaf(
    p_parent text, p_name text, p_lower timestamptz, p_upper timestamptz
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION streamvibe.%I FOR VALUES FROM (%L) TO (%L)',
                   p_parent, p_name, streamvibe.id_bound(p_lower), streamvibe.id_bound(p_upper));
    INSERT INTO streamvibe.partition (parent_name, lower_at, upper_at, upper_id, partition_name)
    VALUES (p_parent, p_lower, p_upper, streamvibe.id_bound(p_upper), p_name);
END
$$;
