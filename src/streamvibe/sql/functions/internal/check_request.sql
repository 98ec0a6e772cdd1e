-- Refuse a request that could never become a job. Used for single and bulk requests alike.
-- p_prefix stands before the field's name in the error: 'p_' for parameters, 'p_jobs[3].' for bulk.
-- Raises: SV001 a field is missing or out of range; SV003 params too large.
CREATE OR REPLACE FUNCTION streamvibe.check_request(
    p_prefix text, p_user_id uuid, p_params jsonb, p_max_params_bytes integer, p_priority integer,
    p_scheduled_for timestamptz
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    -- Written out at once only where it cannot become gigabytes: see below.
    -- (|| because a stored value may be compressed.)
    v_bytes integer := CASE WHEN pg_column_size(p_params || '{}') < 1000 THEN octet_length(p_params::text) END;
BEGIN
    IF p_user_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'user_id', NULL, 'user_id is missing',
            'Name the user the job belongs to.');
    -- A number of more than 300 digits or a nest of 250 levels does not fit into 300 bytes.
    ELSIF v_bytes >= 300 OR v_bytes IS NULL THEN
        IF streamvibe.has_wild_number(p_params) THEN
            PERFORM streamvibe.raise_error('SV001', p_prefix || 'params', 'a number beyond 1e308 or nearer to 0 than 1e-307',
                'params hold a number out of range', 'Send such numbers as text.');
        ELSIF jsonb_path_exists(p_params, '$.**{251}') THEN
            PERFORM streamvibe.raise_error('SV001', p_prefix || 'params', 'more than 250 levels',
                'params are nested too deeply', 'Flatten them.');
        END IF;
        v_bytes := octet_length(p_params::text);
    END IF;
    IF p_params IS NULL OR jsonb_typeof(p_params) <> 'object' THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'params', left(p_params::text, 200),
            'params is not a JSON object', 'Pass an object such as {"key": "value"}, or {}.');
    ELSIF v_bytes > p_max_params_bytes THEN
        PERFORM streamvibe.raise_error('SV003', p_prefix || 'params', v_bytes || ' bytes', 'params are too large',
            'Keep them within ' || p_max_params_bytes || ' bytes (pass a reference instead of the data), '
            || 'or register the type with a larger p_max_params_bytes.');
    ELSIF p_priority NOT BETWEEN 0 AND 9 THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'priority', p_priority::text,
            'priority is out of range', 'Use 0 to 9; higher runs first.');
    ELSIF NOT isfinite(p_scheduled_for) OR p_scheduled_for > '9999-01-01' THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'scheduled_for', p_scheduled_for::text,
            'scheduled_for is out of range', 'Use a time before the year 9999, or NULL for now.');
    END IF;
END
$$;
