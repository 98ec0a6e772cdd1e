-- Refuse a stretch of time that cannot be counted back from now. NULL is none, and fine.
-- Raises: SV001 naming the parameter.
CREATE OR REPLACE FUNCTION streamvibe.check_window(p_field text, p_window interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_window NOT BETWEEN '0' AND '100 years' THEN
        PERFORM streamvibe.raise_error('SV001', p_field, p_window::text, p_field || ' is out of range',
            'Use ''0'' (off) to ''100 years'', or NULL for what the job type says.');
    END IF;
END
$$;
