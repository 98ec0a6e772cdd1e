-- Make these duties known, with the schedules that they usually have; what an operator changed stays.
-- Returns: a row for each of them: its schedule, whether it is to run, when it last began, and what time it is.
-- Raises:  SV001, SV004, SV016 this process does not lead.
CREATE OR REPLACE FUNCTION streamvibe.register_duties(p_fence bigint, p_names text[], p_schedules text[])
    RETURNS TABLE (name text, schedule text, enabled boolean, last_started_at timestamptz, now timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
#variable_conflict use_column
DECLARE
    v_leader streamvibe.leader;
BEGIN
    PERFORM streamvibe.require_service('register_duties');
    v_leader := streamvibe.require_leader(p_fence);
    -- Rows that are right are not touched: an operator may have one of them in an open transaction.
    INSERT INTO streamvibe.duty (name, usual_schedule)
    SELECT u.name, u.schedule FROM unnest(p_names, p_schedules) u(name, schedule)
    WHERE NOT EXISTS (SELECT FROM streamvibe.duty d WHERE d.name = u.name)
    ON CONFLICT DO NOTHING;
    UPDATE streamvibe.duty d SET usual_schedule = u.schedule
    FROM unnest(p_names, p_schedules) u(name, schedule)
    WHERE d.name = u.name AND d.usual_schedule <> u.schedule;
    -- Whoever led before may have died in the middle of one.
    UPDATE streamvibe.duty d SET running_since = NULL WHERE d.running_since < v_leader.led_since;
    RETURN QUERY
    SELECT d.name, coalesce(d.schedule, d.usual_schedule), d.enabled, d.last_started_at, streamvibe.now()
    FROM streamvibe.duty d WHERE d.name = ANY (p_names) ORDER BY d.name;
END
$$;
