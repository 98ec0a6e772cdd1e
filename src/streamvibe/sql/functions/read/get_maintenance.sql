-- Every duty: when it runs, whether it runs now, and how its last run ended. The leader's columns are the same in each row.
-- Returns: a row per duty that a process has made known; state: 'running', 'failed', 'done', 'disabled' or 'new'.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_maintenance()
    RETURNS TABLE (
        duty text, state text, schedule text, enabled boolean, running_since timestamptz, last_started_at timestamptz,
        last_ended_at timestamptz, last_done bigint, last_error text, leader_id text, led_since timestamptz,
        leader_is_alive boolean
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('get_maintenance');
    RETURN QUERY
    SELECT d.name,
           CASE WHEN d.running_since IS NOT NULL AND l.expires_at >= streamvibe.now() THEN 'running'
                WHEN NOT d.enabled THEN 'disabled' WHEN d.last_error IS NOT NULL THEN 'failed'
                WHEN d.last_ended_at IS NOT NULL THEN 'done' ELSE 'new' END,
           coalesce(d.schedule, d.usual_schedule), d.enabled, d.running_since, d.last_started_at, d.last_ended_at,
           d.last_done, d.last_error, l.leader_id, l.led_since, l.leader_id IS NOT NULL AND l.expires_at >= streamvibe.now()
    FROM streamvibe.duty d CROSS JOIN streamvibe.leader l
    ORDER BY d.name;
END
$$;
