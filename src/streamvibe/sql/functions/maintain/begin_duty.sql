-- Note that a duty runs from now on. Call it in a transaction of its own, before the duty.
-- Returns: when it began.
-- Raises:  SV001 there is no such duty, SV004, SV016 this process does not lead.
CREATE OR REPLACE FUNCTION streamvibe.begin_duty(p_fence bigint, p_duty text) RETURNS timestamptz
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_started_at timestamptz;
BEGIN
    PERFORM streamvibe.require_service('begin_duty');
    PERFORM streamvibe.require_leader(p_fence);
    UPDATE streamvibe.duty d SET running_since = streamvibe.now(), last_started_at = streamvibe.now()
    WHERE d.name = p_duty RETURNING d.running_since INTO v_started_at;
    IF v_started_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_duty', p_duty, 'there is no such duty',
            'See which there are: SELECT name FROM streamvibe.duty.');
    END IF;
    RETURN v_started_at;
END
$$;
