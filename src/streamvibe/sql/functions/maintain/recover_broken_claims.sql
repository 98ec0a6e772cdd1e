-- Take back the jobs of claims whose transaction (hold_claim) is over without having ended them: its process died, its
-- connection was lost, or the server restarted. The locks are gone with the transaction, so nothing has to run out.
-- A claim that is held is left alone, however long; one that is younger than a second is not held yet, perhaps.
-- A job that ran alone because it was isolated: that attempt counts as a crash, and is retried or failed. Else nobody
-- knows whose fault it was: no attempt counts, and each job runs alone next time.
-- Returns: a row per job taken back; outcome 'isolated', 'retried' or 'failed'.
-- Locks:   the worker, the claim, then the jobs' rows in id order (all SKIP LOCKED; never waits). A job that another
--          transaction has stays for the next run.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.recover_broken_claims() RETURNS TABLE (job_id uuid, worker_id text, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_broken record;
    v_claim streamvibe.claim;
    v_locked uuid[];
    v_held record;
BEGIN
    PERFORM streamvibe.require_service('recover_broken_claims');
    PERFORM streamvibe.require_read_committed('recover_broken_claims', 'Use READ COMMITTED.');
    FOR v_broken IN
        SELECT c.token, c.worker_id FROM streamvibe.live_claims() c
        WHERE c.in_transaction AND c.claimed_at < v_now - interval '1 second'
        ORDER BY c.worker_id, c.token
    LOOP
        PERFORM FROM streamvibe.worker w WHERE w.id = v_broken.worker_id FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND AND EXISTS (SELECT FROM streamvibe.worker w WHERE w.id = v_broken.worker_id);
        SELECT c.* INTO v_claim FROM streamvibe.claim c
        WHERE c.token = v_broken.token AND c.in_transaction FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        v_locked := (streamvibe.lock_jobs(v_claim.job_ids)).locked;
        -- Under the locks: what was cancelled meanwhile is no longer one of them.
        SELECT coalesce(array_agg(u.id) FILTER (WHERE u.id IN (SELECT unnest(v_locked))), '{}') AS ids,
               array_agg(q.job_type) FILTER (WHERE u.id IN (SELECT unnest(v_locked))) AS types,
               coalesce(array_agg(u.id) FILTER (WHERE u.id NOT IN (SELECT unnest(v_locked))), '{}') AS busy,
               coalesce(bool_and(q.isolated), false) AND count(*) = 1 AS was_alone INTO v_held
        FROM unnest(v_claim.job_ids) u(id)
        CROSS JOIN LATERAL (SELECT j.status, j.isolated, j.job_type FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
        WHERE q.status IN ('pending', 'processing');
        IF v_held.busy = '{}' THEN
            DELETE FROM streamvibe.claim c WHERE c.token = v_claim.token;
        ELSE
            UPDATE streamvibe.claim c SET job_ids = v_held.busy WHERE c.token = v_claim.token;
        END IF;
        CONTINUE WHEN v_held.ids = '{}';
        -- If its process died, what else it held did not run alone. Its next heartbeat proves that it did not.
        UPDATE streamvibe.worker w SET left_over = 'isolate'
        WHERE w.id = v_claim.worker_id AND w.left_over IS NULL;
        IF v_held.was_alone THEN
            RETURN QUERY
            SELECT a.job_id, v_claim.worker_id, CASE WHEN a.status = 'pending' THEN 'retried' ELSE 'failed' END
            FROM streamvibe.apply_failures(v_claim.worker_id, v_held.ids, ARRAY[jsonb_build_object(
                'kind', 'crash', 'retryable', true, 'message', 'its transaction broke while it ran alone')],
                ARRAY[v_claim.claimed_at], v_now) a;
            PERFORM streamvibe.count_recovered('crashed', v_held.types);
        ELSE
            PERFORM streamvibe.put_back(v_held.ids, true);
            PERFORM streamvibe.count_recovered('isolated', v_held.types);
            RETURN QUERY SELECT u.id, v_claim.worker_id, 'isolated' FROM unnest(v_held.ids) u(id);
        END IF;
    END LOOP;
END
$$;
