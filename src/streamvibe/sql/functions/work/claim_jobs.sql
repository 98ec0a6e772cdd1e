-- Claim up to p_limit due jobs for one worker. No job row is written: the ids go into one new claim, under
-- whose token alone the jobs can be finished.
-- p_job_types NULL: any type. p_alone: whether the worker could run an isolated job by itself just now; NULL: not even
-- one that has been isolated for a minute.
-- p_in_transaction: the jobs are run inside a transaction that takes the claim with hold_claim(), within a second; only
--          jobs of the types that this worker always claims in this way.
-- Nothing that is paused (pause_jobs) is claimed.
-- Returns: 0..p_limit rows, highest priority first, then longest due, with a fair share for every user
--          (streamvibe.pickup_rank); all with the same token. An isolated job comes as the only row, and must run
--          alone in its process: it may be what killed the last one.
-- traceparent: the W3C trace context of who asked for the job, if it came with one.
-- Locks:   the worker's row (waits while the worker's own release_forgotten_claims() or recovery has it), then the jobs'
--          rows (SKIP LOCKED: no open transaction that has some of them is waited for); until commit.
-- Index:   idx_job_queue_type_status; the plans are pinned by
--          tests/sql/functions/test_claim_jobs.py.
-- Raises:  SV001, SV004, SV006, SV010 worker unknown or its lease over.
-- Its parameters or columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS public.claim_jobs(text, integer, text[], boolean, boolean);
CREATE OR REPLACE FUNCTION public.claim_jobs(
    p_worker_id text, p_limit integer DEFAULT 1, p_job_types text[] DEFAULT NULL, p_alone boolean DEFAULT true,
    p_in_transaction boolean DEFAULT false
) RETURNS TABLE (
    token bigint, job_id uuid, user_id uuid, job_type text, params jsonb, attempt integer, max_attempts integer,
    timeout interval, isolated boolean, scheduled_for timestamptz, created_at timestamptz,
    traceparent text
)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- A plan made while the queue was empty lives on in its session when a million jobs have come since: these
    -- leave the planner nothing but the index and lookups by id. (On 15 a plan without choice looks so dear
    -- that it would be compiled, hence jit.)
    SET enable_seqscan = off
    SET enable_bitmapscan = off
    SET jit = off
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_started timestamptz;
    v_now timestamptz := streamvibe.now();
    -- Leaves of the future are never looked at; a minute more allows for another server's clock.
    v_below uuid := streamvibe.id_floor(v_now + interval '1 minute');
    v_types text[];
    v_paused_users uuid[] := '{}';
    v_worker record;
    v_waited integer[];
    v_seen record;
    v_step record;
    v_limit integer;
    v_found record;
    v_ids uuid[];
    v_last bigint;
    v_odd boolean := false;
    v_passed_over boolean := false;
    v_before pg_snapshot;
    v_found_all boolean;
    v_low_water text;
    v_token bigint;
BEGIN
    PERFORM streamvibe.require_service('claim_jobs');
    PERFORM streamvibe.require_read_committed('claim_jobs', 'Use READ COMMITTED.');
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text, 'p_limit is out of range',
            'Claim 1 to 10000 jobs at once.');
    END IF;
    -- A key share lock lets the worker's own heartbeat pass, and keeps recovery from burying it meanwhile.
    SELECT w.asleep, w.transactions_asleep, w.transaction_types, EXISTS (SELECT FROM streamvibe.pause) AS anything_paused
    INTO v_worker FROM streamvibe.worker w
    WHERE w.id = p_worker_id AND w.heartbeat_at + w.lease > v_now FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV010', 'p_worker_id', p_worker_id,
            'worker is unknown, or its lease is over', 'Call heartbeat_worker(p_worker_id) first.');
    END IF;
    v_now := streamvibe.now();
    v_types := CASE WHEN p_job_types IS NULL THEN ARRAY(SELECT t.name FROM streamvibe.job_type t)
                    ELSE ARRAY(SELECT DISTINCT u.name FROM unnest(p_job_types) u(name)) END;
    IF v_worker.anything_paused THEN
        v_types := streamvibe.not_paused(v_types);
        v_paused_users := ARRAY(SELECT p.name::uuid FROM streamvibe.pause p WHERE p.kind = 'user');
    END IF;
    v_waited := streamvibe.due_priorities(v_types, v_now, v_below);
    IF v_waited <> '{}' THEN
        -- Which kind comes first changes from claim to claim of a session.
        v_odd := coalesce(current_setting('streamvibe.odd_claim', true), '') <> 'on';
        PERFORM set_config('streamvibe.odd_claim', CASE WHEN v_odd THEN 'on' ELSE 'off' END, false);
    END IF;
    v_started := clock_timestamp();

    -- Another worker may commit its claim between this look and the locks: its rows are then free to lock and
    -- not in the list this look saw. So the lists that came since are read once the locks are held, and what they name
    -- is let go; when nothing is left, look again with fresh eyes.
    FOR v_try IN 1..5 LOOP
        v_ids := '{}';
        v_last := NULL;
        v_before := pg_current_snapshot();
        v_seen := streamvibe.low_water(v_types, v_started);
        <<steps>>
        FOR v_step IN
            SELECT o.* FROM streamvibe.pickup_order(v_waited, v_odd, v_now, v_seen.seen_us, v_seen.seen_rank) o
        LOOP
            v_limit := p_limit - cardinality(v_ids);
            IF v_step.halved THEN
                v_limit := v_limit / 2;
                CONTINUE WHEN v_limit = 0;
            END IF;
            FOR v_found IN
                SELECT d.* FROM streamvibe.lock_due_jobs(
                    v_types, v_step.lows, v_step.highs, v_limit, p_alone, v_ids, v_now, v_below, v_paused_users) d
            LOOP
                v_last := v_found.rank;
                IF NOT v_found.isolated THEN
                    v_ids := v_ids || v_found.id;
                ELSIF v_ids = '{}' THEN
                    v_ids := ARRAY[v_found.id];
                    v_passed_over := true;
                    EXIT steps;
                ELSE
                    v_passed_over := true;
                END IF;
            END LOOP;
            EXIT WHEN cardinality(v_ids) >= p_limit;
        END LOOP;
        v_found_all := cardinality(v_ids) >= p_limit;
        v_ids := ARRAY(SELECT u.id FROM unnest(v_ids) WITH ORDINALITY u(id, n)
                       WHERE u.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c
                                          WHERE NOT pg_visible_in_snapshot(c.made_in, v_before))
                       ORDER BY u.n);
        IF v_seen.seen_rank IS NOT NULL AND NOT v_found_all THEN
            -- There may be more below the mark: nothing is said to be empty, nor a worker put to sleep, before a look
            -- at everything.
            PERFORM set_config('streamvibe.low_water', '', false);
            CONTINUE;
        END IF;
        EXIT WHEN v_ids <> '{}' OR v_last IS NULL;
    END LOOP;
    IF v_waited = '{}' AND v_found_all AND NOT v_passed_over THEN
        v_low_water := streamvibe.note_low_water(v_seen, v_types, v_started, v_now, p_limit, v_last);
    END IF;

    IF NOT p_in_transaction THEN
        -- On a quiet queue it goes on being told: saying for each job that it is awake, and then that it sleeps, would cost
        -- more than the messages do.
        IF v_worker.asleep <> (v_ids = '{}') AND (cardinality(v_ids) <> 1 OR p_limit = 1) THEN
            UPDATE streamvibe.worker w SET asleep = v_ids = '{}' WHERE w.id = p_worker_id;
        END IF;
    ELSIF v_worker.transactions_asleep <> (v_ids = '{}') OR NOT v_types <@ v_worker.transaction_types THEN
        UPDATE streamvibe.worker w
        SET transactions_asleep = v_ids = '{}',
            transaction_types = ARRAY(SELECT unnest(w.transaction_types) UNION SELECT unnest(v_types))
        WHERE w.id = p_worker_id;
    END IF;
    IF v_ids = '{}' THEN
        RETURN;
    END IF;
    INSERT INTO streamvibe.claim (worker_id, claimed_at, in_transaction, job_ids, low_water)
    VALUES (p_worker_id, v_now, p_in_transaction, v_ids, v_low_water)
    RETURNING claim.token INTO v_token;
    RETURN QUERY
    SELECT v_token, q.id, q.user_id, q.job_type, q.params, q.retry_count + 1, t.max_attempts::integer, t.timeout,
           q.isolated, q.scheduled_for, q.created_at, q.traceparent
    FROM unnest(v_ids) WITH ORDINALITY u(id, n)
    CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    JOIN streamvibe.job_type t ON t.name = q.job_type
    ORDER BY u.n;
END
$$;
