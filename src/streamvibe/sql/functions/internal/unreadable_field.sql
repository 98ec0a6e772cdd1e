-- Which field of a request (see request_jobs) cannot be read as what it has to be. NULL: all can.
CREATE OR REPLACE FUNCTION streamvibe.unreadable_field(p_request jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_field text;
BEGIN
    v_field := 'priority';
    PERFORM (p_request ->> v_field)::integer;
    v_field := 'scheduled_for';
    PERFORM (p_request ->> v_field)::timestamptz;
    v_field := 'force';
    PERFORM (p_request ->> v_field)::boolean;
    v_field := 'dedupe_window';
    PERFORM (p_request ->> v_field)::interval;
    v_field := 'cache_ttl';
    PERFORM (p_request ->> v_field)::interval;
    v_field := 'enforce_limit';
    PERFORM (p_request ->> v_field)::boolean;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN v_field;
END
$$;
