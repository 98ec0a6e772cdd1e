-- Since when the oldest job waits that could be claimed, for each of these types that has one; what workers hold waits for nothing.
-- Exact where it is next in its line (of its type and priority, streamvibe.pickup_rank) or one of the 100 oldest of its priority.
-- A user's many jobs stand behind others' newer ones: with more than that the answer may be too young, by as long as they have
-- let others go first.
-- (That the status is 'pending' is kept from the planner: see lock_due_jobs.)
-- Index: idx_job_queue_type_status, a row for each type and priority; idx_job_queue_pending_pickup.
CREATE OR REPLACE FUNCTION streamvibe.oldest_due(p_job_types text[]) RETURNS TABLE (job_type text, due_at timestamptz)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_below uuid := streamvibe.id_floor(v_now + interval '1 minute');
    v_held uuid[] := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    v_types text[] := '{}';
    v_due timestamptz[] := '{}';
    v_type text;
    v_rank bigint;
    v_first record;
BEGIN
    FOREACH v_type IN ARRAY p_job_types LOOP
        v_rank := 0;
        LOOP
            SELECT d.* INTO v_first
            FROM (VALUES (v_type, 'pending')) t(name, status)
            CROSS JOIN LATERAL (
                SELECT q.scheduled_for,
                       streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                FROM public.job_queue q
                WHERE q.job_type = t.name
                  AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= v_rank
                  AND q.id < v_below AND q.id NOT IN (SELECT unnest(v_held))
                ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                LIMIT 1) d;
            EXIT WHEN NOT FOUND;
            v_types := v_types || v_type;
            v_due := v_due || v_first.scheduled_for;
            v_rank := ((v_first.rank >> 58) + 1) << 58;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT f.job_type, min(f.scheduled_for)
    FROM (SELECT u.job_type, u.scheduled_for FROM unnest(v_types, v_due) u(job_type, scheduled_for) WHERE u.scheduled_for <= v_now
          UNION ALL
          SELECT o.job_type, o.scheduled_for
          FROM generate_series(0, 9) p(priority)
          CROSS JOIN LATERAL (
              SELECT q.job_type, q.scheduled_for FROM public.job_queue q
              WHERE q.status = 'pending' AND q.job_priority = p.priority AND q.scheduled_for <= v_now
                AND q.id < v_below AND q.id NOT IN (SELECT unnest(v_held))
              ORDER BY q.scheduled_for LIMIT 100) o
          WHERE o.job_type = ANY (p_job_types)) f
    GROUP BY f.job_type;
END
$$;
