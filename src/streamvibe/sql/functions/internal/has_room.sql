-- Whether a user may have one more live job, in all and of this type. Exact while the user's lock is held.
-- Counts no further than the limit, so its cost does not grow with the user's backlog.
-- p_below: leaves from this id on are empty.
-- Index: idx_job_queue_user_status_created, idx_job_queue_user_active, which have the orders: see look_at_live_jobs.
CREATE OR REPLACE FUNCTION streamvibe.has_room(
    p_user_id uuid, p_job_type text, p_max_live_jobs integer, p_max_live_jobs_of_type integer,
    p_below uuid DEFAULT 'ffffffff-ffff-ffff-ffff-ffffffffffff'
) RETURNS boolean
    LANGUAGE plpgsql
    SET enable_sort = off
AS $$
BEGIN
    RETURN (SELECT (SELECT count(*) FROM (
                    SELECT FROM unnest(ARRAY['pending', 'processing']) s(status)
                    CROSS JOIN LATERAL (SELECT FROM public.job_queue q
                    WHERE q.user_id = p_user_id AND q.status = s.status AND q.id < p_below
                    ORDER BY q.created_at DESC, q.id DESC LIMIT p_max_live_jobs) l LIMIT p_max_live_jobs) live) < p_max_live_jobs
           AND (p_max_live_jobs_of_type IS NULL
                OR (SELECT count(*) FROM (
                        SELECT FROM public.job_queue q
                        WHERE q.user_id = p_user_id AND q.status IN ('pending', 'processing')
                          AND q.job_type = p_job_type
                        ORDER BY q.status LIMIT p_max_live_jobs_of_type) live) < p_max_live_jobs_of_type));
END
$$;
