-- The job that already does or did this work: the newest result that ended since p_cached_since, else the oldest live
-- job made since p_live_since. NULL when there is none.
-- A job that is wanted later than p_due is no twin: who needs the work now must not wait for it. One that waits for
-- its next attempt is: that time is not the user's wish, and trying beside it would do the work twice.
-- p_below: leaves from this id on are empty.
-- Index: idx_job_queue_identity.
CREATE OR REPLACE FUNCTION streamvibe.find_same_work(
    p_user_id uuid, p_job_type text, p_params jsonb, p_cached_since timestamptz, p_live_since timestamptz,
    p_due timestamptz, p_below uuid
) RETURNS uuid
    LANGUAGE plpgsql
AS $$
DECLARE
    v_hash bigint := streamvibe.identity_hash(p_user_id, p_job_type, p_params);
BEGIN
    RETURN (SELECT f.id FROM (
        (SELECT q.id, 1 AS kind
         FROM public.job_queue q
         WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params) = v_hash
           AND q.completed_at > p_cached_since
           AND q.status = 'completed'
           AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
           AND q.id < p_below
         ORDER BY q.completed_at DESC
         LIMIT 1)
        UNION ALL
        (SELECT q.id, 2
         FROM public.job_queue q
         WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params) = v_hash
           AND q.completed_at IS NULL
           AND q.status IN ('pending', 'processing')
           AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
           AND q.created_at >= p_live_since
           AND (q.scheduled_for <= p_due OR q.retry_count > 0 OR q.status = 'processing')
           AND q.id < p_below
         -- The same order as by id, but not one that the primary key could be read in.
         ORDER BY q.created_at, q.id
         LIMIT 1)) f
        ORDER BY f.kind LIMIT 1);
END
$$;
