-- Take back the jobs of workers whose lease is over, and, as the backstop, jobs that have been processing for
-- 30 minutes under a claim that no longer exists. A slow job of a live worker is left alone.
-- A worker that died holding one unfinished job: that attempt counts as a crash, and is retried or failed.
-- Holding several: nobody knows which one killed it, so no attempt counts and each runs alone next time.
-- What a worker that left could not hand back (unregister_worker) goes back as it was.
-- Jobs that were run inside transactions come back by recover_broken_claims(), which this calls first; while a dead
-- worker's transaction is still open, nobody knows whose fault its death was.
-- p_not_after: judge nobody when it is later than this already. A caller that knows what time it should be learns
--              so that the machine slept, or that this call was late: live workers could not renew their leases.
-- Returns: a row per job taken back; outcome 'isolated', 'retried', 'failed' or 'released'.
-- Locks:   the worker, its claims, then the jobs' rows in id order (all SKIP LOCKED; never waits). A worker that is
--          just finishing is left for the next run, and so is a job that another transaction has.
-- Index:   idx_job_queue_stuck_detection.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.recover_stuck_jobs(p_not_after timestamptz DEFAULT NULL)
    RETURNS TABLE (job_id uuid, worker_id text, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- Read once: what is compared with p_not_after is what leases are compared with.
    v_now timestamptz := streamvibe.now();
    v_worker record;
    v_claims bigint[];
    v_locked uuid[];
    v_held record;
BEGIN
    PERFORM streamvibe.require_service('recover_stuck_jobs');
    PERFORM streamvibe.require_read_committed('recover_stuck_jobs', 'Use READ COMMITTED.');
    IF v_now > p_not_after THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT b.* FROM public.recover_broken_claims() b;
    FOR v_worker IN
        SELECT w.id, w.left_over FROM streamvibe.worker w
        WHERE w.heartbeat_at + w.lease < v_now OR w.left_over = 'hand back'
        ORDER BY w.id FOR UPDATE SKIP LOCKED
    LOOP
        v_claims := ARRAY(SELECT c.token FROM streamvibe.claim c
                          WHERE c.worker_id = v_worker.id AND NOT c.in_transaction
                          ORDER BY c.token FOR UPDATE SKIP LOCKED);
        CONTINUE WHEN EXISTS (SELECT FROM streamvibe.claim c
                              WHERE c.worker_id = v_worker.id AND NOT c.in_transaction AND c.token <> ALL (v_claims));
        v_locked := (streamvibe.lock_jobs(ARRAY(SELECT h.job_id FROM streamvibe.held_jobs(v_worker.id, v_claims) h))).locked;
        -- Under the locks: what was cancelled meanwhile is no longer one of them.
        SELECT coalesce(array_agg(h.job_id) FILTER (WHERE h.job_id IN (SELECT unnest(v_locked))), '{}') AS ids,
               array_agg(q.job_type) FILTER (WHERE h.job_id IN (SELECT unnest(v_locked))) AS types,
               coalesce(array_agg(h.job_id) FILTER (WHERE h.job_id NOT IN (SELECT unnest(v_locked))), '{}') AS busy,
               min(h.claimed_at) AS claimed_at,
               count(*) > 1 OR EXISTS (SELECT FROM streamvibe.claim c
                                       WHERE c.worker_id = v_worker.id AND c.in_transaction) AS are_several INTO v_held
        FROM streamvibe.held_jobs(v_worker.id, v_claims) h
        CROSS JOIN LATERAL (SELECT j.status, j.job_type FROM public.job_queue j WHERE j.id = h.job_id OFFSET 0) q
        WHERE q.status IN ('pending', 'processing');
        IF v_held.are_several AND v_worker.left_over IS NULL THEN
            v_worker.left_over := 'isolate';
        END IF;
        IF v_held.busy = '{}' THEN
            DELETE FROM streamvibe.claim c WHERE c.token = ANY (v_claims);
            DELETE FROM streamvibe.worker w WHERE w.id = v_worker.id;
        ELSE
            -- They stay until their rows are free; what they then are to the others is decided now.
            PERFORM streamvibe.drop_from_claims(v_worker.id, h.tokens, h.ids, v_held.busy)
            FROM (SELECT coalesce(array_agg(h.token), '{}') AS tokens, coalesce(array_agg(h.job_id), '{}') AS ids
                  FROM streamvibe.held_jobs(v_worker.id, v_claims) h) h;
            UPDATE streamvibe.worker w SET left_over = v_worker.left_over WHERE w.id = v_worker.id;
        END IF;
        IF v_worker.left_over IS NULL THEN
            RETURN QUERY
            SELECT a.job_id, v_worker.id, CASE WHEN a.status = 'pending' THEN 'retried' ELSE 'failed' END
            FROM streamvibe.apply_failures(v_worker.id, v_held.ids, ARRAY(SELECT jsonb_build_object(
                'kind', 'crash', 'retryable', true, 'message', 'its worker died while it ran this job alone')
                FROM unnest(v_held.ids)), ARRAY[v_held.claimed_at], v_now) a;
            PERFORM streamvibe.count_recovered('crashed', v_held.types);
        ELSE
            PERFORM streamvibe.put_back(v_held.ids, v_worker.left_over = 'isolate');
            PERFORM streamvibe.count_recovered(CASE v_worker.left_over WHEN 'isolate' THEN 'isolated' ELSE 'released' END,
                                               v_held.types);
            RETURN QUERY
            SELECT u.id, v_worker.id, CASE v_worker.left_over WHEN 'isolate' THEN 'isolated' ELSE 'released' END
            FROM unnest(v_held.ids) u(id);
        END IF;
    END LOOP;

    v_locked := (streamvibe.lock_jobs(ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.status = 'processing' AND q.started_at < v_now - interval '30 minutes'
          AND NOT EXISTS (SELECT FROM streamvibe.claim c WHERE c.token = q.claim_token)))).locked;
    SELECT coalesce(array_agg(u.id), '{}') AS ids, coalesce(array_agg(q.worker_id), '{}') AS workers, array_agg(q.job_type) AS types
    INTO v_held
    FROM unnest(v_locked) u(id)
    CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    WHERE q.status = 'processing' AND NOT EXISTS (SELECT FROM streamvibe.claim c WHERE c.token = q.claim_token);
    PERFORM streamvibe.put_back(v_held.ids, true);
    PERFORM streamvibe.count_recovered('isolated', v_held.types);
    RETURN QUERY SELECT u.id, u.worker_id, 'isolated' FROM unnest(v_held.ids, v_held.workers) u(id, worker_id);
END
$$;
