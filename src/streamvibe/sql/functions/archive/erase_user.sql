-- Erase what the queue has of a user, in batches: jobs that were asked for before the first call, with their params and results, their
-- log lines and idempotency keys, and, when nothing newer is there, the user's own limit and pause. Live jobs are cancelled first.
-- Call it, each time in a transaction of its own, until it says 'done', or 'archive': then `streamvibe jobs erase`, or the duty
-- archive, erases the user from the archive. It goes on where a call that failed, or a process that died, ended.
-- What the user asks for while it runs is not refused, and stays. p_anew: also what was asked for since an erasure began that has
-- not ended; for the first call. After 'archive' the next call begins anew.
-- Returns: one row. state: 'working': call again; 'waiting': workers still run jobs of the user, which are cancelled (running has
--          their ids), or, with none running, a transaction that began to write before the first call has not ended: it may have made
--          jobs; wait a moment and call again; 'archive', 'done'. jobs, lines: erased by this call.
-- Locks:   rows of streamvibe.partition, so that no leaf is sealed, counted or dropped meanwhile (while one is being counted it
--          waits); the user's; the rows that it deletes.
-- Index:   idx_job_queue_user_active, idx_job_queue_user_status_created, idx_job_log_user_time; streamvibe.leaving_job is read
--          whole, once.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.erase_user(p_user_id uuid, p_limit integer DEFAULT 1000, p_anew boolean DEFAULT false)
    RETURNS TABLE (state text, jobs integer, lines integer, running uuid[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_erasure streamvibe.erasure;
    v_before uuid;
    v_writing text[];
    v_ids uuid[];
    v_keys integer;
BEGIN
    PERFORM streamvibe.require_service('erase_user');
    PERFORM streamvibe.require_read_committed('erase_user', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    IF p_user_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_user_id', NULL, 'p_user_id is missing', 'Name the user to erase.');
    END IF;
    jobs := 0;
    lines := 0;
    running := '{}';
    -- Before any other table, as drop_partition() does; a leaf's row before the leaf. While a leaf is counted this waits, and so
    -- it comes before the user's lock. The open leaves first: what is not sealed then is not sealed before this has ended.
    LOCK TABLE streamvibe.partition IN ROW EXCLUSIVE MODE;
    PERFORM FROM streamvibe.partition p WHERE p.sealed_at IS NULL ORDER BY p.parent_name, p.lower_at FOR KEY SHARE;
    PERFORM FROM streamvibe.partition p WHERE p.sealed_at IS NOT NULL ORDER BY p.parent_name, p.lower_at FOR UPDATE;

    PERFORM streamvibe.lock_account(p_user_id);
    v_before := streamvibe.id_bound(streamvibe.now() + interval '1 millisecond');
    -- Whoever asks for a job takes the user's lock, but for bulk creation: what writes now is waited for. Looked for before the jobs
    -- are: they are seen once their transaction is gone from here.
    v_writing := ARRAY(
        SELECT DISTINCT l.virtualtransaction FROM pg_locks l
        WHERE l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
          AND l.relation IN ('public.job_queue'::regclass, 'streamvibe.staging'::regclass) AND l.mode = 'RowExclusiveLock'
          AND l.pid IS DISTINCT FROM pg_backend_pid());
    INSERT INTO streamvibe.erasure AS e (user_id, begun_at, before_id, beside)
    VALUES (p_user_id, streamvibe.now(), v_before, v_writing)
    ON CONFLICT (user_id) DO UPDATE
    SET begun_at = excluded.begun_at, before_id = excluded.before_id, beside = excluded.beside, left_queue_at = NULL
    WHERE p_anew OR e.left_queue_at IS NOT NULL;
    SELECT e.* INTO v_erasure FROM streamvibe.erasure e WHERE e.user_id = p_user_id;

    v_ids := ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.user_id = p_user_id AND q.status IN ('pending', 'processing') AND q.id < v_erasure.before_id LIMIT p_limit);
    v_ids := v_ids || ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.user_id = p_user_id AND q.status = 'failed' AND q.retry_at IS NOT NULL AND q.id < v_erasure.before_id
        LIMIT p_limit - cardinality(v_ids));
    IF cardinality(v_ids) > 0 THEN
        PERFORM FROM public.cancel_jobs(p_user_id, v_ids);
        state := 'working';
        RETURN NEXT;
        RETURN;
    END IF;

    running := ARRAY(
        SELECT h.id FROM (SELECT unnest(c.job_ids) AS id FROM streamvibe.live_claims() c) h
        CROSS JOIN LATERAL (SELECT FROM public.job_queue q WHERE q.id = h.id AND q.user_id = p_user_id OFFSET 0) q
        WHERE h.id < v_erasure.before_id ORDER BY h.id);
    -- Locked, so that cleanup_old_jobs() does not take them out of the statistics as well.
    v_ids := ARRAY(
        SELECT f.id FROM unnest('{completed,failed,cancelled}'::text[]) s(status)
        CROSS JOIN LATERAL (
            SELECT q.id FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status AND q.id < v_erasure.before_id AND q.id <> ALL (running)
            LIMIT p_limit FOR UPDATE) f
        LIMIT p_limit);
    PERFORM streamvibe.open_leaves('job_queue', v_ids);
    jobs := streamvibe.remove_jobs(v_ids, false);

    v_ids := ARRAY(
        SELECT l.id FROM public.job_log l
        WHERE l.user_id = p_user_id AND least(l.job_id, l.id) < v_erasure.before_id AND l.job_id <> ALL (running) LIMIT p_limit);
    PERFORM streamvibe.open_leaves('job_log', v_ids);
    DELETE FROM public.job_log l WHERE l.id = ANY (v_ids);
    lines := cardinality(v_ids);

    DELETE FROM streamvibe.idempotency i
    WHERE i.ctid = ANY (ARRAY(SELECT k.ctid FROM streamvibe.idempotency k
                              WHERE k.user_id = p_user_id AND k.job_id < v_erasure.before_id LIMIT p_limit));
    GET DIAGNOSTICS v_keys = ROW_COUNT;
    IF jobs > 0 OR lines > 0 OR v_keys > 0 THEN
        state := 'working';
        RETURN NEXT;
        RETURN;
    ELSIF cardinality(running) > 0 OR v_erasure.beside && v_writing THEN
        state := 'waiting';
        RETURN NEXT;
        RETURN;
    END IF;

    DELETE FROM streamvibe.leaving_job l WHERE l.user_id = p_user_id AND l.id < v_erasure.before_id;
    GET DIAGNOSTICS jobs = ROW_COUNT;
    IF NOT EXISTS (SELECT FROM unnest('{pending,processing,completed,failed,cancelled}'::text[]) s(status)
                   CROSS JOIN LATERAL (SELECT FROM public.job_queue q WHERE q.user_id = p_user_id AND q.status = s.status LIMIT 1) f) THEN
        DELETE FROM streamvibe.account a WHERE a.user_id = p_user_id;
        DELETE FROM streamvibe.pause p WHERE p.kind = 'user' AND p.name = p_user_id::text;
    END IF;
    IF EXISTS (SELECT FROM streamvibe.archive_file) THEN
        UPDATE streamvibe.erasure e SET left_queue_at = coalesce(e.left_queue_at, streamvibe.now()) WHERE e.user_id = p_user_id;
        state := 'archive';
    ELSE
        DELETE FROM streamvibe.erasure e WHERE e.user_id = p_user_id;
        state := 'done';
    END IF;
    RETURN NEXT;
END
$$;
