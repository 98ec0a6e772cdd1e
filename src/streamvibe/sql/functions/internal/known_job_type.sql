-- The settings of a registered job type.
-- Raises: SV002 not registered; the message has up to three registered names that share most of their pairs of
--         characters with it.
CREATE OR REPLACE FUNCTION streamvibe.known_job_type(p_job_type text) RETURNS streamvibe.job_type
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type streamvibe.job_type;
    v_like text;
BEGIN
    SELECT t.* INTO v_type FROM streamvibe.job_type t WHERE t.name = p_job_type;
    IF NOT FOUND THEN
        SELECT string_agg(l.name, ' or ' ORDER BY l.shared DESC, l.name) INTO v_like FROM (
            SELECT t.name, count(*) AS shared FROM streamvibe.job_type t, generate_series(1, length(t.name) - 1) g(i)
            WHERE position(substr(t.name, g.i, 2) IN lower(p_job_type)) > 0
            GROUP BY t.name HAVING 2 * count(*) >= greatest(length(t.name), length(p_job_type)) - 1
            ORDER BY shared DESC, t.name LIMIT 3) l;
        PERFORM streamvibe.raise_error('SV002', 'p_job_type', p_job_type,
            'job type is not registered' || coalesce('; did you mean ' || v_like || '?', ''),
            'Check the spelling, or register it: SELECT register_job_type(''name'').');
    END IF;
    RETURN v_type;
END
$$;
