-- The leaf of this name, locked: what becomes of a leaf is decided by one at a time.
-- Locks:  its row in streamvibe.partition.
-- Raises: SV009 there is none.
CREATE OR REPLACE FUNCTION streamvibe.leaf_of_name(p_partition_name text) RETURNS streamvibe.partition
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf streamvibe.partition;
BEGIN
    SELECT p.* INTO v_leaf FROM streamvibe.partition p WHERE p.partition_name = p_partition_name FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV009', 'p_partition_name', p_partition_name, 'there is no such partition',
            'See which there are: SELECT partition_name FROM streamvibe.partition.');
    END IF;
    RETURN v_leaf;
END
$$;
