-- The turn that each of these users' next job gets: see next_turn().
-- p_below: leaves from this id on are empty.
-- Index: idx_job_queue_user_status_created, one probe per user.
CREATE OR REPLACE FUNCTION streamvibe.next_turns(p_user_ids uuid[], p_now timestamptz, p_below uuid)
    RETURNS TABLE (user_id uuid, turn integer)
    LANGUAGE sql STABLE ROWS 1000
AS $$
    SELECT u.user_id, streamvibe.next_turn(l.last_at, p_now)
    FROM unnest(p_user_ids) u(user_id)
    LEFT JOIN LATERAL (
        SELECT q.created_at + q.turn * interval '1 minute' AS last_at
        FROM public.job_queue q
        WHERE q.user_id = u.user_id AND q.status = 'pending' AND q.id < p_below
        ORDER BY q.created_at DESC, q.id DESC LIMIT 1) l ON true
$$;
