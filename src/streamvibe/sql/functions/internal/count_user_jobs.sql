-- How many jobs of a user have these filters, created from p_from on and before p_end; p_most when there are as many or more.
-- Without a type it is counted in idx_job_queue_user_status_created alone.
CREATE OR REPLACE FUNCTION streamvibe.count_user_jobs(
    p_user_id uuid, p_status text, p_job_type text, p_from timestamptz, p_end timestamptz, p_most bigint
) RETURNS bigint
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_statuses text[] := streamvibe.stored_statuses(p_status);
    v_held uuid[];
    v_from timestamptz := coalesce(p_from, '-infinity');
    v_end timestamptz := coalesce(p_end, 'infinity');
BEGIN
    IF p_status IN ('pending', 'processing') THEN
        v_held := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    END IF;
    IF p_job_type IS NULL THEN
        RETURN (SELECT count(*) FROM (
            SELECT FROM unnest(v_statuses) s(status)
            CROSS JOIN LATERAL (
                SELECT FROM public.job_queue q
                WHERE q.user_id = p_user_id AND q.status = s.status
                  AND q.created_at >= v_from AND q.created_at < v_end
                  AND (v_held IS NULL OR q.status <> 'pending'
                       OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing')) OFFSET 0) f
            LIMIT p_most) c);
    END IF;
    RETURN (SELECT count(*) FROM (
        SELECT FROM unnest(v_statuses) s(status)
        CROSS JOIN LATERAL (
            SELECT FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status
              AND q.created_at >= v_from AND q.created_at < v_end AND q.job_type = p_job_type
              AND (v_held IS NULL OR q.status <> 'pending'
                   OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing')) OFFSET 0) f
        LIMIT p_most) c);
END
$$;
