-- The turn that these users' next job of these types gets (see next_turn), after their newest job of the same type that
-- waits and was due when it was asked for: what waits for its time, or for other workers, does not count.
-- The arrays are parallel. p_newest: the newest leaf begins with this id; where something of the user's waits there, what is older is
-- not looked for. p_below: leaves from this id on are empty.
-- Looked for among the user's hundred newest that wait in the newest leaf, and in all older ones.
-- Index: idx_job_queue_user_status_created, one probe per pair, and one per older leaf where that finds nothing.
-- Its parameters were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.next_turns(uuid[], text[], timestamptz, uuid);
CREATE OR REPLACE FUNCTION streamvibe.next_turns(
    p_user_ids uuid[], p_job_types text[], p_now timestamptz, p_newest uuid, p_below uuid
) RETURNS TABLE (user_id uuid, job_type text, turn integer)
    LANGUAGE sql STABLE ROWS 1000
    -- Read in the index's order, as far as wanted: where most users have few jobs the planner would rather sort all of them.
    SET enable_sort = off
AS $$
    SELECT u.user_id, u.job_type, streamvibe.next_turn(l.last_at, p_now)
    FROM unnest(p_user_ids, p_job_types) u(user_id, job_type)
    LEFT JOIN LATERAL (
        SELECT n.created_at + n.turn * interval '1 minute' AS last_at
        FROM (VALUES (p_newest, p_below), ('00000000-0000-0000-0000-000000000000', p_newest)) leaves(from_id, below_id)
        CROSS JOIN LATERAL (
            SELECT q.created_at, q.turn, q.job_type, q.scheduled_for
            FROM public.job_queue q
            WHERE q.user_id = u.user_id AND q.status = 'pending' AND q.id >= leaves.from_id AND q.id < leaves.below_id
            ORDER BY q.created_at DESC, q.id DESC LIMIT 100) n
        WHERE n.job_type = u.job_type AND n.scheduled_for <= n.created_at
        LIMIT 1) l ON true
$$;
