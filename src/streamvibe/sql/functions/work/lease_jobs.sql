-- Turn claims that last into ordinary leases: the jobs' rows become 'processing' under this worker.
-- p_tokens, p_job_ids and p_started_at are parallel.
-- Returns: only those not leased, with their status now (cancelled, or another worker's), or 'busy': another
--          transaction has the row; the claim still holds it, so lease it again in a moment.
-- Locks:   the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.lease_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_started_at timestamptz[]
) RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_leased uuid[];
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('lease_jobs');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_started_at)]) l;
    v_now := streamvibe.now();
    WITH leased AS (
        UPDATE public.job_queue q
        SET status = 'processing', worker_id = p_worker_id, claim_token = r.token, updated_at = v_now,
            started_at = least(greatest(r.started_at, r.claimed_at), v_now)
        FROM (SELECT a.token, a.job_id, a.started_at, h.claimed_at
              FROM unnest(p_tokens, p_job_ids, p_started_at) a(token, job_id, started_at)
              JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id)
              JOIN unnest(v_mine.locked) l(job_id) USING (job_id)) r
        WHERE q.id = r.job_id AND q.status = 'pending'
        RETURNING q.id
    )
    SELECT coalesce(array_agg(l.id), '{}') INTO v_leased FROM leased l;
    RETURN QUERY
    SELECT a.job_id, CASE WHEN a.job_id = ANY (v_mine.busy) THEN 'busy' ELSE q.status END
    FROM unnest(p_job_ids) a(job_id)
    LEFT JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = a.job_id OFFSET 0) q ON true
    WHERE a.job_id NOT IN (SELECT unnest(v_leased));
END
$$;
