-- The priorities at which pending jobs exist, highest first: per type when p_job_types is given, else over all.
-- One index probe per priority found and one more, however many jobs there are.
-- Index: idx_job_queue_pending_pickup, idx_job_queue_type_status.
CREATE OR REPLACE FUNCTION streamvibe.due_priorities(p_job_types text[], p_below uuid)
    RETURNS TABLE (job_priority smallint, job_types text[])
    LANGUAGE plpgsql VOLATILE ROWS 3
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_priority smallint := 10;
BEGIN
    IF p_job_types IS NULL THEN
        LOOP
            SELECT q.job_priority INTO v_priority FROM public.job_queue q
            WHERE q.status = 'pending' AND q.job_priority < v_priority AND q.id < p_below
            ORDER BY q.job_priority DESC LIMIT 1;
            EXIT WHEN NOT FOUND;
            job_priority := v_priority;
            RETURN NEXT;
        END LOOP;
    ELSE
        RETURN QUERY
        -- That the status is 'pending' is kept from the planner: see lock_due_jobs.
        WITH RECURSIVE present AS (
            SELECT t.name, t.status,
                   (SELECT q.job_priority FROM public.job_queue q
                    WHERE q.job_type = t.name AND q.status = t.status AND q.id < p_below
                      AND q.status IN ('pending', 'processing', 'failed')
                    ORDER BY q.job_priority DESC LIMIT 1) AS job_priority
            FROM (SELECT DISTINCT u.name, u.status
                  FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)]))
                       u(name, status)) t
            UNION ALL
            SELECT p.name, p.status,
                   (SELECT q.job_priority FROM public.job_queue q
                    WHERE q.job_type = p.name AND q.status = p.status AND q.id < p_below
                      AND q.status IN ('pending', 'processing', 'failed')
                      AND q.job_priority < p.job_priority
                    ORDER BY q.job_priority DESC LIMIT 1)
            FROM present p WHERE p.job_priority IS NOT NULL
        )
        SELECT p.job_priority, array_agg(p.name) FROM present p
        WHERE p.job_priority IS NOT NULL
        GROUP BY p.job_priority ORDER BY p.job_priority DESC;
    END IF;
END
$$;
