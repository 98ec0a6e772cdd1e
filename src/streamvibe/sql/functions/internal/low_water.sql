-- Below which rank this session need not look for claimable jobs just now. While a forgotten transaction keeps dead
-- rows from being removed, every look from the start walks over all jobs that were finished since; so after a look that
-- took much longer than its rows explain, the next ones begin where it ended. What such a look passed over (a
-- transaction that was asked for a job long ago and commits now) waits for the next full look: within a second.
-- Kept in a setting of the session, because a table's rows would themselves pile up.
-- Returns: seen_us, the moment of that look, and seen_rank, where it ended; NULL: look everywhere.
CREATE OR REPLACE FUNCTION streamvibe.low_water(
    p_job_types text[], p_started timestamptz, OUT seen_us bigint, OUT seen_rank bigint, OUT until_us bigint
)
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_state text[] := string_to_array(nullif(current_setting('streamvibe.low_water', true), ''), ' ');
BEGIN
    -- Not for longer than a second either when the clock was set back.
    IF v_state[1] = md5(p_job_types::text)
       AND v_state[2]::bigint - streamvibe.microseconds(p_started) BETWEEN 1 AND 1000000 THEN
        until_us := v_state[2];
        seen_us := v_state[3];
        seen_rank := v_state[4];
    END IF;
END
$$;
