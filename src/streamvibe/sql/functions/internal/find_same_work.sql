-- The job that already does or did this work: the newest result that ended since p_cached_since, else a live job made since
-- p_live_since (the oldest of a hundred). NULL when there is none.
-- A job that is wanted later than p_due is no twin: who needs the work now must not wait for it. One that waits for
-- its next attempt is: that time is not the user's wish, and trying beside it would do the work twice. But one that waits so
-- long for it that it failed meanwhile (see decision 0004) is not live: the same work asked for again is a new job.
-- p_below: leaves from this id on are empty.
-- Index: idx_job_queue_identity, a hundred live jobs at most; where none of so many will do, what the user asked for since
-- p_live_since (idx_job_queue_user_status_created). The sort orders and coalesce keep the planner from other indexes.
CREATE OR REPLACE FUNCTION streamvibe.find_same_work(
    p_user_id uuid, p_job_type text, p_params jsonb, p_cached_since timestamptz, p_live_since timestamptz,
    p_due timestamptz, p_below uuid
) RETURNS uuid
    LANGUAGE plpgsql
    -- Read in the index's order, as far as wanted: where the planner believes that hardly any twin is there, it would rather sort
    -- all of them.
    SET enable_sort = off
AS $$
DECLARE
    v_hash bigint := streamvibe.identity_hash(p_user_id, p_job_type, p_params);
    v_found record;
BEGIN
    SELECT f.id, f.kind INTO v_found FROM (
        (SELECT q.id, 1 AS kind
         FROM public.job_queue q
         WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params) = v_hash
           AND q.completed_at > p_cached_since
           AND coalesce(q.status, '') = 'completed'
           AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
           AND q.id < p_below
         ORDER BY q.completed_at DESC
         LIMIT 1)
        UNION ALL
        (SELECT (array_agg(l.id ORDER BY l.id) FILTER (WHERE l.is_twin))[1], 2
         FROM (SELECT q.id, q.created_at >= p_live_since
                      AND (q.scheduled_for <= p_due OR q.retry_count > 0 OR q.status = 'processing') AS is_twin
               FROM public.job_queue q
               WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params) = v_hash
                 AND q.completed_at IS NULL
                 AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
                 AND q.id < p_below
               ORDER BY q.completed_at DESC
               LIMIT 100) l
         HAVING bool_or(l.is_twin) OR count(*) = 100)) f
    ORDER BY f.kind LIMIT 1;
    IF v_found.kind = 2 AND v_found.id IS NULL THEN
        RETURN (SELECT l.id
            FROM unnest(ARRAY['pending', 'processing']) s(status)
            CROSS JOIN LATERAL (
                SELECT q.id
                FROM public.job_queue q
                WHERE q.user_id = p_user_id AND q.status = s.status
                  AND q.created_at >= p_live_since
                  AND q.job_type = p_job_type AND q.params = p_params
                  AND (q.scheduled_for <= p_due OR q.retry_count > 0 OR q.status = 'processing')
                  AND q.id < p_below
                ORDER BY q.created_at DESC, q.id DESC
                LIMIT 1) l
            LIMIT 1);
    END IF;
    RETURN v_found.id;
END
$$;
