-- The oldest live job of the same user, type and params made since p_since; NULL when there is none.
-- A job that is wanted later than p_due is no twin: who needs the work now must not wait for it. One that waits for
-- its next attempt is: that time is not the user's wish, and trying beside it would do the work twice.
-- Index: idx_job_queue_identity.
CREATE OR REPLACE FUNCTION streamvibe.find_live_twin(
    p_user_id uuid, p_job_type text, p_params jsonb, p_since timestamptz, p_due timestamptz
) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT q.id
        FROM public.job_queue q
        WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params)
                  = streamvibe.identity_hash(p_user_id, p_job_type, p_params)
          AND q.completed_at IS NULL
          AND q.status IN ('pending', 'processing')
          AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
          AND (q.scheduled_for <= p_due OR q.retry_count > 0 OR q.status = 'processing')
          AND q.id >= streamvibe.id_floor(p_since)
        -- The same order as by id, but not one that the primary key could be read in.
        ORDER BY q.created_at, q.id
        LIMIT 1);
END
$$;
