-- Hand back what a live worker was granted but does not know of: the reply to its claim_jobs() was lost.
-- Not for a process that starts: a worker's id is its process's own (see heartbeat_worker), and what a dead one held is
-- recovered, which finds out whether a job killed it.
-- p_tokens: the claims it knows. Call it from where the worker claims, so that none is under way.
-- Claims whose jobs run inside transactions do not count: recover_broken_claims() finds those.
-- Returns: how many jobs were handed back; no attempt is counted. What another transaction has locked stays, and
--          is handed back by the next call.
-- Locks:   the worker's row (waits for a claim still being committed), the claims, the jobs' rows in id order.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.release_forgotten_claims(p_worker_id text, p_tokens bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_forgotten record;
BEGIN
    PERFORM streamvibe.require_service('release_forgotten_claims');
    PERFORM streamvibe.require_read_committed('release_forgotten_claims', 'Use READ COMMITTED.');
    PERFORM FROM streamvibe.worker w WHERE w.id = p_worker_id FOR UPDATE;
    SELECT coalesce(array_agg(u.token), '{}') AS tokens, coalesce(array_agg(u.id), '{}') AS job_ids INTO v_forgotten
    FROM (SELECT c.token, unnest(c.job_ids) AS id FROM streamvibe.live_claims() c
          WHERE c.worker_id = p_worker_id AND NOT c.in_transaction AND c.token <> ALL (coalesce(p_tokens, '{}'))) u;
    RETURN cardinality(v_forgotten.job_ids) - (
        SELECT count(*) FROM public.release_jobs(p_worker_id, v_forgotten.tokens, v_forgotten.job_ids) r
        WHERE r.status = 'busy');
END
$$;
