-- Let the transaction that holds a claim (hold_claim) commit while jobs are left in it.
-- p_in_transaction: they are run inside the worker's next transactions, within a second; else the claim is from now on an
-- ordinary one, kept by the worker's lease, for example because another transaction has their rows.
-- Locks:  the claim.
-- Raises: SV004, SV006.
CREATE OR REPLACE FUNCTION public.keep_claim(p_worker_id text, p_token bigint, p_in_transaction boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('keep_claim');
    PERFORM streamvibe.require_read_committed('keep_claim', 'Use READ COMMITTED.');
    UPDATE streamvibe.claim c SET held = false, in_transaction = p_in_transaction
    WHERE c.token = p_token AND c.worker_id = p_worker_id AND c.held;
END
$$;
