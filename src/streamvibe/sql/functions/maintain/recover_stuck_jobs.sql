-- Take back the jobs of workers whose lease is over, and, as the backstop, jobs that have been processing for
-- 30 minutes under a claim that no longer exists. A slow job of a live worker is left alone.
-- A worker that died holding one unfinished job: that attempt counts as a crash, and is retried or failed.
-- Holding several: nobody knows which one killed it, so no attempt counts and each runs alone next time.
-- Returns: a row per job taken back; outcome 'isolated', 'retried' or 'failed'.
-- Locks:   the worker, its claims, then the jobs' rows in id order; a worker busy finishing is left for next time.
-- Index:   idx_job_queue_stuck_detection.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.recover_stuck_jobs()
    RETURNS TABLE (job_id uuid, worker_id text, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_worker_id text;
    v_claims bigint[];
    v_ids uuid[];
    v_claimed_at timestamptz;
BEGIN
    PERFORM streamvibe.require_service('recover_stuck_jobs');
    PERFORM streamvibe.require_read_committed('recover_stuck_jobs', 'Use READ COMMITTED.');
    FOR v_worker_id IN
        SELECT w.id FROM streamvibe.worker w WHERE w.heartbeat_at + w.lease < v_now
        ORDER BY w.id FOR UPDATE SKIP LOCKED
    LOOP
        v_claims := ARRAY(SELECT c.token FROM streamvibe.claim c WHERE c.worker_id = v_worker_id
                          ORDER BY c.token FOR UPDATE SKIP LOCKED);
        CONTINUE WHEN EXISTS (SELECT FROM streamvibe.claim c
                              WHERE c.worker_id = v_worker_id AND c.token <> ALL (v_claims));
        WITH gone AS (
            DELETE FROM streamvibe.claim c WHERE c.token = ANY (v_claims) RETURNING c.job_ids, c.claimed_at
        )
        SELECT coalesce(array_agg(q.id ORDER BY q.id), '{}'), min(h.claimed_at) INTO v_ids, v_claimed_at
        FROM (SELECT unnest(g.job_ids) AS id, g.claimed_at FROM gone g) h
        JOIN public.job_queue q ON q.id = h.id
        WHERE q.status IN ('pending', 'processing');
        DELETE FROM streamvibe.worker w WHERE w.id = v_worker_id;
        IF cardinality(v_ids) = 1 THEN
            RETURN QUERY
            SELECT a.job_id, v_worker_id, CASE WHEN a.status = 'pending' THEN 'retried' ELSE 'failed' END
            FROM streamvibe.apply_failures(v_worker_id, v_ids, ARRAY[jsonb_build_object('kind', 'crash', 'retryable', true,
                'message', 'worker ' || v_worker_id || ' died while it ran this job alone')],
                ARRAY[v_claimed_at], v_now) a;
        ELSE
            PERFORM streamvibe.put_back(v_ids, true);
            RETURN QUERY SELECT u.id, v_worker_id, 'isolated' FROM unnest(v_ids) u(id);
        END IF;
    END LOOP;

    v_ids := ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.status = 'processing' AND q.started_at < v_now - interval '30 minutes'
          AND NOT EXISTS (SELECT FROM streamvibe.claim c WHERE c.token = q.claim_token)
        ORDER BY q.id FOR NO KEY UPDATE SKIP LOCKED);
    RETURN QUERY SELECT q.id, q.worker_id, 'isolated'
                 FROM public.job_queue q JOIN unnest(v_ids) u(id) ON q.id = u.id;
    PERFORM streamvibe.put_back(v_ids, true);
    PERFORM streamvibe.wake_workers(t.name) FROM streamvibe.job_type t WHERE v_ids <> '{}';
END
$$;
