-- The bound between partitions at a moment: below every UUID of that millisecond, whatever its version bits.
CREATE OR REPLACE FUNCTION streamvibe.id_bound(p_at timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (encode(substring(int8send((extract(epoch FROM p_at) * 1000)::bigint) FROM 3), 'hex')
            || '00000000000000000000')::uuid
$$;
