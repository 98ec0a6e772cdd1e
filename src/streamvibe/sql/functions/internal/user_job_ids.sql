-- A user's jobs with these filters, in the order of their creation (which is that of their ids), between p_from and p_below (without it).
-- Each status that a row can have is a range of idx_job_queue_user_status_created, of which at most p_offset + p_limit
-- entries with these filters are read: that is all that a list without a status costs more than one with.
-- A job that a worker holds is processing, though its row says pending.
-- It returned another column once.
DROP FUNCTION IF EXISTS streamvibe.user_job_ids(uuid, text, text, uuid, uuid, integer, integer, boolean);
CREATE OR REPLACE FUNCTION streamvibe.user_job_ids(
    p_user_id uuid, p_status text, p_job_type text, p_from uuid, p_below uuid, p_limit integer,
    p_offset integer DEFAULT 0, p_newest_first boolean DEFAULT true
) RETURNS TABLE (id uuid, completed_at timestamptz, job_priority smallint)
    LANGUAGE plpgsql STABLE ROWS 50
    -- The bounds of the id look selective to a plan that does not know them, and the primary key better than the index
    -- that has the order.
    SET enable_sort = off
AS $$
#variable_conflict use_column
DECLARE
    v_statuses text[] := streamvibe.stored_statuses(p_status);
    v_held uuid[];
    v_from uuid := coalesce(p_from, '00000000-0000-0000-0000-000000000000');
    -- Later partitions are empty, and are left out; a day, because clocks may be set back.
    v_below uuid := coalesce(p_below, streamvibe.id_bound(streamvibe.now() + interval '1 day'));
    -- created_at is the id's time: it bounds what is read of the index, the id which partitions.
    v_first timestamptz := streamvibe.id_time(v_from);
    v_last timestamptz := streamvibe.id_time(v_below);
BEGIN
    IF p_status IN ('pending', 'processing') THEN
        v_held := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    END IF;
    IF p_newest_first THEN
        RETURN QUERY
        SELECT f.id, f.completed_at, f.job_priority
        FROM unnest(v_statuses) s(status)
        CROSS JOIN LATERAL (
            SELECT q.created_at, q.id, q.completed_at, q.job_priority FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status AND q.id >= v_from AND q.id < v_below
              AND q.created_at >= v_first AND q.created_at <= v_last
              AND (p_job_type IS NULL OR q.job_type = p_job_type)
              AND (v_held IS NULL OR q.status <> 'pending' OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing'))
            ORDER BY q.created_at DESC, q.id DESC LIMIT p_offset + p_limit) f
        ORDER BY f.created_at DESC, f.id DESC LIMIT p_limit OFFSET p_offset;
    ELSE
        RETURN QUERY
        SELECT f.id, f.completed_at, f.job_priority
        FROM unnest(v_statuses) s(status)
        CROSS JOIN LATERAL (
            SELECT q.created_at, q.id, q.completed_at, q.job_priority FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status AND q.id >= v_from AND q.id < v_below
              AND q.created_at >= v_first AND q.created_at <= v_last
              AND (p_job_type IS NULL OR q.job_type = p_job_type)
              AND (v_held IS NULL OR q.status <> 'pending' OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing'))
            ORDER BY q.created_at, q.id LIMIT p_offset + p_limit) f
        ORDER BY f.created_at, f.id LIMIT p_limit OFFSET p_offset;
    END IF;
END
$$;
