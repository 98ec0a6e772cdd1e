-- Count the rows of a sealed leaf, which its archive must have as many of. Everybody goes on meanwhile. Once is enough, until a user is
-- erased.
-- Returns: the number of rows.
-- Locks:   its row in streamvibe.partition.
-- Raises:  SV001 it is not sealed, SV004, SV006, SV009.
CREATE OR REPLACE FUNCTION streamvibe.count_partition(p_partition_name text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf streamvibe.partition;
    v_rows bigint;
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
    EXECUTE format('SELECT count(*) FROM streamvibe.%I', p_partition_name) INTO v_rows;
    UPDATE streamvibe.partition p SET row_count = v_rows WHERE p.partition_name = p_partition_name;
    RETURN v_rows;
END
$$;
