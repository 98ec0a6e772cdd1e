-- What a kind of report is about: 'day', 'week' (from Monday on) or 'month', all in UTC.
-- Raises: SV001 naming p_kind.
CREATE OR REPLACE FUNCTION streamvibe.report_unit(p_kind text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_unit text := CASE p_kind WHEN 'daily' THEN 'day' WHEN 'weekly' THEN 'week' WHEN 'monthly' THEN 'month' END;
BEGIN
    IF v_unit IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_kind', p_kind, 'p_kind is no kind of report', 'Use daily, weekly or monthly.');
    END IF;
    RETURN v_unit;
END
$$;
