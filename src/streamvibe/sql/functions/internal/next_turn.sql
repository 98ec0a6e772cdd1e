-- The turn of a job asked for at p_now whose user's last waiting job counts as due at p_last_at: a minute after that.
-- The turn is what lies between, in minutes: 0 when nothing of the user's waits. See streamvibe.pickup_rank().
CREATE OR REPLACE FUNCTION streamvibe.next_turn(p_last_at timestamptz, p_now timestamptz) RETURNS integer
    -- Not IMMUTABLE: adding an interval is only STABLE, and a function that says more than its body is not inlined.
    LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN p_last_at + interval '1 minute' > p_now
                THEN least(ceil(date_part('epoch', p_last_at - p_now) / 60) + 1, 1000000000)::integer
                ELSE 0 END
$$;
