-- Below which rank this session need not look for claimable jobs just now. While a forgotten transaction keeps dead
-- rows from being removed, every look from the start walks over all jobs that were finished since, and beside many
-- workers over all that they hold; so after a look that took much longer than its rows explain, the next ones begin where
-- it ended, or where another's claim ended. What such a look passed over (a transaction that was asked for a job long ago
-- and commits now, a job handed back) waits for the next full look: within a second.
-- Kept in a setting of the session, because a table's rows would themselves pile up, and beside the ids of a claim.
-- Returns: seen_us, the moment of that look, and seen_rank, where it ended; NULL: look everywhere.
CREATE OR REPLACE FUNCTION streamvibe.low_water(
    p_job_types text[], p_started timestamptz, OUT seen_us bigint, OUT seen_rank bigint, OUT until_us bigint
)
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_state text[] := string_to_array(nullif(current_setting('streamvibe.low_water', true), ''), ' ');
    v_started bigint := streamvibe.microseconds(p_started);
BEGIN
    -- Not for longer than a second either when the clock was set back.
    IF v_state[1] = md5(p_job_types::text) AND v_state[2]::bigint - v_started BETWEEN 1 AND 1000000 THEN
        SELECT o.state INTO v_state
        FROM (SELECT v_state AS state UNION ALL
              SELECT string_to_array(c.low_water, ' ') FROM streamvibe.live_claims() c WHERE c.low_water IS NOT NULL) o
        WHERE o.state[1] = v_state[1] AND o.state[2]::bigint - v_started BETWEEN 1 AND 1000000
        ORDER BY o.state[4]::bigint DESC LIMIT 1;
        until_us := v_state[2];
        seen_us := v_state[3];
        seen_rank := v_state[4];
    END IF;
END
$$;
