-- The leaf of this name, in which nothing changes any more (but that users are erased).
-- Raises: SV001 it is not sealed, SV009 there is none.
CREATE OR REPLACE FUNCTION streamvibe.sealed_leaf(p_partition_name text) RETURNS streamvibe.partition
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf streamvibe.partition;
BEGIN
    SELECT p.* INTO v_leaf FROM streamvibe.partition p WHERE p.partition_name = p_partition_name;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV009', 'p_source', p_partition_name, 'there is no such partition',
            'See which there are: SELECT partition_name FROM streamvibe.partition.');
    ELSIF v_leaf.sealed_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_source', p_partition_name, 'it is not sealed',
            format('SELECT streamvibe.seal_partition(%L), and commit.', p_partition_name));
    END IF;
    RETURN v_leaf;
END
$$;
