-- In which order ranks (see streamvibe.pickup_rank) are looked at for claimable jobs: one row per step, each with its
-- ranges in rising order.
-- p_waited: the priorities at which jobs wait whose time has come (due_priorities). They share a priority half and half
--           with the jobs that were due when they were asked for: of a halved step half of the places are filled, then
--           the others have theirs, then what is left goes to the first again. p_odd: which kind is the first.
-- p_seen_us, p_seen_rank: what this session saw nothing claimable below at that moment, NULL when it has to look
--           everywhere (low_water).
CREATE OR REPLACE FUNCTION streamvibe.pickup_order(
    p_waited integer[], p_odd boolean, p_now timestamptz, p_seen_us bigint, p_seen_rank bigint
) RETURNS TABLE (lows bigint[], highs bigint[], halved boolean)
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_priority integer;
    v_from bigint := 0;
    v_base bigint;
    v_all constant bigint := 1::bigint << 62;
    v_now bigint := streamvibe.microseconds(p_now);
BEGIN
    halved := false;
    FOREACH v_priority IN ARRAY p_waited LOOP
        v_base := (9 - v_priority)::bigint << 58;
        lows := ARRAY[v_from];
        highs := ARRAY[v_base];
        IF v_from < v_base THEN
            RETURN NEXT;
        END IF;
        v_from := v_base + (1::bigint << 58);
        FOR v_step IN 1..3 LOOP
            lows := ARRAY[CASE WHEN (v_step = 2) <> p_odd THEN v_base ELSE v_all + v_base END];
            highs := ARRAY[CASE WHEN (v_step = 2) <> p_odd THEN v_from ELSE v_all + v_base + v_now + 1 END];
            halved := v_step = 1;
            RETURN NEXT;
        END LOOP;
    END LOOP;
    IF p_seen_rank IS NULL OR p_waited <> '{}' THEN
        lows := ARRAY[v_from];
        highs := ARRAY[v_all];
    ELSE
        -- What came since: at a higher priority anything not older than that look (and a little, for what was
        -- committed meanwhile), at its own priority what came before the last rank it reached, then all behind that.
        lows := '{}';
        highs := '{}';
        FOR v_rank IN 0..(p_seen_rank >> 58)::integer LOOP
            v_base := v_rank::bigint << 58;
            lows := lows || (v_base + p_seen_us - 100000);
            highs := highs || CASE WHEN v_rank < p_seen_rank >> 58 THEN v_base + (1::bigint << 58)
                                   ELSE least(v_base + v_now + 1, p_seen_rank) END;
        END LOOP;
        lows := lows || p_seen_rank;
        highs := highs || v_all;
    END IF;
    RETURN NEXT;
END
$$;
