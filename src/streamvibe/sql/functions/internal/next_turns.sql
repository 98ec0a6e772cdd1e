-- The turn that these users' next job of these types gets (see next_turn), after their newest jobs of the same type that
-- wait and were due when they were asked for: what waits for its time, or for other workers, does not count.
-- The arrays are parallel. p_below: leaves from this id on are empty.
-- Looked for among the user's hundred newest that wait, in the leaf that p_now is in, and where none of the type is among those, in all older
-- leaves: two of the type are enough, so that one that was asked for past the others (docs/decisions/0008-fair-share.md) hides none.
-- Index: idx_job_queue_user_status_created, one probe per pair, and one per older leaf where that finds nothing.
CREATE OR REPLACE FUNCTION streamvibe.next_turns(
    p_user_ids uuid[], p_job_types text[], p_now timestamptz, p_below uuid
) RETURNS TABLE (user_id uuid, job_type text, turn integer)
    LANGUAGE sql STABLE ROWS 1000
    -- Read in the index's order, as far as wanted: where most users have few jobs the planner would rather sort all of them.
    SET enable_sort = off
AS $$
    WITH newest AS MATERIALIZED (
        SELECT streamvibe.id_bound(max(p.lower_at)) AS from_id FROM streamvibe.partition p
        WHERE p.parent_name = 'job_queue' AND p.lower_at <= p_now
    )
    SELECT u.user_id, u.job_type, streamvibe.next_turn(l.last_at, p_now)
    FROM unnest(p_user_ids, p_job_types) u(user_id, job_type)
    LEFT JOIN LATERAL (
        SELECT w.last_at
        FROM (VALUES ((SELECT n.from_id FROM newest n), p_below),
                     ('00000000-0000-0000-0000-000000000000', (SELECT n.from_id FROM newest n))) leaves(from_id, below_id)
        CROSS JOIN LATERAL (
            SELECT max(m.last_at) AS last_at
            FROM (SELECT n.created_at + n.turn * interval '1 minute' AS last_at
                  FROM (SELECT q.created_at, q.turn, q.job_type, q.scheduled_for
                        FROM public.job_queue q
                        WHERE q.user_id = u.user_id AND q.status = 'pending' AND q.id >= leaves.from_id AND q.id < leaves.below_id
                        ORDER BY q.created_at DESC, q.id DESC LIMIT 100) n
                  WHERE n.job_type = u.job_type AND n.scheduled_for <= n.created_at
                  LIMIT 2) m) w
        WHERE w.last_at IS NOT NULL
        LIMIT 1) l ON true
$$;
