-- The priorities at which jobs of these types wait whose time has come after they were asked for (scheduled ones and
-- retries), highest first. Usually there are none, which one probe per type tells.
-- (That the status is 'pending' is kept from the planner: see lock_due_jobs.)
-- Index: idx_job_queue_type_status.
CREATE OR REPLACE FUNCTION streamvibe.due_priorities(p_job_types text[], p_now timestamptz, p_below uuid)
    RETURNS integer[]
    LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    v_found integer[] := '{}';
    v_rank bigint := 1::bigint << 62;
    v_priority integer;
BEGIN
    LOOP
        v_rank := (SELECT min(d.rank)
            FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
            CROSS JOIN LATERAL (
                SELECT streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                FROM public.job_queue q
                WHERE q.job_type = t.name
                  AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= v_rank
                  AND q.id < p_below
                ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                LIMIT 1) d);
        EXIT WHEN v_rank IS NULL;
        v_priority := 9 - ((v_rank >> 58) & 15);
        IF v_rank <= streamvibe.pickup_rank(v_priority::smallint, p_now, '-infinity', 0) THEN
            v_found := v_found || v_priority;
        END IF;
        EXIT WHEN v_priority = 0;
        v_rank := (1::bigint << 62) + ((10 - v_priority)::bigint << 58);
    END LOOP;
    RETURN v_found;
END
$$;
