-- A time as people read it, whatever the session's time zone: 2030-01-31 18:00:00Z. NULL for NULL.
CREATE OR REPLACE FUNCTION streamvibe.in_utc(p_at timestamptz) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN isfinite(p_at) THEN to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') ELSE p_at::text END
$$;
