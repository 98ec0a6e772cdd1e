-- Refuse a write whose partition is missing, before it is tried: inserts never run DDL.
-- Raises: SV009.
CREATE OR REPLACE FUNCTION streamvibe.require_partition(p_parent text, p_at timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM streamvibe.partition p
        WHERE p.parent_name = p_parent AND p.lower_at <= p_at AND p.upper_at > p_at
    ) THEN
        PERFORM streamvibe.raise_error('SV009', p_parent, p_at::text,
            p_parent || ' has no partition for this time',
            'Run SELECT * FROM ensure_partitions() in a transaction of its own, then try again.');
    END IF;
END
$$;
