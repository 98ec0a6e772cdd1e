-- Refuse a JSON value that no search looks for: an empty one, which everything contains, or one of more than 10,000 bytes.
-- Raises: SV001, SV003 naming the parameter.
CREATE OR REPLACE FUNCTION streamvibe.check_contained(p_field text, p_value jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_value IN ('{}', '[]') THEN
        PERFORM streamvibe.raise_error('SV001', p_field, p_value::text, p_field || ' is empty, and everything contains it',
            'Name a key and its value, like {"channel": "UC1"}, or pass NULL.');
    ELSIF octet_length(p_value::text) > 10000 THEN
        PERFORM streamvibe.raise_error('SV003', p_field, octet_length(p_value::text) || ' bytes',
            p_field || ' is too long to search for', 'Use the keys that matter, 10,000 bytes at most.');
    END IF;
END
$$;
