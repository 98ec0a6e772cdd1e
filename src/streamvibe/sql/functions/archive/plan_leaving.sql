-- Choose jobs that were deleted one by one to be archived together: those that a process which died had chosen, else the oldest.
-- Returns: the number of the batch; NULL when none wait.
-- Locks:   their rows in streamvibe.leaving_job (SKIP LOCKED).
-- Index:   leaving_job_batch; the primary key.
-- Raises:  SV001, SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.plan_leaving(p_fence bigint, p_limit integer DEFAULT 100000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_batch bigint;
BEGIN
    PERFORM streamvibe.require_service('plan_leaving');
    PERFORM streamvibe.require_read_committed('plan_leaving', 'Use READ COMMITTED.');
    PERFORM streamvibe.require_archiver(p_fence);
    IF (p_limit BETWEEN 1 AND 1000000) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text, 'p_limit is out of range', 'Use 1 to 1000000.');
    END IF;
    v_batch := (SELECT min(l.batch) FROM streamvibe.leaving_job l WHERE l.batch IS NOT NULL);
    IF v_batch IS NOT NULL THEN
        RETURN v_batch;
    END IF;
    v_batch := (SELECT a.last_batch + 1 FROM streamvibe.archiver a);
    UPDATE streamvibe.leaving_job l SET batch = v_batch
    WHERE l.id = ANY (ARRAY(SELECT w.id FROM streamvibe.leaving_job w ORDER BY w.id LIMIT p_limit FOR UPDATE SKIP LOCKED));
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE streamvibe.archiver a SET last_batch = v_batch;
    RETURN v_batch;
END
$$;
