-- Begin the transaction in which a claim's jobs run (claim_jobs with p_in_transaction): their handlers' writes, what
-- complete_jobs(), fail_jobs(), release_jobs() and append_job_logs() write of them, and nothing else's.
-- Until it commits nobody takes the jobs away; if it ends in any other way, recover_broken_claims() gives them to others.
-- It cannot commit while jobs are left in the claim, unless keep_claim() says what becomes of them.
-- Returns: false when the claim is gone: run nothing then.
-- Locks:   the claim, until the transaction ends. Not the jobs: cancelling one never waits for its handler.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.hold_claim(p_worker_id text, p_token bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('hold_claim');
    PERFORM streamvibe.require_read_committed('hold_claim', 'Use READ COMMITTED.');
    UPDATE streamvibe.claim c SET held = true
    WHERE c.token = p_token AND c.worker_id = p_worker_id AND c.in_transaction;
    RETURN FOUND;
END
$$;
