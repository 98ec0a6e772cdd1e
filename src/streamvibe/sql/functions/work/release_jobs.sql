-- Hand claimed jobs back unfinished: no attempt is counted, they are due as before, others are woken.
-- Returns: only those that were not this worker's any more, with their status now, or 'busy': another
--          transaction has the row; the claim still holds it, so hand it back again in a moment.
-- Locks:   the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.release_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[])
    RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('release_jobs');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids, '{}') l;
    PERFORM streamvibe.put_back(v_mine.locked, false);
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
    RETURN QUERY
    SELECT s.* FROM streamvibe.statuses_now(p_job_ids, v_mine.busy) s
    WHERE s.job_id NOT IN (SELECT unnest(v_mine.locked)) OR s.status IS DISTINCT FROM 'pending';
END
$$;
