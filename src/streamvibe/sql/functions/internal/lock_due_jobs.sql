-- Lock up to p_limit claimable jobs whose rank lies in one of the ranges (p_lows to p_highs, in rising order), the
-- smallest ranks first, walking past what others hold.
-- What may be claimed is decided here and by the ranges (pickup_order) alone: pending, due, in nobody's claim, of no user
-- who is paused; an isolated job only by a worker that can run it alone, or once it has been isolated for a minute (p_alone NULL: not even then).
-- p_only: whether this one may be claimed (explain_job_wait asks that, with a range of its rank alone).
-- p_besides: ids this transaction has locked already. p_below: leaves from this id on are empty.
-- That the status is 'pending' is kept from the planner, or it could take another index, which walks over every job of
-- other types.
-- With several types, a look without locks first tells how far p_limit jobs reach: what is locked and then not taken would
-- be hidden from another worker, which would be told that there is nothing. Where others hold all of those, the next look
-- begins behind them, and reaches further.
-- Locks: the rows it returns (SKIP LOCKED). With several types a few more, if others hold what stands before them.
-- Index: idx_job_queue_type_status.
CREATE OR REPLACE FUNCTION streamvibe.lock_due_jobs(
    p_job_types text[], p_lows bigint[], p_highs bigint[], p_limit integer, p_alone boolean, p_besides uuid[],
    p_now timestamptz, p_below uuid, p_paused_users uuid[] DEFAULT '{}',
    p_only uuid DEFAULT NULL
) RETURNS TABLE (id uuid, isolated boolean, rank bigint)
    LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    v_left integer := p_limit;
    v_reach integer := p_limit;
    v_from bigint := 0;
    v_to bigint := 9223372036854775807;
    v_count integer;
BEGIN
    LOOP
        IF cardinality(p_job_types) > 1 THEN
            v_to := (SELECT max(d.rank) + 1 FROM (
                SELECT e.rank
                FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
                CROSS JOIN LATERAL (
                    SELECT s.rank
                    FROM unnest(p_lows, p_highs) r(low, high)
                    CROSS JOIN LATERAL (
                        SELECT streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                        FROM public.job_queue q
                        WHERE q.job_type = t.name
                          AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                          AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                              >= greatest(r.low, v_from)
                          AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) < r.high
                          AND q.id < p_below
                          AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
                          AND q.id <> ALL (p_besides)
                          AND q.user_id <> ALL (p_paused_users)
                        ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                        LIMIT v_reach) s
                    LIMIT v_reach) e
                ORDER BY e.rank LIMIT v_reach) d);
            EXIT WHEN v_to IS NULL;
        END IF;
        RETURN QUERY
        SELECT d.id, d.isolated, d.rank
        FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
        CROSS JOIN LATERAL (
            SELECT e.*
            FROM unnest(p_lows, p_highs) r(low, high)
            CROSS JOIN LATERAL (
                SELECT q.id, q.isolated,
                       streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                FROM public.job_queue q
                WHERE q.job_type = t.name
                  AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= greatest(r.low, v_from)
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) < least(r.high, v_to)
                  AND q.id < p_below
                  AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
                  AND q.id <> ALL (p_besides)
                  AND q.user_id <> ALL (p_paused_users)
                  AND (p_only IS NULL OR q.id = p_only)
                  AND (p_alone OR NOT q.isolated OR p_alone IS NOT NULL AND q.updated_at < p_now - interval '1 minute')
                ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                LIMIT v_left
                FOR NO KEY UPDATE OF q SKIP LOCKED) e
            LIMIT v_left) d
        ORDER BY d.rank LIMIT v_left;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        EXIT WHEN v_count = v_left OR cardinality(p_job_types) <= 1;
        v_left := v_left - v_count;
        v_reach := CASE WHEN v_count > 0 THEN v_left ELSE 2 * v_reach END;
        v_from := v_to;
    END LOOP;
END
$$;
