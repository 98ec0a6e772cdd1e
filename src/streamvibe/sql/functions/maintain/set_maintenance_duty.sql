-- Change when a duty runs, or whether it does. NULL leaves what it is; p_schedule '' goes back to the usual one.
-- p_schedule: cron, in UTC: minute hour day month weekday, or with seconds before them; or 'every 30 seconds'. Whether cron
--             can read it is for the caller to check (the command line does); a process that cannot says so, and uses the
--             usual one.
-- Raises:     SV001, SV004.
CREATE OR REPLACE FUNCTION public.set_maintenance_duty(
    p_duty text, p_schedule text DEFAULT NULL, p_enabled boolean DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('set_maintenance_duty');
    IF p_schedule !~ '^$|^every [0-9]{1,9}([.][0-9]{1,9})? (seconds|minutes|hours)$|^\s*(\S+\s+){4,5}\S+\s*$' OR length(p_schedule) > 200 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_schedule', p_schedule, 'p_schedule cannot be read',
            'Use minute hour day month weekday, such as ''30 3 * * *'', or ''every 30 seconds''.');
    END IF;
    UPDATE streamvibe.duty d
    SET schedule = CASE WHEN p_schedule IS NULL THEN d.schedule ELSE nullif(p_schedule, '') END,
        enabled = coalesce(p_enabled, d.enabled)
    WHERE d.name = p_duty;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_duty', p_duty, 'there is no such duty',
            'See which there are: SELECT duty FROM get_maintenance(). They become known when maintenance first runs.');
    END IF;
END
$$;
