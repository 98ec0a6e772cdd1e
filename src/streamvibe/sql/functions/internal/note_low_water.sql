-- Remember how far a look for claimable jobs got, if looking from the start costs much: see low_water().
-- p_low_water: what the look began with. p_started: when, by the server's clock; p_now: by the queue's.
-- p_rows: how many it found, which was all it wanted. p_last_rank: the last of them.
-- Returns: what a claim says of it to other sessions; NULL: nothing.
CREATE OR REPLACE FUNCTION streamvibe.note_low_water(
    p_low_water record, p_job_types text[], p_started timestamptz, p_now timestamptz, p_rows integer,
    p_last_rank bigint
) RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    -- Beyond what its rows take: what it walked over in vain.
    v_wasted bigint := streamvibe.microseconds(clock_timestamp()) - streamvibe.microseconds(p_started) - 15 * p_rows;
    v_until bigint := p_low_water.until_us;
BEGIN
    IF p_low_water.seen_rank IS NULL THEN
        -- A large batch behind thousands of dead rows, a small one behind tens of thousands.
        IF v_wasted < (CASE WHEN p_rows >= 100 THEN 1000 ELSE 5000 END) THEN
            RETURN NULL;
        END IF;
        -- So that full looks waste a fiftieth of the time at most.
        v_until := streamvibe.microseconds(p_started) + least(50 * v_wasted, 1000000);
    ELSIF p_last_rank < p_low_water.seen_rank THEN
        -- It got all it wanted from what came since: not one step further.
        RETURN NULL;
    END IF;
    RETURN set_config('streamvibe.low_water',
        concat_ws(' ', md5(p_job_types::text), v_until, streamvibe.microseconds(p_now),
                  p_last_rank),
        false);
END
$$;
