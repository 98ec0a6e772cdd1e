-- Refuse a write whose partition is missing, before it is tried: inserts never run DDL.
-- Returns: the partition's leaf_number.
-- Raises:  SV009.
-- It returned nothing once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.require_partition(text, timestamptz);
CREATE OR REPLACE FUNCTION streamvibe.require_partition(p_parent text, p_at timestamptz) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf_number bigint := (SELECT p.leaf_number FROM streamvibe.partition p
                             WHERE p.parent_name = p_parent AND p.lower_at <= p_at AND p.upper_at > p_at);
BEGIN
    IF v_leaf_number IS NULL THEN
        PERFORM streamvibe.raise_error('SV009', p_parent, p_at::text,
            p_parent || ' has no partition for this time',
            'Run SELECT * FROM ensure_partitions() in a transaction of its own, then try again.');
    END IF;
    RETURN v_leaf_number;
END
$$;
