-- Raises: SV001.
CREATE OR REPLACE FUNCTION streamvibe.check_patience(p_patience interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (p_patience BETWEEN '0' AND '1 day') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_patience', p_patience::text, 'p_patience is out of range',
            'Use an interval from 0 to 1 day.');
    END IF;
END
$$;
