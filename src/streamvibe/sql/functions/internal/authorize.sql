-- Decide for which user a call acts: the one place where that is decided.
-- A user (auth.uid()) acts for themselves; p_user_id may be left NULL or be their own id.
-- The service acts for whom it names; NULL means all users, where p_all_allowed says so.
-- Returns: the user's id; NULL only for the service, and only where p_all_allowed.
-- Raises:  SV004 another user's id, or nobody is signed in; SV001 the service named no user.
CREATE OR REPLACE FUNCTION streamvibe.authorize(p_user_id uuid, p_all_allowed boolean DEFAULT false)
    RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_caller uuid;
BEGIN
    IF streamvibe.is_service() THEN
        IF p_user_id IS NULL AND NOT p_all_allowed THEN
            PERFORM streamvibe.raise_error('SV001', 'p_user_id', NULL, 'p_user_id is missing',
                'Name the user this call acts for.');
        END IF;
        RETURN p_user_id;
    END IF;
    BEGIN
        v_caller := auth.uid();
    EXCEPTION
        -- No JSON, or a "sub" that is no UUID; auth.uid() may be the platform's own.
        WHEN data_exception THEN
            PERFORM streamvibe.raise_error('SV004', 'request.jwt.claims', current_setting('request.jwt.claims', true),
                'the token''s claims cannot be read',
                'Set request.jwt.claims to a JSON object whose "sub" is the user''s id, a UUID.');
    END;
    IF v_caller IS NULL THEN
        PERFORM streamvibe.raise_error('SV004', 'request.jwt.claims',
            'no "sub"', 'nobody is signed in',
            'Set request.jwt.claims to a token whose "sub" is the user''s id.');
    ELSIF p_user_id IS DISTINCT FROM v_caller AND p_user_id IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV004', 'p_user_id', p_user_id::text,
            'p_user_id is another user''s id', 'Pass auth.uid(), or call as service_role.');
    END IF;
    RETURN v_caller;
END
$$;
