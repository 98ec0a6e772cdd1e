-- Why a job is not running: a row per reason, what must happen first at the top; none where there is no such job.
-- p_user_id: only that user's job; NULL: the caller's own, and for the service anybody's.
-- reason:  finished | running | paused | scheduled | backoff | retry_later | attempts_exhausted | at_limit | has_twin |
--          no_worker | isolated | locked | behind | next
-- ready_at: when that reason ends, where it is known (behind: estimated from what ended in the last ten minutes).
-- jobs_ahead: how many due jobs of the types that the same workers take come first, counted up to 10,000.
-- job_ids: the jobs that stand in its way: the user's live ones, or the identical one; at most 100.
-- Whether it may be claimed is asked of lock_due_jobs(), which is what claims with; that is rolled back.
-- Locks:   the job's row, for that moment: not on a standby, nor in a read-only transaction.
-- Raises:  SV004, SV006.
CREATE OR REPLACE FUNCTION public.explain_job_wait(p_job_id uuid, p_user_id uuid DEFAULT NULL)
    RETURNS TABLE (reason text, message text, ready_at timestamptz, jobs_ahead bigint, job_ids uuid[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, p_all_allowed => true);
    v_now timestamptz := streamvibe.now();
    v_below uuid := streamvibe.id_floor(v_now + interval '1 minute');
    v_job record;
    v_row public.job_queue;
    v_type streamvibe.job_type;
    v_rank bigint;
    v_workers integer;
    v_types text[];
    v_paused record;
    v_is_paused boolean := false;
    v_is_kept_out boolean;
    v_claimable boolean := false;
    v_rate double precision;
BEGIN
    PERFORM streamvibe.require_read_committed('explain_job_wait', 'Use READ COMMITTED.');
    SELECT j.* INTO v_job FROM streamvibe.job j WHERE j.id = p_job_id AND (v_user_id IS NULL OR j.user_id = v_user_id);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_type := streamvibe.known_job_type(v_job.job_type);

    IF v_job.status = 'processing' THEN
        RETURN QUERY
        SELECT 'running', 'worker ' || c.worker_id || ' has it since ' || streamvibe.in_utc(c.claimed_at), NULL::timestamptz, NULL::bigint, NULL::uuid[]
        FROM (SELECT l.worker_id, l.claimed_at FROM streamvibe.live_claims() l WHERE p_job_id = ANY (l.job_ids)
              UNION ALL SELECT v_job.worker_id, v_job.started_at LIMIT 1) c;
        RETURN;
    ELSIF v_job.status = 'failed' AND v_job.retry_at IS NOT NULL AND v_job.retry_count < v_type.max_attempts THEN
        IF v_job.retry_at > v_now THEN
            RETURN QUERY SELECT 'retry_later', 'attempt ' || v_job.retry_count || ' failed; it is tried again at ' || streamvibe.in_utc(v_job.retry_at),
                                v_job.retry_at, NULL::bigint, NULL::uuid[];
        END IF;
        RETURN QUERY
        SELECT 'has_twin', 'an identical job of the user is live; it is tried again when that has ended', NULL::timestamptz,
               NULL::bigint, ARRAY[t.id]
        FROM streamvibe.find_same_work(v_job.user_id, v_job.job_type, v_job.params, 'infinity', '-infinity', 'infinity',
                                       'ffffffff-ffff-ffff-ffff-ffffffffffff') t(id)
        WHERE t.id IS NOT NULL;
        v_is_kept_out := FOUND;
        RETURN QUERY
        SELECT 'at_limit', 'the user has as many live jobs as they may; it is tried again when one of them has ended',
               NULL::timestamptz, NULL::bigint,
               ARRAY(SELECT j.id FROM public.job_queue j
                     WHERE j.user_id = v_job.user_id AND j.status IN ('pending', 'processing') ORDER BY j.id LIMIT 100)
        FROM streamvibe.setting s
        WHERE NOT streamvibe.has_room(
            v_job.user_id, v_job.job_type,
            coalesce((SELECT a.max_live_jobs FROM streamvibe.account a WHERE a.user_id = v_job.user_id), s.default_max_live_jobs),
            v_type.max_live_jobs);
        IF NOT (FOUND OR v_is_kept_out) AND v_job.retry_at <= v_now THEN
            RETURN QUERY SELECT 'retry_later', 'its retry is due; maintenance brings it back within ten seconds', v_job.retry_at,
                                NULL::bigint, NULL::uuid[];
        END IF;
        RETURN;
    ELSIF v_job.status <> 'pending' THEN
        RETURN QUERY
        SELECT CASE WHEN v_job.status = 'failed' AND v_job.retry_count >= v_type.max_attempts AND v_job.failure_kind IN ('error', 'crash', 'timeout')
                    THEN 'attempts_exhausted' ELSE 'finished' END,
               'it is ' || v_job.status || ' since ' || streamvibe.in_utc(v_job.completed_at)
               || CASE WHEN v_job.status = 'failed' THEN ' (' || v_job.failure_kind || ')' ELSE '' END,
               NULL::timestamptz, NULL::bigint, NULL::uuid[];
        RETURN;
    END IF;

    FOR v_paused IN
        SELECT p.* FROM streamvibe.pause p
        WHERE p.kind = 'all' OR p.kind = 'job_type' AND p.name = v_job.job_type
           OR p.kind = 'user' AND p.name = v_job.user_id::text
        ORDER BY p.kind
    LOOP
        reason := 'paused';
        message := CASE v_paused.kind WHEN 'all' THEN 'everything is' WHEN 'job_type' THEN 'the job type is' ELSE 'the user is' END
                   || ' paused since ' || streamvibe.in_utc(v_paused.paused_at)
                   -- What an operator wrote is for operators.
                   || CASE WHEN streamvibe.is_service() THEN coalesce(': ' || v_paused.reason, '') ELSE '' END;
        v_is_paused := true;
        RETURN NEXT;
    END LOOP;
    IF v_job.scheduled_for > v_now THEN
        reason := CASE WHEN v_job.retry_count > 0 THEN 'backoff' ELSE 'scheduled' END;
        message := CASE WHEN v_job.retry_count > 0 THEN 'attempt ' || v_job.retry_count || ' failed; it is tried again at '
                        ELSE 'it was asked for then: ' END || streamvibe.in_utc(v_job.scheduled_for);
        ready_at := v_job.scheduled_for;
        RETURN NEXT;
    END IF;
    ready_at := NULL;
    SELECT count(*), array_agg(DISTINCT t.name) INTO v_workers, v_types
    FROM streamvibe.worker w
    CROSS JOIN LATERAL (SELECT unnest(coalesce(w.job_types, ARRAY(SELECT a.name FROM streamvibe.job_type a))) AS name) t
    WHERE w.heartbeat_at + w.lease > v_now AND (w.job_types IS NULL OR v_job.job_type = ANY (w.job_types));
    IF v_workers = 0 THEN
        reason := 'no_worker';
        message := 'no live worker takes jobs of type ' || v_job.job_type;
        RETURN NEXT;
        v_types := ARRAY[v_job.job_type];
    END IF;
    IF v_is_paused OR v_job.scheduled_for > v_now THEN
        RETURN;
    END IF;

    SELECT q.* INTO v_row FROM public.job_queue q WHERE q.id = p_job_id;
    v_rank := streamvibe.pickup_rank(v_row.job_priority, v_row.scheduled_for, v_row.created_at, v_row.turn);
    BEGIN
        v_claimable := EXISTS (
            SELECT FROM streamvibe.lock_due_jobs(ARRAY[v_job.job_type], ARRAY[v_rank], ARRAY[v_rank + 1], 1, true, '{}',
                                                 v_now, v_below, '{}', p_job_id));
        RAISE EXCEPTION 'undo';
    EXCEPTION WHEN raise_exception THEN
        NULL;  -- the locks are gone
    END;
    IF NOT v_claimable THEN
        reason := 'locked';
        message := 'an open transaction has its row locked; it is passed over until that ends';
        RETURN NEXT;
    ELSIF v_row.isolated THEN
        reason := 'isolated';
        message := 'a worker died with it: it waits until one can run it alone, for a minute at most';
        RETURN NEXT;
    END IF;
    -- Of a higher priority, whichever kind (pickup_rank); of its own priority those of its kind with a smaller rank.
    jobs_ahead := (
        SELECT count(*) FROM (
            SELECT FROM unnest(streamvibe.not_paused(v_types)) t(name)
            CROSS JOIN generate_series(v_row.job_priority::integer, 9) p(priority)
            CROSS JOIN (VALUES (0::bigint), (1::bigint << 62)) k(base)
            CROSS JOIN LATERAL (SELECT k.base + ((9 - p.priority)::bigint << 58) AS low) l
            CROSS JOIN LATERAL (
                SELECT FROM public.job_queue q
                WHERE q.job_type = t.name AND q.status = 'pending' AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= l.low
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                      < CASE WHEN p.priority > v_row.job_priority AND k.base = 0 THEN l.low + (1::bigint << 58)
                             WHEN p.priority > v_row.job_priority THEN l.low + streamvibe.microseconds(v_now)
                             WHEN v_rank >> 62 = k.base >> 62 THEN v_rank ELSE l.low END
                  AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
                  AND NOT EXISTS (SELECT FROM streamvibe.pause u WHERE u.kind = 'user' AND u.name = q.user_id::text)
                LIMIT 10000) f
            LIMIT 10000) c);
    IF jobs_ahead > 0 THEN
        v_rate := (SELECT sum(e.jobs) / 600.0
                   FROM (SELECT s.job_type, s.status, s.jobs FROM streamvibe.stat_since(streamvibe.minute_of(v_now) - interval '10 minutes') s
                         UNION ALL SELECT n.job_type, n.status, n.jobs FROM streamvibe.stat_note n
                                   WHERE n.minute >= streamvibe.minute_of(v_now) - interval '10 minutes') e
                   WHERE e.job_type = ANY (v_types) AND e.status IN ('completed', 'failed', 'cancelled'));
        reason := 'behind';
        message := 'it is behind ' || jobs_ahead || CASE WHEN jobs_ahead >= 10000 THEN ' or more' ELSE '' END || ' due jobs';
        ready_at := CASE WHEN v_rate > 0 AND v_workers > 0 THEN v_now + make_interval(secs => jobs_ahead / v_rate) END;
        RETURN NEXT;
    ELSIF v_claimable AND v_workers > 0 AND NOT v_row.isolated THEN
        reason := 'next';
        message := 'nothing: it is what a worker claims next';
        RETURN NEXT;
    END IF;
END
$$;
