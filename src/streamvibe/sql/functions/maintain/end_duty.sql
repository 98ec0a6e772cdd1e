-- Record how a run of a duty ended. It is recorded also when another process leads by now.
-- p_done:  how much it did; p_error: why it failed.
-- Keeps:   the last 1,000 rows of each duty.
-- Raises:  SV001 there is no such duty, SV004.
CREATE OR REPLACE FUNCTION streamvibe.end_duty(
    p_fence bigint, p_leader_id text, p_duty text, p_started_at timestamptz, p_done bigint, p_error text
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
    v_last bigint;
BEGIN
    PERFORM streamvibe.require_service('end_duty');
    UPDATE streamvibe.duty d
    SET running_since = CASE WHEN d.running_since > p_started_at THEN d.running_since END, last_ended_at = v_now,
        last_done = p_done, last_error = left(p_error, 2000)
    WHERE d.name = p_duty;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_duty', p_duty, 'there is no such duty',
            'See which there are: SELECT name FROM streamvibe.duty.');
    END IF;
    IF p_done = 0 AND p_error IS NULL THEN
        UPDATE streamvibe.duty_run r SET ended_at = v_now, runs = r.runs + 1
        WHERE r.id = (SELECT max(l.id) FROM streamvibe.duty_run l WHERE l.duty = p_duty)
          AND r.done = 0 AND r.error IS NULL AND r.fence = p_fence AND r.runs < 1000000000;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO streamvibe.duty_run (duty, fence, leader_id, started_at, ended_at, done, error)
    VALUES (p_duty, p_fence, p_leader_id, p_started_at, v_now, p_done, left(p_error, 2000));
    v_last := (SELECT r.id FROM streamvibe.duty_run r WHERE r.duty = p_duty ORDER BY r.id DESC OFFSET 1000 LIMIT 1);
    IF v_last IS NOT NULL THEN
        DELETE FROM streamvibe.duty_run r WHERE r.duty = p_duty AND r.id <= v_last;
    END IF;
END
$$;
