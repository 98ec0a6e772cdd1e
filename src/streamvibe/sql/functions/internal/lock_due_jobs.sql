-- Lock up to p_limit claimable jobs of one priority, longest due first, walking past what others hold.
-- What may be claimed is decided here and nowhere else: pending, due, in nobody's claim; an isolated job only
-- by a worker that can run it alone, or once it has been isolated for a minute (p_alone NULL: not even then).
-- Locks: the rows it returns (SKIP LOCKED); with several types up to p_limit of each.
-- Index: idx_job_queue_pending_pickup, or idx_job_queue_type_status when p_job_types is given.
CREATE OR REPLACE FUNCTION streamvibe.lock_due_jobs(
    p_priority smallint, p_job_types text[], p_limit integer, p_alone boolean, p_now timestamptz, p_below uuid
) RETURNS TABLE (id uuid, isolated boolean)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF p_job_types IS NULL THEN
        RETURN QUERY
        SELECT q.id, q.isolated
        FROM public.job_queue q
        WHERE q.status = 'pending' AND q.job_priority = p_priority AND q.scheduled_for <= p_now
          AND q.id < p_below
          AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.claim c)
          AND (p_alone OR NOT q.isolated OR p_alone IS NOT NULL AND q.updated_at < p_now - interval '1 minute')
        ORDER BY q.scheduled_for, q.id
        LIMIT p_limit
        FOR NO KEY UPDATE OF q SKIP LOCKED;
    ELSE
        RETURN QUERY
        SELECT d.id, d.isolated
        -- That the status is 'pending' is kept from the planner, or it could take the other index, which walks
        -- over every job of other types.
        FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
        CROSS JOIN LATERAL (
            SELECT q.id, q.isolated, q.scheduled_for
            FROM public.job_queue q
            WHERE q.job_type = t.name
              AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
              AND q.job_priority = p_priority AND q.scheduled_for <= p_now
              AND q.id < p_below
              AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.claim c)
              AND (p_alone OR NOT q.isolated OR p_alone IS NOT NULL AND q.updated_at < p_now - interval '1 minute')
            ORDER BY q.scheduled_for, q.id
            LIMIT p_limit
            FOR NO KEY UPDATE OF q SKIP LOCKED
        ) d
        ORDER BY d.scheduled_for, d.id
        LIMIT p_limit;
    END IF;
END
$$;
