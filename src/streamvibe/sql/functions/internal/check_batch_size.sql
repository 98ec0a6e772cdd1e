-- Raises: SV001.
CREATE OR REPLACE FUNCTION streamvibe.check_batch_size(p_limit integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text, 'p_limit is out of range',
            'Use 1 to 10000 jobs a run.');
    END IF;
END
$$;
