-- Take back the jobs of workers whose lease is over, and, as the backstop, jobs that have been processing for
-- 30 minutes under a claim that no longer exists. A slow job of a live worker is left alone.
-- A worker that died holding one unfinished job: that attempt counts as a crash, and is retried or failed.
-- Holding several: nobody knows which one killed it, so no attempt counts and each runs alone next time.
-- Returns: a row per job taken back; outcome 'isolated', 'retried' or 'failed'.
-- Locks:   the worker, its claims, then the jobs' rows in id order (all SKIP LOCKED; never waits): a worker that is
--          just finishing, or of whose jobs another transaction has one, is left for the next run.
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
    v_held record;
BEGIN
    PERFORM streamvibe.require_service('recover_stuck_jobs');
    PERFORM streamvibe.require_read_committed('recover_stuck_jobs', 'Use READ COMMITTED.');
    FOR v_worker_id IN
        SELECT w.id FROM streamvibe.worker w WHERE w.heartbeat_at + w.lease < v_now
        ORDER BY w.id FOR UPDATE SKIP LOCKED
    LOOP
        v_claims := ARRAY(SELECT c.token FROM streamvibe.claim c WHERE c.worker_id = v_worker_id
                          ORDER BY c.token FOR UPDATE SKIP LOCKED);
        SELECT coalesce(array_agg(q.id), '{}') AS ids, min(h.claimed_at) AS claimed_at INTO v_held
        FROM streamvibe.held_jobs(v_worker_id, v_claims) h JOIN public.job_queue q ON q.id = h.job_id
        WHERE q.status IN ('pending', 'processing');
        v_ids := streamvibe.lock_jobs(v_held.ids);
        -- All of it or nothing: how many it held decides what its death means for each.
        CONTINUE WHEN cardinality(v_ids) < cardinality(v_held.ids)
                   OR EXISTS (SELECT FROM streamvibe.claim c
                              WHERE c.worker_id = v_worker_id AND c.token <> ALL (v_claims));
        DELETE FROM streamvibe.claim c WHERE c.token = ANY (v_claims);
        DELETE FROM streamvibe.worker w WHERE w.id = v_worker_id;
        IF cardinality(v_ids) = 1 THEN
            RETURN QUERY
            SELECT a.job_id, v_worker_id, CASE WHEN a.status = 'pending' THEN 'retried' ELSE 'failed' END
            FROM streamvibe.apply_failures(v_worker_id, v_ids, ARRAY[jsonb_build_object(
                'kind', 'crash', 'retryable', true, 'message', 'its worker died while it ran this job alone')],
                ARRAY[v_held.claimed_at], v_now) a;
        ELSE
            PERFORM streamvibe.put_back(v_ids, true);
            RETURN QUERY SELECT u.id, v_worker_id, 'isolated' FROM unnest(v_ids) u(id);
        END IF;
    END LOOP;

    v_ids := streamvibe.lock_jobs(ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.status = 'processing' AND q.started_at < v_now - interval '30 minutes'
          AND NOT EXISTS (SELECT FROM streamvibe.claim c WHERE c.token = q.claim_token)));
    RETURN QUERY SELECT q.id, q.worker_id, 'isolated'
                 FROM public.job_queue q JOIN unnest(v_ids) u(id) ON q.id = u.id;
    PERFORM streamvibe.put_back(v_ids, true);
END
$$;
