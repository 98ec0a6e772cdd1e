-- Raise one of the errors of class SV, with the parts that every client shows: field, value received, fix.
-- Raises: p_code, always.
CREATE OR REPLACE FUNCTION streamvibe.raise_error(
    p_code text, p_field text, p_received text, p_message text, p_fix text
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = p_code,
        MESSAGE = p_message,
        DETAIL = 'Received: ' || coalesce(left(p_received, 200), 'NULL'),
        HINT = p_fix,
        COLUMN = p_field;
END
$$;
