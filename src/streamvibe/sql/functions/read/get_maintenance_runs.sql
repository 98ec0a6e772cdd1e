-- What maintenance did, newest first. Runs in a row that had nothing to do are one row (runs).
-- p_duty: of this one only. p_limit: 1 to 1000.
-- Raises: SV001, SV004.
CREATE OR REPLACE FUNCTION public.get_maintenance_runs(p_duty text DEFAULT NULL, p_limit integer DEFAULT 50)
    RETURNS TABLE (
        duty text, started_at timestamptz, ended_at timestamptz, runs integer, done bigint, error text, leader_id text,
        fence bigint
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('get_maintenance_runs');
    PERFORM streamvibe.check_page(p_limit, NULL);
    RETURN QUERY
    SELECT r.duty, r.started_at, r.ended_at, r.runs, r.done, r.error, r.leader_id, r.fence
    FROM streamvibe.duty_run r
    WHERE p_duty IS NULL OR r.duty = p_duty
    ORDER BY r.id DESC LIMIT p_limit;
END
$$;
