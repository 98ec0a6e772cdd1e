-- The id a cursor stands for; NULL for a NULL cursor.
-- Raises: SV014 broken, forged, or made for another filter or user.
CREATE OR REPLACE FUNCTION streamvibe.read_cursor(p_cursor text, p_filter text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id uuid;
BEGIN
    IF p_cursor IS NULL THEN
        RETURN NULL;
    END IF;
    IF p_cursor ~ '^v1[A-Za-z0-9_-]{28}$' THEN
        v_id := encode(substring(decode(translate(substr(p_cursor, 3), '-_', '+/'), 'base64') FROM 1 FOR 16),
                       'hex')::uuid;
        IF streamvibe.cursor_of(v_id, p_filter) = p_cursor THEN
            RETURN v_id;
        END IF;
    END IF;
    PERFORM streamvibe.raise_error('SV014', 'p_cursor', p_cursor,
        'p_cursor is broken, or was made for another list',
        'Pass next_cursor of the page before, unchanged and with the same filters, or NULL for the first page.');
    RETURN NULL;
END
$$;
