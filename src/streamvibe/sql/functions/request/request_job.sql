-- Ask for a job: answer from the cache, join the identical live one, or create it; all in one atomic step.
-- Returns: one row. outcome 'cached' (result and result_age filled), 'joined' (an identical live job, or the
--          job that this idempotency key means), or 'created'.
-- A live job that is wanted later than p_scheduled_for (now) is not joined.
-- p_force passes the cache. p_dedupe_window '0' never joins. NULL means what the job type says.
-- p_traceparent: the W3C trace context of who asks. It is kept with a new job, and claimed with it; what cannot be read is
--          passed over. When it is given, traceparent is that of the job joined or found in the cache.
-- Only the service may raise the priority above the type's own or switch the limit off.
-- Locks:   the user's row in streamvibe.account, until the transaction ends. Other users never wait.
-- Index:   idx_job_queue_identity, idx_job_queue_user_active. Every statement here costs more to start than to run, so
--          there are few, and their plans are kept. For a user with few live jobs one look at them is all it takes.
-- Raises:  SV001 bad argument, SV002 unknown type, SV003 params too large, SV004 another user,
--          SV005 the user's limit, SV006 isolation level, SV009 partition missing, SV012 idempotency key reused.
-- Its parameters or columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS public.request_job(uuid, text, jsonb, integer, timestamptz, boolean, text, interval, interval, boolean);
CREATE OR REPLACE FUNCTION public.request_job(
    p_user_id uuid,
    p_job_type text,
    p_params jsonb DEFAULT '{}',
    p_priority integer DEFAULT NULL,
    p_scheduled_for timestamptz DEFAULT NULL,
    p_force boolean DEFAULT false,
    p_idempotency_key text DEFAULT NULL,
    p_dedupe_window interval DEFAULT NULL,
    p_cache_ttl interval DEFAULT NULL,
    p_enforce_limit boolean DEFAULT true,
    p_traceparent text DEFAULT NULL
) RETURNS TABLE (
    outcome text, job_id uuid, status text, result jsonb, result_age interval, traceparent text
)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_service boolean := streamvibe.is_service();
    v_user_id uuid := p_user_id;
    v_now timestamptz := streamvibe.now();
    v_type record;
    v_max_live integer;
    v_due timestamptz;
    v_found record;
    v_live record;
    v_most integer;
    v_room boolean;
    v_id uuid;
    v_turn integer := 0;
BEGIN
    IF NOT v_service OR p_user_id IS NULL THEN
        v_user_id := streamvibe.authorize(p_user_id);
    END IF;
    -- What the statement can work out is not worked out after it: each expression is made ready anew in every transaction.
    SELECT t.max_params_bytes, t.max_live_jobs, t.expires_after, t.priority AS usual_priority,
           coalesce(p_priority, t.priority) AS priority,
           coalesce(p_dedupe_window, t.dedupe_window) AS dedupe_window,
           CASE WHEN p_force THEN '0' ELSE coalesce(p_cache_ttl, t.cache_ttl) END AS cache_ttl,
           s.default_max_live_jobs, l.leaf_number, l.lower_at AS leaf_lower_at, l.upper_at AS leaf_upper_at, l.upper_id AS below
    INTO v_type
    FROM streamvibe.job_type t CROSS JOIN streamvibe.setting s
    -- Later leaves are empty, and not even opened. An hour more allows for clocks that differ.
    LEFT JOIN LATERAL (SELECT p.* FROM streamvibe.partition p
                       WHERE p.parent_name = 'job_queue' AND p.lower_at <= v_now + interval '1 hour'
                       ORDER BY p.lower_at DESC LIMIT 1) l ON true
    WHERE t.name = p_job_type;
    IF NOT FOUND THEN
        PERFORM streamvibe.known_job_type(p_job_type);
    END IF;
    PERFORM streamvibe.check_request('p_', v_user_id, p_params, v_type.max_params_bytes, v_type.priority, p_scheduled_for);
    IF p_dedupe_window IS NOT NULL OR p_cache_ttl IS NOT NULL THEN
        PERFORM streamvibe.check_window('p_dedupe_window', p_dedupe_window);
        PERFORM streamvibe.check_window('p_cache_ttl', p_cache_ttl);
    END IF;
    IF NOT v_service THEN
        IF v_type.priority > v_type.usual_priority THEN
            PERFORM streamvibe.raise_error('SV004', 'p_priority', p_priority::text,
                'only the service may raise a job''s priority',
                'Use at most ' || v_type.usual_priority || ', the priority of ' || p_job_type || ', or leave it out.');
        ELSIF p_enforce_limit IS NOT TRUE THEN
            PERFORM streamvibe.raise_error('SV004', 'p_enforce_limit', p_enforce_limit::text,
                'only the service may switch the limit off', 'Leave p_enforce_limit out.');
        ELSIF p_scheduled_for > v_now + interval '1 year' THEN
            PERFORM streamvibe.raise_error('SV001', 'p_scheduled_for', p_scheduled_for::text,
                'p_scheduled_for is more than a year away', 'Use a time within a year; the service may use any.');
        END IF;
    END IF;
    IF p_idempotency_key IS NOT NULL AND length(p_idempotency_key) NOT BETWEEN 1 AND 255 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_idempotency_key', p_idempotency_key,
            'p_idempotency_key has the wrong length', 'Use 1 to 255 characters, or leave it out.');
    END IF;

    IF v_type.cache_ttl > '0' OR v_type.dedupe_window > '0' OR p_enforce_limit OR p_idempotency_key IS NOT NULL THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            PERFORM streamvibe.require_read_committed('request_job',
                'Use READ COMMITTED; or switch the promises off: p_force := true, p_dedupe_window := ''0'', '
                || 'p_enforce_limit := false, and no p_idempotency_key.');
        END IF;
        v_max_live := streamvibe.lock_account(v_user_id, v_type.default_max_live_jobs);
        v_now := streamvibe.now();
    END IF;
    v_due := greatest(p_scheduled_for, v_now);

    IF p_idempotency_key IS NOT NULL THEN
        SELECT j.id, j.status, j.result, j.completed_at, j.job_type, j.params INTO v_found
        FROM streamvibe.idempotency i JOIN streamvibe.job j ON j.id = i.job_id
        WHERE i.user_id = v_user_id AND i.idempotency_key = p_idempotency_key;
        IF FOUND THEN
            IF v_found.job_type <> p_job_type OR v_found.params <> p_params THEN
                PERFORM streamvibe.raise_error('SV012', 'p_idempotency_key', p_idempotency_key,
                    'p_idempotency_key was used for another request',
                    'Use a new key, or repeat the request of job ' || v_found.id || ' exactly.');
            END IF;
            v_id := v_found.id;
        END IF;
    END IF;
    IF v_id IS NULL AND (v_type.cache_ttl > '0' OR v_type.dedupe_window > '0') THEN
        v_id := streamvibe.find_same_work(v_user_id, p_job_type, p_params,
            CASE WHEN v_type.cache_ttl > '0' THEN v_now - v_type.cache_ttl ELSE 'infinity' END,
            CASE WHEN v_type.dedupe_window > '0' THEN v_now - v_type.dedupe_window ELSE 'infinity' END, v_due, v_type.below);
        IF v_id IS NOT NULL THEN
            SELECT j.id, j.status, j.result, j.completed_at INTO v_found FROM streamvibe.job j WHERE j.id = v_id;
        END IF;
    END IF;
    IF v_id IS NOT NULL THEN
        PERFORM streamvibe.remember_key(v_user_id, p_idempotency_key, v_id);
        job_id := v_id;
        status := v_found.status;
        outcome := 'joined';
        IF status = 'completed' THEN
            outcome := 'cached';
            result := v_found.result;
            result_age := v_now - v_found.completed_at;
        END IF;
        IF p_traceparent IS NOT NULL THEN
            traceparent := (SELECT q.traceparent FROM public.job_queue q WHERE q.id = v_id);
        END IF;
        INSERT INTO streamvibe.counter_note (name, job_type, detail, value) VALUES ('asked', p_job_type, outcome, 1);
        RETURN NEXT;
        RETURN;
    END IF;

    -- In a serializable transaction looking at the user's other jobs would make such transactions fail each other.
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        v_most := least(v_max_live, 20);
        SELECT l.* INTO v_live FROM streamvibe.look_at_live_jobs(v_user_id, p_job_type, v_most, v_type.below) l;
        IF v_live.jobs < v_most THEN
            v_room := (v_live.jobs_of_type < v_type.max_live_jobs) IS NOT FALSE;
            v_turn := streamvibe.next_turn(v_live.last_at, v_now);
        ELSE
            v_room := NOT p_enforce_limit OR streamvibe.has_room(
                v_user_id, p_job_type, v_max_live, v_type.max_live_jobs, v_type.below);
            v_turn := (SELECT n.turn FROM streamvibe.next_turns(
                           ARRAY[v_user_id], ARRAY[p_job_type], v_now, v_type.below) n);
        END IF;
    END IF;
    IF p_enforce_limit AND NOT v_room THEN
        PERFORM streamvibe.raise_error('SV005', 'p_user_id', v_user_id::text,
            'the user has as many live jobs as they may',
            'Wait until one of them is finished, or cancel one. At most ' || v_max_live || ' in all'
            || coalesce(' and ' || v_type.max_live_jobs || ' of ' || p_job_type, '')
            || ' may be live; the service can raise a user''s limit: SELECT set_user_limit('''
            || v_user_id || ''', ' || least(v_max_live, 2147483637) + 10 || ')');
    END IF;

    v_id := streamvibe.new_id();
    v_now := streamvibe.id_time(v_id);
    v_due := greatest(p_scheduled_for, v_now);
    IF (v_now >= v_type.leaf_lower_at AND v_now < v_type.leaf_upper_at) IS NOT TRUE THEN
        v_type.leaf_number := streamvibe.require_partition('job_queue', v_now);
    END IF;
    INSERT INTO public.job_queue
        (id, created_at, user_id, job_type, params, job_priority, scheduled_for, expires_at, updated_at, turn,
         idempotency_key, traceparent)
    VALUES (v_id, v_now, v_user_id, p_job_type, p_params, v_type.priority, v_due, v_due + v_type.expires_after, v_now,
            v_turn, p_idempotency_key,
            CASE WHEN p_traceparent IS NOT NULL THEN streamvibe.readable_traceparent(p_traceparent) END);
    INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs)
    VALUES (v_type.leaf_number, p_job_type, 'pending', streamvibe.minute_of(v_now), 1);
    IF p_idempotency_key IS NOT NULL THEN
        PERFORM streamvibe.remember_key(v_user_id, p_idempotency_key, v_id);
    END IF;
    IF v_due = v_now THEN
        PERFORM streamvibe.wake_workers(p_job_type);
    END IF;
    outcome := 'created';
    job_id := v_id;
    status := 'pending';
    RETURN NEXT;
END
$$;
