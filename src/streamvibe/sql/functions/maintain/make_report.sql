-- Make the report of the last whole week (from Monday on) or month, in UTC, unless it is there. Both are added up from the
-- figures of single days ('daily'), which are made first, of the last seven days where one is missing: jobs leave, their figures
-- stay. A period that was over before the schema was there has none.
-- Returns: whether one was made. Called twice, or by two at once, one is made.
-- Keeps:   the figures of days for 100 days, weekly reports for 2 years, monthly ones for 10.
-- Reads:   as get_index_bloat(): with pgstattuple all of every index.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.make_report(p_kind text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_now CONSTANT timestamptz := streamvibe.now();
    v_unit CONSTANT text := streamvibe.report_unit(p_kind);
    v_to CONSTANT timestamptz := date_trunc(v_unit, v_now, 'UTC');
    v_from CONSTANT timestamptz := date_trunc(v_unit, v_to - interval '1 hour', 'UTC');
    v_today CONSTANT timestamptz := date_trunc('day', v_now, 'UTC');
    v_installed_at timestamptz;
    v_before streamvibe.report;
    v_days integer;
    v_made integer := 0;
BEGIN
    PERFORM streamvibe.require_service('make_report');
    v_installed_at := (SELECT min(m.applied_at) FROM streamvibe.schema_migration m);
    INSERT INTO streamvibe.report (kind, period_start, period_end, made_at, content)
    SELECT 'daily', d.day, d.day + interval '24 hours', v_now, streamvibe.day_figures(d.day)
    FROM (SELECT v_today - n * interval '24 hours' AS day FROM generate_series(1, 7) n) d
    WHERE d.day + interval '24 hours' > v_installed_at
      AND NOT EXISTS (SELECT FROM streamvibe.report r WHERE r.kind = 'daily' AND r.period_start = d.day)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_days = ROW_COUNT;
    IF p_kind <> 'daily' AND v_to > v_installed_at
       AND NOT EXISTS (SELECT FROM streamvibe.report r WHERE r.kind = p_kind AND r.period_start = v_from) THEN
        SELECT r.* INTO v_before FROM streamvibe.report r
        WHERE r.kind = p_kind AND r.period_start < v_from ORDER BY r.period_start DESC LIMIT 1;
        INSERT INTO streamvibe.report (kind, period_start, period_end, made_at, content)
        VALUES (p_kind, v_from, v_to, v_now,
                streamvibe.report_content(v_from, v_to, v_before.content)
                || jsonb_build_object('compared_with', v_before.period_start))
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_made = ROW_COUNT;
    END IF;
    DELETE FROM streamvibe.report r
    USING (VALUES ('daily', interval '100 days'), ('weekly', '2 years'), ('monthly', '10 years')) k(kind, age)
    WHERE r.kind = k.kind AND r.period_end < v_now - k.age;
    RETURN CASE WHEN p_kind = 'daily' THEN v_days ELSE v_made END > 0;
END
$$;
