-- Hand back what a live worker was granted but does not know of: the reply to its claim_jobs() was lost.
-- p_tokens: the claims it knows. Call it from where the worker claims, so that none is under way.
-- Returns: how many jobs were handed back; no attempt is counted.
-- Locks:   the worker's row (waits for a claim still being committed), the claims, the jobs' rows in id order.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.release_forgotten_claims(p_worker_id text, p_tokens bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_count integer := 0;
    v_claim record;
BEGIN
    PERFORM streamvibe.require_service('release_forgotten_claims');
    PERFORM streamvibe.require_read_committed('release_forgotten_claims', 'Use READ COMMITTED.');
    PERFORM FROM streamvibe.worker w WHERE w.id = p_worker_id FOR UPDATE;
    FOR v_claim IN
        SELECT c.token, c.job_ids FROM streamvibe.claim c
        WHERE c.worker_id = p_worker_id AND c.token <> ALL (coalesce(p_tokens, '{}'))
    LOOP
        PERFORM public.release_jobs(
            p_worker_id, array_fill(v_claim.token, ARRAY[cardinality(v_claim.job_ids)]), v_claim.job_ids);
        v_count := v_count + cardinality(v_claim.job_ids);
    END LOOP;
    RETURN v_count;
END
$$;
