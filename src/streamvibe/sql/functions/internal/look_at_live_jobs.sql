-- What a request needs to know of its user's live jobs, in one look: how many there are, how many of this type, and at
-- which time the last of this type counts as due that waits and was due when it was asked for (see next_turns).
-- No more than p_most are looked at: when jobs = p_most there may be more, and has_room() and next_turns() tell.
-- Exact while the user's lock is held. p_below: leaves from this id on are empty.
-- Index: idx_job_queue_user_active, which has the order: a plan that was made while a partition was emptied may take any other for
-- as good, and read all of it.
CREATE OR REPLACE FUNCTION streamvibe.look_at_live_jobs(
    p_user_id uuid, p_job_type text, p_most integer, p_below uuid,
    OUT jobs bigint, OUT jobs_of_type bigint, OUT last_at timestamptz
)
    LANGUAGE plpgsql
    SET enable_sort = off
AS $$
BEGIN
    SELECT count(*), count(*) FILTER (WHERE l.job_type = p_job_type),
           max(l.created_at + l.turn * interval '1 minute') FILTER (
               WHERE l.job_type = p_job_type AND l.status = 'pending' AND l.scheduled_for <= l.created_at)
    INTO jobs, jobs_of_type, last_at
    FROM (SELECT q.job_type, q.status, q.created_at, q.turn, q.scheduled_for
          FROM public.job_queue q
          WHERE q.user_id = p_user_id AND q.status IN ('pending', 'processing') AND q.id < p_below
          ORDER BY q.status
          LIMIT p_most) l;
END
$$;
