-- Turn claims that last into ordinary leases: the jobs' rows become 'processing' under this worker.
-- p_tokens, p_job_ids and p_started_at are parallel.
-- Returns: only the refused ones, with their status now (cancelled, or another worker's).
-- Locks:   the claims, then the jobs' rows in id order.
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
BEGIN
    PERFORM streamvibe.require_service('lease_jobs');
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens, ARRAY[cardinality(p_job_ids), cardinality(p_started_at)]);
    PERFORM streamvibe.lock_jobs(p_job_ids);
    v_now := streamvibe.now();
    WITH leased AS (
        UPDATE public.job_queue q
        SET status = 'processing', worker_id = p_worker_id, claim_token = r.token, updated_at = v_now,
            started_at = least(greatest(r.started_at, r.claimed_at), v_now)
        FROM (SELECT a.token, a.job_id, a.started_at, h.claimed_at
              FROM unnest(p_tokens, p_job_ids, p_started_at) a(token, job_id, started_at)
              JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id)
              ORDER BY a.job_id) r
        WHERE q.id = r.job_id AND q.status = 'pending'
        RETURNING q.id
    )
    SELECT coalesce(array_agg(l.id), '{}') INTO v_leased FROM leased l;
    RETURN QUERY
    SELECT a.job_id, q.status
    FROM unnest(p_job_ids) a(job_id) LEFT JOIN public.job_queue q ON q.id = a.job_id
    WHERE a.job_id NOT IN (SELECT unnest(v_leased));
END
$$;
