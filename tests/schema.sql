CREATE SCHEMA auth;

CREATE SCHEMA creators;

COMMENT ON SCHEMA creators IS 'StreamVibe platform: creators and their contents, synced from YouTube, Instagram and TikTok.';

CREATE SCHEMA streamvibe;

COMMENT ON SCHEMA streamvibe IS 'StreamVibe: partitions and support tables. Private; use the functions in public.';

CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid$$;

COMMENT ON FUNCTION auth.uid() IS 'The user of the request, from request.jwt.claims; NULL without one.';

CREATE FUNCTION public.append_job_logs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_levels text[], p_messages text[], p_metadata jsonb[] DEFAULT NULL::jsonb[]) RETURNS TABLE(job_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_level text;
    v_random bigint := streamvibe.random_bits();
BEGIN
    PERFORM streamvibe.require_service('append_job_logs');
    SELECT l.level INTO v_level FROM unnest(p_levels) l(level)
    WHERE (l.level IN ('debug', 'info', 'warning', 'error')) IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_levels', v_level, 'the log level is unknown',
            'Use debug, info, warning or error.');
    END IF;
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens,
        ARRAY[cardinality(p_job_ids), cardinality(p_levels), cardinality(p_messages),
              coalesce(cardinality(p_metadata), cardinality(p_tokens))]);
    v_now := streamvibe.now();
    PERFORM streamvibe.require_partition('job_log', v_now);
    PERFORM streamvibe.require_partition('job_log', v_now + cardinality(p_job_ids) * interval '1 microsecond');
    -- A microsecond apart, so that lines written together keep their order.
    INSERT INTO public.job_log (id, job_id, user_id, job_type, log_level, message, metadata)
    SELECT streamvibe.make_id(streamvibe.microseconds(v_now) + a.n, hashint8extended(a.n, v_random)), a.job_id, q.user_id, q.job_type,
           a.level, left(coalesce(a.message, ''), 10000), a.metadata
    FROM unnest(p_tokens, p_job_ids, p_levels, p_messages, coalesce(p_metadata, '{}'))
         WITH ORDINALITY a(token, job_id, level, message, metadata, n)
    JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id)
    CROSS JOIN LATERAL (SELECT j.user_id, j.job_type FROM public.job_queue j WHERE j.id = a.job_id OFFSET 0) q;
    RETURN QUERY
    SELECT DISTINCT a.job_id FROM unnest(p_tokens, p_job_ids) a(token, job_id)
    WHERE NOT EXISTS (SELECT FROM streamvibe.held_jobs(p_worker_id, p_tokens) h
                      WHERE h.token = a.token AND h.job_id = a.job_id);
END
$$;

CREATE FUNCTION public.cancel_jobs(p_user_id uuid, p_job_ids uuid[]) RETURNS TABLE(job_id uuid, outcome text, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_now timestamptz;
    -- (min(uuid) came with PostgreSQL 18.)
    v_first uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id LIMIT 1);
    v_last uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id DESC LIMIT 1);
    v_locked uuid[];
    v_cancelled uuid[];
BEGIN
    PERFORM streamvibe.check_job_ids(p_job_ids);
    -- Only a failed job has a retry_at. coalesce, and IS TRUE, without which all jobs of the user might be read: see
    -- policies/plans.sql.
    v_locked := ARRAY(
    SELECT q.id FROM public.job_queue q JOIN (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id)) r ON q.id = r.id
    WHERE (q.user_id = v_user_id) IS TRUE AND q.id = ANY (p_job_ids) AND q.id BETWEEN v_first AND v_last
      AND (coalesce(q.status, '') IN ('pending', 'processing') OR q.retry_at IS NOT NULL)
    ORDER BY q.id FOR NO KEY UPDATE OF q);
    v_now := streamvibe.now();
    PERFORM streamvibe.count_jobs(-1, v_locked);
    WITH cancelled AS (
        UPDATE public.job_queue q
        SET status = 'cancelled', completed_at = v_now, retry_at = NULL, updated_at = v_now
        FROM unnest(v_locked) r(id)
        WHERE q.id = r.id AND q.id = ANY (v_locked) AND q.id BETWEEN v_locked[1] AND v_locked[cardinality(v_locked)]
          AND (coalesce(q.status, '') IN ('pending', 'processing') OR q.retry_at IS NOT NULL)
        RETURNING q.id
    )
    SELECT coalesce(array_agg(c.id), '{}') INTO v_cancelled FROM cancelled c;
    PERFORM streamvibe.count_jobs(1, v_locked);
    PERFORM pg_notify('streamvibe_cancel', h.id::text)
    FROM unnest(v_cancelled) h(id)
    -- NOT one look per job: the lists are hashed once.
    WHERE h.id IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    RETURN QUERY
    SELECT r.id,
           CASE WHEN q.id IS NULL THEN 'not_found' WHEN q.id = ANY (v_cancelled) THEN 'cancelled'
                ELSE 'unchanged' END,
           q.status
    FROM (SELECT u.id, min(u.n) AS n FROM unnest(p_job_ids) WITH ORDINALITY u(id, n) GROUP BY u.id) r
    -- OFFSET 0: looked up one by one; as a plain join all ids of the table might be read.
    LEFT JOIN LATERAL (SELECT j.id, j.status FROM public.job_queue j
                       WHERE j.id = r.id AND (j.user_id = v_user_id) IS TRUE OFFSET 0) q ON true
    ORDER BY r.n;
END
$$;

CREATE FUNCTION public.claim_jobs(p_worker_id text, p_limit integer DEFAULT 1, p_job_types text[] DEFAULT NULL::text[], p_alone boolean DEFAULT true, p_in_transaction boolean DEFAULT false) RETURNS TABLE(token bigint, job_id uuid, user_id uuid, job_type text, params jsonb, attempt integer, max_attempts integer, timeout interval, isolated boolean, scheduled_for timestamp with time zone, created_at timestamp with time zone, traceparent text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
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

CREATE FUNCTION public.cleanup_old_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_longest interval := (SELECT max(t.retention) FROM streamvibe.job_type t);
    v_type record;
    v_seen record;
    v_deleted integer;
    v_from uuid[];
    v_before uuid[];
    v_leaf record;
    v_count integer := 0;
    v_rounds integer := 100;
    v_wal_compression text;
BEGIN
    PERFORM streamvibe.require_service('cleanup_old_jobs');
    PERFORM streamvibe.require_read_committed('cleanup_old_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    v_wal_compression := streamvibe.leave_pages_uncompressed();
    -- A sealed leaf's jobs may be in the archive already, and leave with it; none is sealed before this transaction ends.
    SELECT array_agg(p.from_id ORDER BY p.from_id), array_agg(p.upper_id ORDER BY p.from_id) INTO v_from, v_before
    FROM (SELECT streamvibe.id_bound(l.lower_at) AS from_id, l.upper_id FROM streamvibe.partition l
          WHERE l.parent_name = 'job_queue' AND l.sealed_at IS NULL FOR KEY SHARE SKIP LOCKED) p;
    FOR v_type IN
        SELECT t.name, v_now - t.retention AS until, t.cleaned_until AS last_at, t.cleaned_id AS last_id
        FROM streamvibe.job_type t WHERE t.retention < v_longest
        ORDER BY t.cleaned_until, t.cleaned_id, t.name FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_deleted := 0;
        -- Other types' jobs are passed over once, and never read again; so many in a call, whatever the number of types.
        WHILE v_rounds > 0 LOOP
            SELECT array_agg(f.id) FILTER (WHERE f.job_type = v_type.name
                                             AND f.id < v_before[width_bucket(f.id, v_from)]) AS ids,
                   count(*) AS n,
                   (array_agg(f.completed_at ORDER BY f.completed_at DESC, f.id DESC))[1] AS last_at,
                   (array_agg(f.id ORDER BY f.completed_at DESC, f.id DESC))[1] AS last_id
            INTO v_seen
            FROM (SELECT q.* FROM unnest('{completed,failed,cancelled}'::text[]) s(status)
                  CROSS JOIN LATERAL (
                      SELECT j.id, j.job_type, j.completed_at FROM public.job_queue j
                      WHERE j.status = s.status AND j.status IN ('completed', 'cancelled', 'failed') AND j.completed_at >= v_type.last_at AND j.completed_at < v_type.until
                        AND (j.completed_at > v_type.last_at OR j.id > v_type.last_id)
                        AND j.completed_at <= (
                            -- Of each status that many, read from the index alone; of their rows only those of the first of all.
                            SELECT CASE WHEN count(*) = p_limit THEN max(e.completed_at) ELSE v_type.until END
                            FROM (SELECT e.completed_at FROM unnest('{completed,failed,cancelled}'::text[]) t(status)
                                  CROSS JOIN LATERAL (
                                      SELECT j.completed_at FROM public.job_queue j
                                      WHERE j.status = t.status AND j.status IN ('completed', 'cancelled', 'failed')
                                        AND j.completed_at > v_type.last_at AND j.completed_at < v_type.until
                                      ORDER BY j.completed_at LIMIT p_limit) e
                                  ORDER BY e.completed_at LIMIT p_limit) e)
                      ORDER BY j.completed_at, j.id LIMIT p_limit) q
                  ORDER BY q.completed_at, q.id LIMIT p_limit) f;
            EXIT WHEN v_seen.n = 0;
            v_deleted := v_deleted + streamvibe.delete_jobs(v_seen.ids);
            v_type.last_at := v_seen.last_at;
            v_type.last_id := v_seen.last_id;
            EXIT WHEN v_seen.n < p_limit;
            v_rounds := v_rounds - 1;
            EXIT WHEN v_deleted >= p_limit;
        END LOOP;
        UPDATE streamvibe.job_type t SET cleaned_until = v_type.last_at, cleaned_id = v_type.last_id
        WHERE t.name = v_type.name AND (t.cleaned_until, t.cleaned_id) <> (v_type.last_at, v_type.last_id);
        v_count := v_count + v_deleted;
    END LOOP;
    FOR v_leaf IN
        SELECT streamvibe.id_bound(p.lower_at) AS from_id, p.upper_id FROM streamvibe.partition p, streamvibe.setting s
        WHERE p.parent_name = 'job_queue' AND p.upper_id = ANY (v_before)
          AND p.upper_at + coalesce(v_longest, '7 days') + s.partition_width < v_now
        ORDER BY p.lower_at
    LOOP
        v_count := v_count + streamvibe.delete_jobs(ARRAY(
            SELECT q.id FROM public.job_queue q LEFT JOIN streamvibe.job_type t ON t.name = q.job_type
            WHERE q.id >= v_leaf.from_id AND q.id < v_leaf.upper_id
              AND coalesce(q.status, '') IN ('completed', 'failed', 'cancelled') AND q.retry_at IS NULL
              AND q.completed_at < v_now - coalesce(t.retention, '7 days')
            ORDER BY q.id LIMIT p_limit));
    END LOOP;
    IF current_setting('wal_compression') <> v_wal_compression THEN
        PERFORM set_config('wal_compression', v_wal_compression, true);
    END IF;
    RETURN CASE WHEN v_rounds = 0 THEN greatest(v_count, 1) ELSE v_count END;
END
$$;

CREATE FUNCTION public.cleanup_old_logs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_archive text;
    v_type record;
    v_seen record;
    v_ids uuid[];
    v_deleted integer;
    v_from uuid[];
    v_before uuid[];
    v_count integer := 0;
    v_rounds integer := 100;
BEGIN
    PERFORM streamvibe.require_service('cleanup_old_logs');
    PERFORM streamvibe.require_read_committed('cleanup_old_logs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    SELECT s.archive_url INTO v_archive FROM streamvibe.setting s FOR SHARE;
    IF v_archive IS NOT NULL THEN
        RETURN 0;
    END IF;
    -- A sealed partition's lines leave with it; none is sealed before this transaction ends.
    SELECT array_agg(p.from_id ORDER BY p.from_id), array_agg(p.upper_id ORDER BY p.from_id) INTO v_from, v_before
    FROM (SELECT streamvibe.id_bound(l.lower_at) AS from_id, l.upper_id FROM streamvibe.partition l
          WHERE l.parent_name = 'job_log' AND l.sealed_at IS NULL FOR KEY SHARE SKIP LOCKED) p;
    FOR v_type IN
        SELECT t.name, streamvibe.id_floor(v_now - t.log_retention) AS until_id, t.lines_cleaned_id AS last_id
        FROM streamvibe.job_type t WHERE t.log_retention < (SELECT max(l.log_retention) FROM streamvibe.job_type l)
        ORDER BY t.lines_cleaned_id, t.name FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_deleted := 0;
        -- Other types' lines are passed over once, and never read again; so many in a call, whatever the number of types.
        WHILE v_rounds > 0 LOOP
            SELECT array_agg(f.id) FILTER (WHERE f.job_type = v_type.name
                                             AND f.id < v_before[width_bucket(f.id, v_from)]) AS ids,
                   count(*) AS n,
                   (array_agg(f.id ORDER BY f.id))[1] AS first_id,
                   (array_agg(f.id ORDER BY f.id DESC))[1] AS last_id
            INTO v_seen
            FROM (SELECT l.id, l.job_type FROM public.job_log l
                  WHERE l.id > v_type.last_id AND l.id < v_type.until_id ORDER BY l.id LIMIT p_limit) f;
            EXIT WHEN v_seen.n = 0;
            v_ids := ARRAY(SELECT l.id FROM public.job_log l
                           WHERE l.id = ANY (v_seen.ids) AND l.id BETWEEN v_seen.first_id AND v_seen.last_id
                           FOR UPDATE SKIP LOCKED);
            DELETE FROM public.job_log l WHERE l.id = ANY (v_ids) AND l.id BETWEEN v_seen.first_id AND v_seen.last_id;
            v_deleted := v_deleted + cardinality(v_ids);
            v_type.last_id := v_seen.last_id;
            EXIT WHEN v_seen.n < p_limit;
            v_rounds := v_rounds - 1;
            EXIT WHEN v_deleted >= p_limit;
        END LOOP;
        UPDATE streamvibe.job_type t SET lines_cleaned_id = v_type.last_id
        WHERE t.name = v_type.name AND t.lines_cleaned_id <> v_type.last_id;
        v_count := v_count + v_deleted;
    END LOOP;
    RETURN CASE WHEN v_rounds = 0 THEN greatest(v_count, 1) ELSE v_count END;
END
$$;

CREATE FUNCTION public.compact_stats(p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    v_gone bigint[];
    v_done record;
BEGIN
    PERFORM streamvibe.require_service('compact_stats');
    PERFORM streamvibe.require_read_committed('compact_stats', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    PERFORM FROM streamvibe.stat_lock FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- Before the notes are taken: nobody notes anything of a leaf once it is dropped.
    v_gone := ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g);
    WITH noted AS MATERIALIZED (
        DELETE FROM streamvibe.stat_delta d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat_delta l LIMIT p_limit))
        RETURNING d.*
    ), counts AS MATERIALIZED (
        DELETE FROM streamvibe.counter_note d
        WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.counter_note l
                                  LIMIT (SELECT greatest(p_limit - count(*), 0) FROM noted)))
        RETURNING d.*
    ), by_minute AS MATERIALIZED (
        SELECT coalesce(n.leaf_number, -1) AS leaf_number, n.minute, n.job_type, n.status, sum(n.jobs) AS jobs,
               coalesce(sum(n.waiting_us), 0) AS waiting_us, coalesce(sum(n.processing_us), 0) AS processing_us
        FROM noted n GROUP BY 1, n.minute, n.job_type, n.status
    ), summed AS (
        INSERT INTO streamvibe.stat AS s (leaf_number, minutes, since, job_type, status, jobs, waiting_us, processing_us)
        SELECT b.leaf_number, w.minutes, b.since, n.job_type, n.status, sum(n.jobs), sum(n.waiting_us), sum(n.processing_us)
        FROM by_minute n
        CROSS JOIN unnest('{-1,0,1,10,60,1440}'::smallint[]) w(minutes)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN w.minutes <= 0 THEN 'epoch'
                        ELSE date_bin(w.minutes * interval '1 minute', n.minute, '2000-01-01 00:00:00+00') END AS since,
                   CASE w.minutes WHEN 0 THEN 0 ELSE n.leaf_number END AS leaf_number) b
        GROUP BY w.minutes, b.since, n.job_type, n.status, b.leaf_number
        ORDER BY w.minutes, b.since, n.job_type, n.status, b.leaf_number
        ON CONFLICT (minutes, since, job_type, status, leaf_number) DO UPDATE
        SET jobs = s.jobs + excluded.jobs, waiting_us = s.waiting_us + excluded.waiting_us,
            processing_us = s.processing_us + excluded.processing_us
        RETURNING s.leaf_number, s.minutes, s.since, s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us
    ), counted AS (
        INSERT INTO streamvibe.counter AS c (name, job_type, detail, value)
        SELECT e.name, e.job_type, e.detail, sum(e.value)
        FROM (SELECT n.name, n.job_type, n.detail, n.value FROM counts n
              UNION ALL
              SELECT s.name, n.job_type, s.detail, s.value
              FROM noted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              WHERE n.jobs > 0 AND n.status IN ('completed', 'failed', 'cancelled')) e
        GROUP BY e.name, e.job_type, e.detail
        ORDER BY e.name, e.job_type, e.detail
        ON CONFLICT (name, job_type, detail) DO UPDATE SET value = c.value + excluded.value
    ), by_hour AS MATERIALIZED (
        SELECT coalesce(n.leaf_number, -1) AS leaf_number, date_bin('1 hour', n.minute, '2000-01-01 00:00:00+00') AS hour, n.job_type,
               m.measure, m.bucket, sum(sign(n.jobs)) AS jobs
        FROM noted n
        CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(n.waited) u(bucket)
                            UNION ALL SELECT 'processing', u.bucket FROM unnest(n.processed) u(bucket)) m(measure, bucket)
        GROUP BY 1, 2, n.job_type, m.measure, m.bucket
    ), sketched AS (
        INSERT INTO streamvibe.stat_sketch AS s (leaf_number, minutes, since, job_type, measure, bucket, jobs)
        SELECT b.leaf_number, w.minutes, b.since, b.job_type, n.measure, b.bucket, sum(n.jobs)
        FROM by_hour n
        -- All types together as well, so that what is asked of them reads one type's rows; not by the hour, where they are many.
        CROSS JOIN (SELECT m.minutes, a.of_all_types
                    FROM unnest('{-2,-1,0,60}'::smallint[]) m(minutes), (VALUES (false), (true)) a(of_all_types)
                    WHERE m.minutes <> 60 OR NOT a.of_all_types) w
        CROSS JOIN LATERAL (SELECT CASE w.minutes WHEN 60 THEN n.hour ELSE 'epoch' END AS since,
                                   CASE WHEN w.minutes IN (-2, 0) THEN 0 ELSE n.leaf_number END AS leaf_number,
                                   CASE WHEN w.of_all_types THEN '' ELSE n.job_type END AS job_type,
                                   CASE w.minutes WHEN -2 THEN n.bucket >> 4 ELSE n.bucket END AS bucket) b
        GROUP BY w.minutes, b.since, b.job_type, n.measure, b.bucket, b.leaf_number
        -- What is read together lies together.
        ORDER BY w.minutes, b.since, b.job_type, n.measure, b.bucket, b.leaf_number
        ON CONFLICT (minutes, since, job_type, measure, bucket, leaf_number) DO UPDATE SET jobs = s.jobs + excluded.jobs
        RETURNING s.leaf_number, s.minutes, s.since, s.job_type, s.measure, s.bucket, s.jobs
    )
    SELECT t.taken, s.leaf_numbers, s.minutes, s.since, s.job_types, s.statuses,
           b.leaf_numbers AS sketch_leaf_numbers, b.minutes AS sketch_minutes, b.since AS sketch_since,
           b.job_types AS sketch_job_types, b.measures, b.buckets INTO v_done
    FROM (SELECT (count(*) + (SELECT count(*) FROM counts))::integer AS taken FROM noted n) t,
         (SELECT array_agg(s.leaf_number) AS leaf_numbers, array_agg(s.minutes) AS minutes, array_agg(s.since) AS since,
                 array_agg(s.job_type) AS job_types, array_agg(s.status) AS statuses
          FROM summed s WHERE s.jobs = 0 AND s.waiting_us = 0 AND s.processing_us = 0) s,
         (SELECT array_agg(b.leaf_number) AS leaf_numbers, array_agg(b.minutes) AS minutes, array_agg(b.since) AS since,
                 array_agg(b.job_type) AS job_types, array_agg(b.measure) AS measures, array_agg(b.bucket) AS buckets
          FROM sketched b WHERE b.jobs = 0) b;
    -- Of jobs that moved on, nothing is left but zeroes.
    DELETE FROM streamvibe.stat s
    USING unnest(v_done.leaf_numbers, v_done.minutes, v_done.since, v_done.job_types, v_done.statuses)
          z(leaf_number, minutes, since, job_type, status)
    WHERE s.minutes = z.minutes AND s.since = z.since AND s.job_type = z.job_type AND s.status = z.status
      AND s.leaf_number = z.leaf_number;
    DELETE FROM streamvibe.stat_sketch s
    USING unnest(v_done.sketch_leaf_numbers, v_done.sketch_minutes, v_done.sketch_since, v_done.sketch_job_types, v_done.measures,
                 v_done.buckets) z(leaf_number, minutes, since, job_type, measure, bucket)
    WHERE s.minutes = z.minutes AND s.since = z.since AND s.job_type = z.job_type AND s.measure = z.measure
      AND s.bucket = z.bucket AND s.leaf_number = z.leaf_number;
    IF v_gone <> '{}' AND v_done.taken < p_limit THEN
        v_done.taken := v_done.taken + streamvibe.forget_leaves(v_gone, p_limit - v_done.taken);
    END IF;
    RETURN v_done.taken;
END
$$;

CREATE FUNCTION public.complete_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_results jsonb[], p_started_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[]) RETURNS TABLE(job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_max integer := (SELECT s.max_result_bytes FROM streamvibe.setting s);
    v_now timestamptz;
    v_large record;
    v_mine record;
    v_done uuid[];
BEGIN
    PERFORM streamvibe.require_service('complete_jobs');
    SELECT a.job_id INTO v_large FROM unnest(p_job_ids, p_results) a(job_id, result)
    WHERE streamvibe.has_wild_number(a.result) LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_results', 'a number beyond 1e308 or nearer to 0 than 1e-307',
            'the result of job ' || v_large.job_id || ' holds a number out of range', 'Send such numbers as text.');
    END IF;
    SELECT a.job_id, octet_length(a.result::text) AS size INTO v_large
    FROM unnest(p_job_ids, p_results) a(job_id, result)
    WHERE octet_length(a.result::text) > v_max LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV003', 'p_results', v_large.size || ' bytes',
            'the result of job ' || v_large.job_id || ' is too large',
            'Keep it within ' || v_max || ' bytes: store the data elsewhere and return a reference.');
    END IF;
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_results), coalesce(cardinality(p_started_at), cardinality(p_tokens))]) l;
    v_now := streamvibe.now();
    WITH done AS (
        UPDATE public.job_queue q
        SET status = 'completed', result = r.result, completed_at = v_now, updated_at = v_now,
            worker_id = p_worker_id, claim_token = r.token, isolated = false,
            failure_kind = NULL, error_message = NULL,
            progress = CASE WHEN q.progress IS NOT NULL THEN 1 END,
            started_at = coalesce(q.started_at, least(greatest(r.started_at, r.since), v_now))
        FROM unnest(p_tokens, p_job_ids, p_results, coalesce(p_started_at, '{}'), v_mine.since)
             r(token, job_id, result, started_at, since)
        WHERE q.id = r.job_id AND r.since IS NOT NULL AND coalesce(q.status, '') IN ('pending', 'processing')
          AND q.id = ANY (v_mine.locked)
          AND q.id BETWEEN v_mine.locked[1] AND v_mine.locked[cardinality(v_mine.locked)]
        RETURNING q.tableoid AS leaf, q.id, q.job_type, q.created_at, q.scheduled_for, q.started_at
    ), notes AS MATERIALIZED (
        SELECT d.leaf, d.job_type, m.status, streamvibe.minute_of(d.created_at) AS minute, -count(*) AS jobs,
               NULL::bigint AS waiting_us, NULL::bigint AS processing_us, NULL::smallint[] AS waited, NULL::smallint[] AS processed
        FROM done d
        CROSS JOIN LATERAL (SELECT CASE WHEN d.id IN (SELECT unnest(v_mine.processing))
                                        THEN 'processing' ELSE 'pending' END AS status) m
        GROUP BY d.leaf, d.job_type, m.status, streamvibe.minute_of(d.created_at)
        UNION ALL
        SELECT d.leaf, d.job_type, 'completed', streamvibe.minute_of(v_now), count(*),
               sum(streamvibe.duration_us(d.scheduled_for, d.started_at)),
               sum(streamvibe.duration_us(d.started_at, v_now)),
               array_agg(streamvibe.sketch_bucket(d.scheduled_for, d.started_at)),
               array_agg(streamvibe.sketch_bucket(d.started_at, v_now))
        FROM done d GROUP BY d.leaf, d.job_type
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
               n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed
        FROM notes n
    )
    SELECT coalesce(array_agg(d.id), '{}') INTO v_done FROM done d;
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
    IF cardinality(v_done) < cardinality(p_job_ids) THEN
        RETURN QUERY
        SELECT s.* FROM streamvibe.statuses_now(
            ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id) WHERE u.id NOT IN (SELECT unnest(v_done))), v_mine.busy) s;
    END IF;
END
$$;

CREATE FUNCTION public.create_jobs(p_jobs jsonb, p_dedupe boolean DEFAULT false, p_enforce_limit boolean DEFAULT false, p_traceparent text DEFAULT NULL::text) RETURNS TABLE(ordinal integer, job_id uuid, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_batch uuid := gen_random_uuid();
BEGIN
    PERFORM streamvibe.require_service('create_jobs');
    IF p_jobs IS NULL OR jsonb_typeof(p_jobs) <> 'array' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_jobs', left(p_jobs::text, 200), 'p_jobs is not a JSON array',
            'Pass an array of objects with user_id, job_type and params.');
    END IF;
    IF EXISTS (SELECT FROM jsonb_array_elements(p_jobs) e
               WHERE CASE WHEN jsonb_typeof(e.value) = 'object'
                          THEN e.value - '{user_id,job_type,params,priority,scheduled_for}'::text[] <> '{}'
                          ELSE true END) THEN
        PERFORM streamvibe.refuse_unreadable_job(p_jobs);
    END IF;
    BEGIN
        INSERT INTO streamvibe.staging (batch, ordinal, user_id, job_type, params, priority, scheduled_for)
        SELECT v_batch, e.ordinality, (e.value ->> 'user_id')::uuid, e.value ->> 'job_type',
               coalesce(e.value -> 'params', '{}'), (e.value ->> 'priority')::integer,
               (e.value ->> 'scheduled_for')::timestamptz
        FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e;
    EXCEPTION
        -- Which one it was is only looked for when there is one: a subtransaction for each costs more than its row.
        WHEN data_exception THEN
            PERFORM streamvibe.refuse_unreadable_job(p_jobs);
            RAISE;
    END;
    RETURN QUERY SELECT c.* FROM streamvibe.create_staged_jobs(v_batch, p_dedupe, p_enforce_limit, p_traceparent) c;
END
$$;

CREATE FUNCTION public.ensure_partitions(p_ahead interval DEFAULT '28 days'::interval) RETURNS TABLE(partition_name text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET client_min_messages TO 'warning'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    -- In seconds: days are 23 or 25 hours long where the session's clocks change.
    v_width interval := (SELECT make_interval(secs => extract(epoch FROM s.partition_width)) FROM streamvibe.setting s);
    v_parent text;
    v_lower timestamptz;
    v_upper timestamptz;
BEGIN
    PERFORM streamvibe.require_service('ensure_partitions');
    IF p_ahead IS NULL OR p_ahead NOT BETWEEN '0' AND '2 years' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_ahead', p_ahead::text, 'p_ahead is out of range',
            'Use ''0'' to ''2 years''.');
    END IF;
    -- Not an advisory lock: anybody could hold that.
    LOCK TABLE streamvibe.partition IN SHARE ROW EXCLUSIVE MODE;
    FOREACH v_parent IN ARRAY ARRAY['job_queue', 'job_log'] LOOP
        -- Leaves start where the last one ended, so a changed width never overlaps; the first, on a Monday.
        v_lower := (SELECT max(p.upper_at) FROM streamvibe.partition p WHERE p.parent_name = v_parent);
        IF v_lower IS NULL OR v_lower < v_now - interval '1 hour' THEN
            v_lower := greatest(v_lower, date_bin(v_width, v_now - interval '1 hour', '2024-01-01 00:00+00'));
        END IF;
        WHILE v_lower <= v_now + p_ahead LOOP
            v_upper := date_bin(v_width, v_lower, '2024-01-01 00:00+00') + v_width;
            -- With the hour, where an older release ended a leaf an hour early: the day's name is taken then.
            partition_name := v_parent || to_char(v_lower AT TIME ZONE 'UTC',
                CASE WHEN v_lower = date_trunc('day', v_lower, 'UTC') THEN '_YYYYMMDD' ELSE '_YYYYMMDD_HH24' END);
            PERFORM streamvibe.make_leaf(v_parent, partition_name);
            PERFORM streamvibe.attach_leaf(v_parent, partition_name, v_lower, v_upper);
            RETURN NEXT;
            v_lower := v_upper;
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION public.erase_user(p_user_id uuid, p_limit integer DEFAULT 1000, p_anew boolean DEFAULT false) RETURNS TABLE(state text, jobs integer, lines integer, running uuid[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
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

CREATE FUNCTION public.expire_stale_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_ids uuid[];
    v_count integer;
BEGIN
    PERFORM streamvibe.require_service('expire_stale_jobs');
    PERFORM streamvibe.require_read_committed('expire_stale_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    v_ids := ARRAY(
        SELECT q.id FROM public.job_queue q
        WHERE q.status = 'pending' AND q.expires_at < v_now
          AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
        ORDER BY q.expires_at LIMIT p_limit
        FOR NO KEY UPDATE OF q SKIP LOCKED);
    -- A claim may have been committed between that look and the locks (see claim_jobs): look again.
    PERFORM streamvibe.count_jobs(-1, v_ids);
    UPDATE public.job_queue q
    SET status = 'failed', failure_kind = 'expired', completed_at = v_now, updated_at = v_now,
        error_message = 'not started before ' || q.expires_at || '; no worker took it in time'
    WHERE q.id = ANY (v_ids) AND coalesce(q.status, '') = 'pending'  -- see policies/plans.sql
      AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    PERFORM streamvibe.count_jobs(1, v_ids);
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'failed', q.job_type, 'expired', count(*)
    FROM unnest(v_ids) u(id) CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    WHERE q.status = 'failed'
    GROUP BY q.job_type;
    RETURN v_count;
END
$$;

CREATE FUNCTION public.explain_job_wait(p_job_id uuid, p_user_id uuid DEFAULT NULL::uuid) RETURNS TABLE(reason text, message text, ready_at timestamp with time zone, jobs_ahead bigint, job_ids uuid[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
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

CREATE FUNCTION public.fail_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_failures jsonb[], p_started_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[]) RETURNS TABLE(job_id uuid, accepted boolean, status text, retry_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_bad jsonb;
    v_mine record;
    v_held record;
    v_moved record;
BEGIN
    PERFORM streamvibe.require_service('fail_jobs');
    SELECT f.failure INTO v_bad FROM unnest(p_failures) f(failure)
    WHERE (jsonb_typeof(f.failure) = 'object'
           AND coalesce(jsonb_typeof(f.failure -> 'kind'), 'string') = 'string'
           AND coalesce(jsonb_typeof(f.failure -> 'message'), 'string') = 'string'
           AND coalesce(jsonb_typeof(f.failure -> 'retryable'), 'boolean') = 'boolean'
           AND CASE coalesce(jsonb_typeof(f.failure -> 'retry_after_seconds'), 'null')
                   WHEN 'null' THEN true
                   WHEN 'number' THEN (f.failure ->> 'retry_after_seconds')::numeric BETWEEN 0 AND 31622400
                   ELSE false END) IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_failures', left(v_bad::text, 200), 'a failure cannot be read',
            'Pass {"kind": "error", "message": "...", "retryable": true, "retry_after_seconds": 60}; '
            || 'the last is optional, 0 to 31622400.');
    END IF;
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_failures), coalesce(cardinality(p_started_at), cardinality(p_tokens))]) l;
    v_now := streamvibe.now();
    SELECT coalesce(array_agg(r.job_id), '{}') AS ids, coalesce(array_agg(r.failure), '{}') AS failures,
           coalesce(array_agg(r.started_at), '{}') AS started INTO v_held
    FROM (SELECT a.job_id, a.failure, least(greatest(a.started_at, a.since), v_now) AS started_at
          FROM unnest(p_job_ids, p_failures, coalesce(p_started_at, '{}'), v_mine.since)
               a(job_id, failure, started_at, since)
          WHERE a.since IS NOT NULL) r;
    SELECT coalesce(array_agg(m.job_id), '{}') AS ids, coalesce(array_agg(m.retry_at), '{}') AS retries INTO v_moved
    FROM streamvibe.apply_failures(p_worker_id, v_held.ids, v_held.failures, v_held.started, v_now) m;
    RETURN QUERY
    SELECT s.job_id, m.job_id IS NOT NULL, s.status, m.retry_at
    FROM streamvibe.statuses_now(p_job_ids, v_mine.busy) s
    LEFT JOIN unnest(v_moved.ids, v_moved.retries) m(job_id, retry_at) ON m.job_id = s.job_id;
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
END
$$;

CREATE FUNCTION public.find_or_create_job(p_user_id uuid, p_job_type text, p_params jsonb DEFAULT '{}'::jsonb, p_dedupe_window interval DEFAULT '00:05:00'::interval, p_traceparent text DEFAULT NULL::text) RETURNS TABLE(job_id uuid, is_new boolean, existing_status text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
    SELECT r.job_id, r.outcome = 'created', CASE WHEN r.outcome = 'joined' THEN r.status END
    FROM public.request_job(p_user_id, p_job_type, p_params, p_force := true,
                            p_dedupe_window := p_dedupe_window, p_traceparent := p_traceparent) r
$$;

CREATE FUNCTION public.forget_idempotency_keys(p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM streamvibe.require_service('forget_idempotency_keys');
    PERFORM streamvibe.check_batch_size(p_limit);
    DELETE FROM streamvibe.idempotency i
    WHERE i.ctid = ANY (ARRAY(
        SELECT k.ctid
        -- Between the leaves there are, and before the first.
        FROM (SELECT coalesce(lag(p.upper_id) OVER (ORDER BY p.lower_at), '00000000-0000-0000-0000-000000000000') AS from_id,
                     streamvibe.id_bound(p.lower_at) AS before_id
              FROM streamvibe.partition p WHERE p.parent_name = 'job_queue') g
        CROSS JOIN LATERAL (
            SELECT l.ctid FROM streamvibe.idempotency l
            WHERE l.job_id >= g.from_id AND l.job_id < g.before_id
            LIMIT p_limit FOR UPDATE SKIP LOCKED) k
        WHERE g.from_id < g.before_id
        LIMIT p_limit));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

CREATE FUNCTION public.get_archive() RETURNS TABLE(url text, archive_id uuid, archiver text, files bigint, jobs bigint, lines bigint, bytes bigint, first_day date, last_day date, last_written_at timestamp with time zone, leaves_waiting bigint, jobs_waiting bigint, erasures bigint, is_copy boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_archive');
    RETURN QUERY
    SELECT s.archive_url, s.archive_id, CASE WHEN a.expires_at >= streamvibe.now() THEN a.holder END, f.files, f.jobs, f.lines, f.bytes,
           f.first_day, f.last_day, f.last_written_at,
           CASE WHEN s.archive_url IS NULL THEN 0
                ELSE (SELECT count(*) FROM streamvibe.old_partitions() p WHERE p.archived_at IS NULL) END,
           (SELECT count(*) FROM streamvibe.leaving_job), (SELECT count(*) FROM streamvibe.erasure),
           coalesce(s.archive_owner <> streamvibe.this_database(), false)
    FROM streamvibe.setting s CROSS JOIN streamvibe.archiver a
    CROSS JOIN (SELECT count(*) AS files, coalesce(sum(c.row_count) FILTER (WHERE c.kind = 'jobs'), 0)::bigint AS jobs,
                       coalesce(sum(c.row_count) FILTER (WHERE c.kind = 'logs'), 0)::bigint AS lines,
                       coalesce(sum(c.byte_count), 0)::bigint AS bytes, min(c.day) AS first_day, max(c.day) AS last_day,
                       max(c.verified_at) AS last_written_at
                FROM streamvibe.archive_file c WHERE c.state = 'complete') f;
END
$$;

CREATE FUNCTION public.get_archive_files() RETURNS TABLE(file_id bigint, kind text, source text, day date, url text, key text, row_count bigint, byte_count bigint, checksum numeric, verified_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_archive_files');
    RETURN QUERY
    SELECT f.id, f.kind, f.source, f.day, f.url, f.key, f.row_count, f.byte_count, f.checksum, f.verified_at
    FROM streamvibe.archive_file f WHERE f.state = 'complete' ORDER BY f.kind, f.day, f.source;
END
$$;

CREATE FUNCTION public.get_cached_job_result(p_user_id uuid, p_job_type text, p_params jsonb DEFAULT '{}'::jsonb, p_cache_ttl interval DEFAULT NULL::interval) RETURNS TABLE(job_id uuid, result jsonb, completed_at timestamp with time zone, result_age interval)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_type streamvibe.job_type := streamvibe.known_job_type(p_job_type);
    v_now timestamptz := streamvibe.now();
    v_id uuid;
BEGIN
    PERFORM streamvibe.check_request('p_', v_user_id, p_params, v_type.max_params_bytes, NULL, NULL);
    PERFORM streamvibe.check_window('p_cache_ttl', p_cache_ttl);
    -- First the id, then the row: inside WHERE the search would run once for every row of the table.
    v_id := streamvibe.find_same_work(v_user_id, p_job_type, p_params,
                                      v_now - coalesce(p_cache_ttl, v_type.cache_ttl), 'infinity', v_now,
                                      'ffffffff-ffff-ffff-ffff-ffffffffffff');
    RETURN QUERY
    SELECT q.id, q.result, q.completed_at, v_now - q.completed_at FROM public.job_queue q WHERE q.id = v_id;
END
$$;

CREATE FUNCTION public.get_index_bloat() RETURNS TABLE(index_name text, table_name text, size_bytes bigint, bloat_bytes bigint, leaf_density double precision, worst_index text, method text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_index_bloat');
    RETURN QUERY
    SELECT b.index_name, b.table_name, sum(b.size_bytes)::bigint, sum(b.bloat_bytes)::bigint,
           sum(b.leaf_density * b.size_bytes) / nullif(sum(b.size_bytes) FILTER (WHERE b.leaf_density IS NOT NULL), 0),
           (array_agg(b.index_oid::regclass::text ORDER BY b.bloat_bytes DESC))[1],
           CASE WHEN bool_and(b.is_exact) THEN 'pgstattuple' ELSE 'estimate' END
    FROM streamvibe.leaf_index_bloat() b
    GROUP BY b.index_name, b.table_name ORDER BY 4 DESC, 1;
END
$$;

CREATE FUNCTION public.get_index_usage() RETURNS TABLE(index_name text, table_name text, scans bigint, tuples_read bigint, tuples_fetched bigint, size_bytes bigint, leaves integer, since timestamp with time zone, verdict text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_index_usage');
    RETURN QUERY
    SELECT u.name, u.of, u.scanned, u.read, u.fetched, u.size, u.parts, d.stats_reset,
           CASE WHEN u.bad THEN 'invalid' WHEN u.scanned = 0 AND u.needed THEN 'constraint' WHEN u.scanned = 0 THEN 'unused'
                WHEN u.scanned > 0.1 * sum(u.scanned) OVER () THEN 'hot' ELSE 'used' END
    FROM (SELECT r.name, r.table_name AS of, sum(s.idx_scan)::bigint AS scanned, sum(s.idx_tup_read)::bigint AS read,
                 sum(s.idx_tup_fetch)::bigint AS fetched, sum(pg_relation_size(r.relation))::bigint AS size,
                 count(*)::integer AS parts, bool_or(NOT i.indisvalid) AS bad, bool_or(i.indisunique) AS needed
          FROM streamvibe.own_relations() r
          JOIN pg_index i ON i.indexrelid = r.relation
          JOIN pg_stat_user_indexes s ON s.indexrelid = r.relation
          WHERE r.kind = 'i'
          GROUP BY r.name, r.table_name) u
    CROSS JOIN pg_stat_database d
    WHERE d.datname = current_database()
    ORDER BY u.scanned DESC, u.name;
END
$$;

CREATE FUNCTION public.get_job(p_job_id uuid, p_user_id uuid DEFAULT NULL::uuid) RETURNS TABLE(id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb, failure_kind text, error_message text, retry_count integer, progress real, progress_message text, worker_id text, created_at timestamp with time zone, updated_at timestamp with time zone, scheduled_for timestamp with time zone, started_at timestamp with time zone, completed_at timestamp with time zone, expires_at timestamp with time zone, retry_at timestamp with time zone, idempotency_key text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
BEGIN
    RETURN QUERY SELECT j.* FROM streamvibe.job j
                 WHERE j.id = p_job_id AND (v_user_id IS NULL OR j.user_id = v_user_id);
END
$$;

CREATE FUNCTION public.get_job_logs(p_job_id uuid DEFAULT NULL::uuid, p_user_id uuid DEFAULT NULL::uuid, p_log_level text DEFAULT NULL::text, p_limit integer DEFAULT 100, p_cursor text DEFAULT NULL::text, p_since timestamp with time zone DEFAULT NULL::timestamp with time zone, p_until timestamp with time zone DEFAULT NULL::timestamp with time zone, p_metadata jsonb DEFAULT NULL::jsonb, p_search text DEFAULT NULL::text) RETURNS TABLE(id uuid, job_id uuid, user_id uuid, log_level text, message text, metadata jsonb, created_at timestamp with time zone, next_cursor text, has_more boolean, snippet text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
    v_filter text := concat_ws('|', 'logs', coalesce(p_job_id::text, '*'), coalesce(v_user_id::text, '*'),
                               coalesce(p_log_level, '*'), coalesce(extract(epoch FROM p_since)::text, '*'),
                               coalesce(extract(epoch FROM p_until)::text, '*'), coalesce(p_metadata::text, '*'), p_search);
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_query tsquery;
    v_from uuid := coalesce(streamvibe.id_floor(p_since), '00000000-0000-0000-0000-000000000000');
    v_below uuid := coalesce(v_after, streamvibe.id_floor(p_until),
                             streamvibe.id_bound(streamvibe.now() + interval '1 day'));
BEGIN
    PERFORM streamvibe.check_page(p_limit, NULL);
    IF p_log_level NOT IN ('debug', 'info', 'warning', 'error') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_log_level', p_log_level, 'the log level is unknown',
            'Use debug, info, warning or error, or NULL for all.');
    ELSIF p_since >= p_until THEN
        PERFORM streamvibe.raise_error('SV001', 'p_until', p_until::text, 'p_until is not after p_since',
            'Swap them, or leave one out.');
    ELSIF length(p_search) > 1000 THEN
        PERFORM streamvibe.raise_error('SV003', 'p_search', length(p_search) || ' characters',
            'p_search is too long', 'Use 1000 characters at most.');
    END IF;
    PERFORM streamvibe.check_contained('p_metadata', p_metadata);
    IF p_search IS NOT NULL THEN
        v_query := websearch_to_tsquery('english', p_search);
        IF numnode(v_query) = 0 THEN
            PERFORM streamvibe.raise_error('SV001', 'p_search', p_search, 'p_search has no word to look for',
                'Use at least one word that is not as common as "the" or "and", or NULL.');
        END IF;
    END IF;
    -- A job's log begins with the job, and is in no partition before.
    v_from := greatest(v_from, p_job_id);
    IF p_job_id IS NOT NULL AND p_metadata IS NULL AND v_query IS NULL THEN
        RETURN QUERY
        WITH found AS MATERIALIZED (
            SELECT l.*, row_number() OVER (ORDER BY l.created_at DESC, l.id DESC) AS n FROM public.job_log l
            WHERE l.job_id = p_job_id AND (v_user_id IS NULL OR l.user_id = v_user_id)
              AND (p_log_level IS NULL OR l.log_level = p_log_level)
              AND l.id >= v_from AND l.id < v_below
            ORDER BY l.created_at DESC, l.id DESC LIMIT p_limit + 1
        ), page_end AS (
            SELECT (SELECT f.id FROM found f WHERE f.n = p_limit) AS last_id,
                   (SELECT count(*) FROM found) > p_limit AS has_more
        )
        SELECT f.id, f.job_id, f.user_id, f.log_level, f.message, f.metadata, f.created_at,
               CASE WHEN e.has_more THEN streamvibe.cursor_of(e.last_id, v_filter) END, e.has_more, NULL::text
        FROM found f CROSS JOIN page_end e
        WHERE f.n <= p_limit ORDER BY f.n;
        RETURN;
    END IF;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.id DESC) AS n
        FROM streamvibe.find_log_lines(p_job_id, v_user_id, p_log_level, v_from, v_below, p_metadata, v_query,
                                       p_limit + 1) l
    ), page_end AS (
        SELECT (SELECT f.id FROM found f WHERE f.n = p_limit) AS last_id,
               (SELECT count(*) FROM found) > p_limit AS has_more
    )
    SELECT f.id, f.job_id, f.user_id, f.log_level, f.message, f.metadata, f.created_at,
           CASE WHEN e.has_more THEN streamvibe.cursor_of(e.last_id, v_filter) END, e.has_more,
           CASE WHEN v_query IS NOT NULL THEN
               ts_headline('english', f.message, v_query, 'StartSel=**, StopSel=**, ' || CASE
                   WHEN length(f.message) <= 200 THEN 'HighlightAll=true' ELSE 'MaxFragments=2, MaxWords=30, MinWords=10' END)
           END
    FROM found f CROSS JOIN page_end e
    WHERE f.n <= p_limit ORDER BY f.n;
END
$$;

CREATE FUNCTION public.get_job_queue_alerts(p_pending bigint DEFAULT 1000, p_processing interval DEFAULT '00:05:00'::interval, p_failure_rate double precision DEFAULT 0.1) RETURNS TABLE(alert text, severity text, value double precision, threshold double precision, message text, fix text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    v_bad record;
    v_now timestamptz := streamvibe.now();
    v_all record;
    v_hour record;
    v_stuck bigint;
BEGIN
    PERFORM streamvibe.require_service('get_job_queue_alerts');
    SELECT c.* INTO v_bad
    FROM (VALUES
        ('p_pending', p_pending::text, p_pending >= 0, 'Use 0 or more jobs.'),
        ('p_processing', p_processing::text, p_processing >= '0', 'Use an interval of 0 or more.'),
        ('p_failure_rate', p_failure_rate::text, p_failure_rate BETWEEN 0 AND 1, 'Use 0 to 1: 0.1 is ten percent.')
    ) c(field, received, good, fix) WHERE c.good IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', v_bad.field, v_bad.received, v_bad.field || ' is out of range', v_bad.fix);
    END IF;
    SELECT s.* INTO v_all FROM public.get_job_queue_stats() s;
    SELECT s.* INTO v_hour FROM public.get_job_queue_stats(v_now - interval '1 hour') s;
    IF v_all.pending_jobs > p_pending THEN
        RETURN QUERY SELECT 'pending', CASE WHEN v_all.pending_jobs > 10 * p_pending THEN 'warning' ELSE 'notice' END,
            v_all.pending_jobs::double precision, p_pending::double precision,
            v_all.pending_jobs || ' jobs wait, more than ' || p_pending,
            'Start more workers: streamvibe worker --concurrency 100; see which wait: SELECT jobs_by_type FROM get_job_queue_stats()';
    END IF;
    IF v_hour.avg_processing_seconds > extract(epoch FROM p_processing) THEN
        RETURN QUERY SELECT 'processing_time', 'warning', v_hour.avg_processing_seconds, extract(epoch FROM p_processing)::double precision,
            'jobs that ended in the last hour took ' || round(v_hour.avg_processing_seconds::numeric, 1) || ' s on average, more than '
            || extract(epoch FROM p_processing)::integer || ' s',
            'SELECT job_type, avg(completed_at - started_at) FROM job_queue WHERE status = ''completed'' AND completed_at > now() - interval ''1 hour'' GROUP BY 1 ORDER BY 2 DESC';
    END IF;
    IF v_hour.error_rate > p_failure_rate AND v_hour.completed_jobs + v_hour.failed_jobs >= 20 THEN
        RETURN QUERY SELECT 'failures', CASE WHEN v_hour.error_rate > 0.5 THEN 'critical' ELSE 'warning' END, v_hour.error_rate,
            p_failure_rate,
            round(100 * v_hour.error_rate::numeric, 1) || ' % of the ' || v_hour.completed_jobs + v_hour.failed_jobs
            || ' jobs that ended in the last hour failed, more than ' || round(100 * p_failure_rate::numeric, 1) || ' %',
            'SELECT job_type, failure_kind, error_message, count(*) FROM job_queue WHERE status = ''failed'' AND completed_at > now() - interval ''1 hour'' GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 10';
    END IF;
    v_stuck := (SELECT coalesce(sum(cardinality(c.job_ids)), 0)
                FROM streamvibe.live_claims() c LEFT JOIN streamvibe.worker w ON w.id = c.worker_id
                WHERE coalesce(w.heartbeat_at + w.lease, '-infinity') < v_now)
               + (SELECT count(*) FROM public.job_queue q
                  WHERE q.status = 'processing' AND q.started_at < v_now - interval '30 minutes'
                    AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c));
    IF v_stuck > 0 THEN
        RETURN QUERY SELECT 'stuck', 'critical', v_stuck::double precision, 0::double precision,
            v_stuck || ' jobs are held by workers that are gone', 'SELECT * FROM recover_stuck_jobs()';
    END IF;
END
$$;

CREATE FUNCTION public.get_job_queue_metrics(p_ages boolean DEFAULT true) RETURNS TABLE(metric text, labels text[], value double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_live record;
    v_pending text[];
BEGIN
    PERFORM streamvibe.require_service('get_job_queue_metrics');
    WITH held AS MATERIALIZED (
        -- Their rows say pending; a worker has them.
        SELECT q.job_type, count(*) AS n
        FROM (SELECT DISTINCT unnest(c.job_ids) AS id FROM streamvibe.live_claims() c) h
        CROSS JOIN LATERAL (SELECT j.job_type, j.status FROM public.job_queue j WHERE j.id = h.id OFFSET 0) q
        WHERE q.status = 'pending'
        GROUP BY q.job_type
    ), counted AS (
        SELECT e.job_type, e.status, sum(e.jobs) AS n
        FROM (SELECT s.job_type, s.status, s.jobs FROM streamvibe.stat_now s WHERE s.minutes = 0
              UNION ALL SELECT n.job_type, n.status, n.jobs FROM streamvibe.stat_note n
              UNION ALL SELECT h.job_type, m.status, m.sign * h.n FROM held h
                        CROSS JOIN (VALUES ('pending', -1), ('processing', 1)) m(status, sign)
              UNION ALL SELECT t.name, m.status, 0 FROM streamvibe.job_type t
                        CROSS JOIN (VALUES ('pending'), ('processing'), ('completed'), ('failed'), ('cancelled')) m(status)) e
        GROUP BY e.job_type, e.status
    )
    SELECT array_agg(c.job_type) AS job_types, array_agg(c.status) AS statuses, array_agg(c.n) AS numbers INTO v_live FROM counted c;
    RETURN QUERY
    SELECT 'jobs', ARRAY[u.job_type, u.status], u.n::double precision
    FROM unnest(v_live.job_types, v_live.statuses, v_live.numbers) u(job_type, status, n);

    -- Those that are in the queue, and those that were. Of a dropped leaf the first is true here until compact_stats() makes it the second.
    RETURN QUERY
    SELECT 'created', ARRAY[e.job_type], sum(e.jobs)::double precision
    FROM (SELECT s.job_type, s.jobs FROM streamvibe.stat s WHERE s.minutes = 0
          UNION ALL SELECT d.job_type, d.jobs FROM streamvibe.stat_delta d
          UNION ALL SELECT c.job_type, c.value FROM streamvibe.counter_now c WHERE c.name = 'removed'
          UNION ALL SELECT t.name, 0 FROM streamvibe.job_type t) e
    GROUP BY e.job_type;

    RETURN QUERY
    WITH counters AS MATERIALIZED (
        SELECT c.name, c.job_type, c.detail, sum(c.value) AS n FROM streamvibe.counter_now c
        WHERE c.name <> 'removed' GROUP BY c.name, c.job_type, c.detail
    )
    SELECT c.name, ARRAY[c.job_type, c.detail], c.n::double precision FROM counters c WHERE c.name IN ('failed', 'asked', 'recovered')
    UNION ALL
    -- A counter that is not there before it first counts would miss that in every rate.
    SELECT 'ended', ARRAY[e.job_type, e.status], sum(e.n)::double precision
    FROM (SELECT c.job_type, c.detail AS status, c.n FROM counters c WHERE c.name = 'ended'
          UNION ALL
          SELECT t.name, m.status, 0 FROM streamvibe.job_type t
          CROSS JOIN (VALUES ('completed'), ('failed'), ('cancelled')) m(status)) e
    GROUP BY e.job_type, e.status
    UNION ALL
    SELECT m.metric, ARRAY[t.job_type, b.bound::text], coalesce(c.n, 0)::double precision
    FROM (SELECT DISTINCT c.job_type FROM counters c WHERE c.name IN ('waited', 'processed')) t
    CROSS JOIN (VALUES ('waiting', 'waited'), ('processing', 'processed')) m(metric, name)
    CROSS JOIN unnest(streamvibe.histogram_bounds()) b(bound)
    LEFT JOIN counters c ON c.name = m.name AND c.job_type = t.job_type AND c.detail = b.bound::text
    UNION ALL
    SELECT CASE c.name WHEN 'waiting_us' THEN 'waiting_seconds' ELSE 'processing_seconds' END, ARRAY[c.job_type],
           (c.n / 1000000)::double precision
    FROM counters c WHERE c.name IN ('waiting_us', 'processing_us');

    IF p_ages THEN
        v_pending := streamvibe.not_paused(ARRAY(
            SELECT u.job_type FROM unnest(v_live.job_types, v_live.statuses, v_live.numbers) u(job_type, status, n)
            WHERE u.status = 'pending' AND u.n > 0));
        RETURN QUERY
        SELECT 'oldest_due_seconds', ARRAY[u.job_type],
               coalesce(greatest(extract(epoch FROM v_now - o.due_at), 0), 0)::double precision
        FROM (SELECT unnest(v_live.job_types) AS job_type UNION SELECT t.name FROM streamvibe.job_type t) u
        LEFT JOIN streamvibe.oldest_due(v_pending) o ON o.job_type = u.job_type;
    END IF;

    RETURN QUERY
    SELECT 'workers', ARRAY[s.state], count(w.id)::double precision
    FROM (VALUES ('alive'), ('dead')) s(state)
    LEFT JOIN streamvibe.worker w ON (w.heartbeat_at + w.lease >= v_now) = (s.state = 'alive')
    GROUP BY s.state
    UNION ALL
    SELECT 'now', '{}', extract(epoch FROM v_now)::double precision
    UNION ALL
    SELECT 'leader', '{}', (l.leader_id IS NOT NULL AND l.expires_at >= v_now)::integer::double precision FROM streamvibe.leader l
    UNION ALL
    SELECT 'duty_started', ARRAY[d.name, coalesce(d.schedule, d.usual_schedule)], extract(epoch FROM d.last_started_at)::double precision
    FROM streamvibe.duty d WHERE d.enabled AND d.last_started_at IS NOT NULL
    UNION ALL
    SELECT 'duty_failed', ARRAY[d.name], (d.last_error IS NOT NULL)::integer::double precision FROM streamvibe.duty d WHERE d.enabled
    UNION ALL
    SELECT 'pauses', ARRAY[k.kind], count(p.kind)::double precision
    FROM (VALUES ('all'), ('job_type'), ('user')) k(kind) LEFT JOIN streamvibe.pause p ON p.kind = k.kind
    GROUP BY k.kind
    UNION ALL
    SELECT 'partitions_ahead_seconds', ARRAY[t.parent],
           greatest(coalesce(extract(epoch FROM max(p.upper_at) - v_now), 0), 0)::double precision
    FROM (VALUES ('job_queue'), ('job_log')) t(parent) LEFT JOIN streamvibe.partition p ON p.parent_name = t.parent
    GROUP BY t.parent;

    RETURN QUERY
    WITH holders AS MATERIALIZED (
        SELECT 'session' AS holder, greatest(age(a.backend_xid), age(a.backend_xmin)) AS transactions, a.xact_start AS since
        FROM pg_stat_activity a
        WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
          -- A transaction elsewhere holds back only what it may read, which a catalogue snapshot may be.
          AND (a.datname = current_database() OR a.backend_xid IS NOT NULL)
          AND coalesce(a.backend_xid, a.backend_xmin) IS NOT NULL
        UNION ALL
        SELECT 'prepared', age(p.transaction), p.prepared FROM pg_prepared_xacts p
        UNION ALL
        SELECT 'slot', greatest(age(s.xmin), age(s.catalog_xmin)), NULL FROM pg_replication_slots s
        UNION ALL
        SELECT 'standby', age(r.backend_xmin), NULL FROM pg_stat_replication r
    )
    SELECT 'horizon_transactions', ARRAY[k.holder], coalesce(max(h.transactions), 0)::double precision
    FROM (VALUES ('session'), ('prepared'), ('slot'), ('standby')) k(holder) LEFT JOIN holders h USING (holder) GROUP BY k.holder
    UNION ALL
    SELECT 'horizon_seconds', ARRAY[k.holder],
           greatest(coalesce(extract(epoch FROM clock_timestamp() - min(h.since)), 0), 0)::double precision
    FROM (VALUES ('session'), ('prepared')) k(holder) LEFT JOIN holders h USING (holder) GROUP BY k.holder;

    RETURN QUERY
    SELECT m.metric, ARRAY[h.table_name], m.value::double precision
    FROM public.get_table_health() h
    CROSS JOIN LATERAL (VALUES ('table_rows', h.live_rows), ('table_dead_rows', h.dead_rows), ('table_bytes', h.size_bytes),
                               ('table_index_bytes', h.index_bytes)) m(metric, value);
END
$$;

CREATE FUNCTION public.get_job_queue_stats(p_since timestamp with time zone DEFAULT NULL::timestamp with time zone, p_job_type text DEFAULT NULL::text) RETURNS TABLE(total_jobs bigint, pending_jobs bigint, processing_jobs bigint, completed_jobs bigint, failed_jobs bigint, cancelled_jobs bigint, avg_processing_seconds double precision, avg_wait_seconds double precision, error_rate double precision, jobs_by_type jsonb, error_rates jsonb, processing_p50_seconds double precision, processing_p95_seconds double precision, processing_p99_seconds double precision, wait_p50_seconds double precision, wait_p95_seconds double precision, wait_p99_seconds double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_since timestamptz;
BEGIN
    PERFORM streamvibe.require_service('get_job_queue_stats');
    IF NOT isfinite(p_since) OR p_since >= '9999-01-01' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_since', p_since::text, 'p_since is not a moment',
            'Pass a time such as now() - interval ''1 day'', or NULL for everything.');
    ELSIF p_job_type IS NOT NULL THEN
        PERFORM streamvibe.known_job_type(p_job_type);
    END IF;
    v_since := streamvibe.minute_of(p_since);
    RETURN QUERY
    WITH noted AS MATERIALIZED (
        SELECT d.job_type, d.status, d.minute, sum(d.jobs) AS jobs, coalesce(sum(d.waiting_us), 0) AS waiting_us,
               coalesce(sum(d.processing_us), 0) AS processing_us
        FROM streamvibe.stat_note d
        WHERE p_job_type IS NULL OR d.job_type = p_job_type
        GROUP BY d.job_type, d.status, d.minute
    ), held AS MATERIALIZED (
        -- Their rows say pending; a worker has them.
        SELECT q.job_type, count(*) AS n
        FROM (SELECT DISTINCT unnest(c.job_ids) AS id FROM streamvibe.live_claims() c) h
        CROSS JOIN LATERAL (SELECT j.job_type, j.status, j.created_at FROM public.job_queue j WHERE j.id = h.id OFFSET 0) q
        WHERE q.status = 'pending' AND (v_since IS NULL OR q.created_at >= v_since)
        GROUP BY q.job_type
    ), counted AS MATERIALIZED (
        SELECT e.job_type, e.status, sum(e.jobs) AS n, sum(e.waiting_us) AS waiting_us, sum(e.processing_us) AS processing_us
        FROM (SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_since(v_since) s
              UNION ALL SELECT n.job_type, n.status, n.jobs, n.waiting_us, n.processing_us FROM noted n
                        WHERE v_since IS NULL OR n.minute >= v_since
              UNION ALL SELECT h.job_type, 'pending', -h.n, 0, 0 FROM held h
              UNION ALL SELECT h.job_type, 'processing', h.n, 0, 0 FROM held h) e
        WHERE p_job_type IS NULL OR e.job_type = p_job_type
        GROUP BY e.job_type, e.status HAVING sum(e.jobs) <> 0
    ), by_type AS (
        SELECT c.job_type, jsonb_object_agg(c.status, c.n) AS counts FROM counted c GROUP BY c.job_type
    ), ended AS (
        SELECT e.name, (sum(e.jobs) FILTER (WHERE e.status = 'failed') / nullif(sum(e.jobs), 0))::double precision AS rate,
               sum(e.jobs) AS jobs
        FROM (SELECT w.name, x.*
              FROM (SELECT i.name, streamvibe.minute_of(streamvibe.now() - i.long) AS since
                    FROM (VALUES ('1 hour', interval '1:00'), ('1 day', '24:00'), ('7 days', '168:00')) i(name, long)) w
              CROSS JOIN LATERAL (
                  SELECT s.job_type, s.status, s.jobs FROM streamvibe.stat_since(w.since) s
                  UNION ALL
                  SELECT n.job_type, n.status, n.jobs FROM noted n WHERE n.minute >= w.since) x) e
        WHERE e.status IN ('completed', 'failed') AND (p_job_type IS NULL OR e.job_type = p_job_type)
        GROUP BY e.name
    ), loose AS MATERIALIZED (
        -- Durations of which no groups are kept.
        SELECT s.measure, s.bucket, s.jobs FROM streamvibe.sketch_now s
        WHERE s.hour >= date_bin('1 hour', v_since, '2000-01-01 00:00:00+00')
          AND (p_job_type IS NULL OR s.job_type = p_job_type)
        UNION ALL
        SELECT n.measure, n.bucket, n.jobs FROM streamvibe.sketch_note n
        WHERE n.hour >= coalesce(date_bin('1 hour', v_since, '2000-01-01 00:00:00+00'), '-infinity')
          AND (p_job_type IS NULL OR n.job_type = p_job_type)
    ), groups AS MATERIALIZED (
        -- As double precision, which is exact for whole numbers up to 2^53, and added up three times as fast as numeric.
        SELECT g.measure, g.bucket_group, g.jobs,
               sum(g.jobs) OVER (PARTITION BY g.measure ORDER BY g.bucket_group ROWS UNBOUNDED PRECEDING) AS up_to
        FROM (SELECT e.measure, e.bucket_group, sum(e.jobs::double precision) AS jobs
              FROM (SELECT s.measure, s.bucket_group, s.jobs FROM streamvibe.sketch_groups(coalesce(p_job_type, '')) s
                    WHERE v_since IS NULL
                    UNION ALL
                    SELECT l.measure, l.bucket >> 4, l.jobs FROM loose l) e
              GROUP BY e.measure, e.bucket_group HAVING sum(e.jobs::double precision) <> 0) g
    ), wanted AS MATERIALIZED (
        -- In which group each percentile is: the first up to which there are so many.
        SELECT DISTINCT ON (a.measure, a.part) a.measure, a.part, a.place, g.bucket_group, g.up_to - g.jobs AS before
        FROM (SELECT m.measure, p.part, p.part * max(m.up_to) AS place
              FROM groups m CROSS JOIN (VALUES (0.50), (0.95), (0.99)) p(part) GROUP BY m.measure, p.part) a
        JOIN groups g ON g.measure = a.measure AND g.up_to >= a.place
        ORDER BY a.measure, a.part, g.bucket_group
    ), buckets AS (
        SELECT e.measure, e.bucket_group, e.bucket,
               sum(sum(e.jobs::double precision)) OVER (PARTITION BY e.measure, e.bucket_group ORDER BY e.bucket) AS up_to
        FROM (SELECT w.measure, w.bucket_group, s.bucket, s.jobs
              FROM (SELECT DISTINCT w.measure, w.bucket_group FROM wanted w WHERE v_since IS NULL) w
              CROSS JOIN LATERAL streamvibe.sketch_total(coalesce(p_job_type, ''), w.measure, w.bucket_group) s
              UNION ALL
              SELECT l.measure, l.bucket >> 4, l.bucket, l.jobs FROM loose l
              WHERE (l.measure, l.bucket >> 4) IN (SELECT w.measure, w.bucket_group FROM wanted w)) e
        GROUP BY e.measure, e.bucket_group, e.bucket
    ), percentiles AS (
        SELECT f.measure, max(f.seconds) FILTER (WHERE f.part = 0.50) AS p50, max(f.seconds) FILTER (WHERE f.part = 0.95) AS p95,
               max(f.seconds) FILTER (WHERE f.part = 0.99) AS p99
        FROM (SELECT w.measure, w.part, streamvibe.sketch_seconds(min(b.bucket)) AS seconds
              FROM wanted w JOIN buckets b ON b.measure = w.measure AND b.bucket_group = w.bucket_group AND w.before + b.up_to >= w.place
              GROUP BY w.measure, w.part) f
        GROUP BY f.measure
    )
    SELECT t.*, p.p50, p.p95, p.p99, w.p50, w.p95, w.p99
    FROM (
        SELECT coalesce(sum(c.n), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'pending'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'processing'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'completed'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'failed'), 0)::bigint,
               coalesce(sum(c.n) FILTER (WHERE c.status = 'cancelled'), 0)::bigint,
               (sum(c.processing_us) / 1000000 / nullif(sum(c.n) FILTER (WHERE c.status = 'completed'), 0))::double precision,
               (sum(c.waiting_us) / 1000000 / nullif(sum(c.n) FILTER (WHERE c.status = 'completed'), 0))::double precision,
               (coalesce(sum(c.n) FILTER (WHERE c.status = 'failed'), 0)
                / nullif(sum(c.n) FILTER (WHERE c.status IN ('completed', 'failed')), 0))::double precision,
               coalesce((SELECT jsonb_object_agg(b.job_type, b.counts) FROM by_type b), '{}'),
               (SELECT jsonb_object_agg(i.name, CASE WHEN e.jobs > 0 THEN coalesce(e.rate, 0) END)
                FROM (VALUES ('1 hour'), ('1 day'), ('7 days')) i(name) LEFT JOIN ended e USING (name))
        FROM counted c
    ) t
    LEFT JOIN percentiles p ON p.measure = 'processing'
    LEFT JOIN percentiles w ON w.measure = 'waiting';
END
$$;

CREATE FUNCTION public.get_job_result(p_job_id uuid, p_user_id uuid DEFAULT NULL::uuid) RETURNS TABLE(job_id uuid, status text, result jsonb, failure_kind text, error_message text, completed_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
BEGIN
    RETURN QUERY SELECT j.id, j.status, j.result, j.failure_kind, j.error_message, j.completed_at
                 FROM streamvibe.job j
                 WHERE j.id = p_job_id AND (v_user_id IS NULL OR j.user_id = v_user_id);
END
$$;

CREATE FUNCTION public.get_maintenance() RETURNS TABLE(duty text, state text, schedule text, enabled boolean, running_since timestamp with time zone, last_started_at timestamp with time zone, last_ended_at timestamp with time zone, last_done bigint, last_error text, leader_id text, led_since timestamp with time zone, leader_is_alive boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_maintenance');
    RETURN QUERY
    SELECT d.name,
           CASE WHEN d.running_since IS NOT NULL AND l.expires_at >= streamvibe.now() THEN 'running'
                WHEN NOT d.enabled THEN 'disabled' WHEN d.last_error IS NOT NULL THEN 'failed'
                WHEN d.last_ended_at IS NOT NULL THEN 'done' ELSE 'new' END,
           coalesce(d.schedule, d.usual_schedule), d.enabled, d.running_since, d.last_started_at, d.last_ended_at,
           d.last_done, d.last_error, l.leader_id, l.led_since, l.leader_id IS NOT NULL AND l.expires_at >= streamvibe.now()
    FROM streamvibe.duty d CROSS JOIN streamvibe.leader l
    ORDER BY d.name;
END
$$;

CREATE FUNCTION public.get_maintenance_runs(p_duty text DEFAULT NULL::text, p_limit integer DEFAULT 50) RETURNS TABLE(duty text, started_at timestamp with time zone, ended_at timestamp with time zone, runs integer, done bigint, error text, leader_id text, fence bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_maintenance_runs');
    PERFORM streamvibe.check_page(p_limit, NULL);
    RETURN QUERY
    SELECT r.duty, r.started_at, r.ended_at, r.runs, r.done, r.error, r.leader_id, r.fence
    FROM streamvibe.duty_run r
    WHERE p_duty IS NULL OR r.duty = p_duty
    ORDER BY r.id DESC LIMIT p_limit;
END
$$;

CREATE FUNCTION public.get_pauses() RETURNS TABLE(job_type text, user_id uuid, paused_at timestamp with time zone, reason text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_pauses');
    RETURN QUERY
    SELECT CASE WHEN p.kind = 'job_type' THEN p.name END, CASE WHEN p.kind = 'user' THEN p.name::uuid END, p.paused_at, p.reason
    FROM streamvibe.pause p ORDER BY p.paused_at, p.kind, p.name;
END
$$;

CREATE FUNCTION public.get_reports(p_kind text DEFAULT 'weekly'::text, p_limit integer DEFAULT 1) RETURNS TABLE(kind text, period_start timestamp with time zone, period_end timestamp with time zone, made_at timestamp with time zone, content jsonb)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_reports');
    PERFORM streamvibe.report_unit(p_kind);
    PERFORM streamvibe.check_page(p_limit, NULL);
    RETURN QUERY
    SELECT r.kind, r.period_start, r.period_end, r.made_at, r.content FROM streamvibe.report r
    WHERE r.kind = p_kind ORDER BY r.period_start DESC LIMIT p_limit;
END
$$;

CREATE FUNCTION public.get_slow_statements(p_limit integer DEFAULT 20) RETURNS TABLE(statement text, calls bigint, total_seconds double precision, mean_seconds double precision, max_seconds double precision, rows_per_call double precision, blocks_per_call double precision, query_id bigint, since timestamp with time zone, problem text, fix text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    -- A setting of the library's, which everybody may see: shared_preload_libraries is hidden from most.
    v_is_loaded CONSTANT boolean := current_setting('pg_stat_statements.max', true) IS NOT NULL;
    v_schema name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                      WHERE e.extname = 'pg_stat_statements');
    v_view oid := (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = v_schema AND c.relname = 'pg_stat_statements');
    v_load CONSTANT text := 'ALTER SYSTEM SET shared_preload_libraries = ''pg_stat_statements'' (beside what is there), and restart PostgreSQL';
    v_ours text;
    v_hidden bigint;
BEGIN
    PERFORM streamvibe.require_service('get_slow_statements');
    PERFORM streamvibe.check_page(p_limit, NULL);
    IF v_schema IS NULL THEN
        problem := 'the extension pg_stat_statements is not in this database';
        fix := CASE WHEN v_is_loaded THEN '' ELSE v_load || '; then ' END || 'CREATE EXTENSION pg_stat_statements';
    ELSIF NOT v_is_loaded THEN
        problem := 'the extension pg_stat_statements is there, but its library is not loaded';
        fix := v_load;
    ELSIF NOT (has_schema_privilege(v_schema, 'USAGE') AND has_table_privilege(v_view, 'SELECT')) THEN
        problem := format('the role %s may not read %I.pg_stat_statements', current_user, v_schema);
        fix := format('GRANT USAGE ON SCHEMA %1$I TO %2$I; GRANT SELECT ON %1$I.pg_stat_statements, %1$I.pg_stat_statements_info TO %2$I',
                      v_schema, current_user);
    ELSIF (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = v_view AND a.attname IN ('total_exec_time', 'toplevel')) < 2 THEN
        problem := 'the extension pg_stat_statements is older than the server';
        fix := 'ALTER EXTENSION pg_stat_statements UPDATE';
    END IF;
    IF problem IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    v_ours := (SELECT '\m(streamvibe\.|job_queue\M|job_log\M|(' || string_agg(DISTINCT o.function_name, '|') || ')\M"?\s*\()'
               FROM streamvibe.own_functions() o WHERE o.schema_name = 'public');
    RETURN QUERY EXECUTE format($query$
        SELECT t.said, t.calls, t.total / 1000, t.total / t.calls / 1000, t.longest / 1000, t.rows / t.calls::double precision,
               t.blocks / t.calls::double precision, t.queryid, i.stats_reset, NULL::text, NULL::text
        FROM (SELECT s.queryid, streamvibe.without_literals(min(s.query)) AS said, sum(s.calls)::bigint AS calls,
                     sum(s.total_exec_time) AS total, max(s.max_exec_time) AS longest, sum(s.rows) AS rows,
                     sum(s.shared_blks_hit + s.shared_blks_read) AS blocks
              FROM %1$I.pg_stat_statements s
              WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                AND s.query ~ $1 AND s.calls > 0
              GROUP BY s.queryid) t
        CROSS JOIN %1$I.pg_stat_statements_info i
        -- Once more: the name may have stood in a constant.
        WHERE t.said ~ $1 AND t.said !~* '^(create|alter|drop|grant|revoke|comment|do)\M'
        ORDER BY t.total DESC, t.queryid LIMIT $2
    $query$, v_schema) USING v_ours, p_limit;
    EXECUTE format($query$
        SELECT count(*) FROM %I.pg_stat_statements s
        WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND s.queryid IS NULL
    $query$, v_schema) INTO v_hidden;
    IF v_hidden > 0 THEN
        RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::double precision, NULL::double precision, NULL::double precision,
            NULL::double precision, NULL::double precision, NULL::bigint, NULL::timestamptz,
            format('the role %s may not see %s statements of other roles', current_user, v_hidden),
            format('GRANT pg_read_all_stats TO %I', current_user);
    END IF;
END
$_$;

CREATE FUNCTION public.get_table_health() RETURNS TABLE(table_name text, leaves integer, live_rows bigint, dead_rows bigint, size_bytes bigint, index_bytes bigint, last_vacuum timestamp with time zone, last_analyze timestamp with time zone, changed_since_analyze bigint, transaction_age integer, worst_table text, verdict text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('get_table_health');
    RETURN QUERY
    SELECT h.name, h.parts, h.live, h.dead, h.size, h.indexes, h.vacuumed, h.analyzed, h.changed, h.age, h.worst,
           CASE WHEN h.age > h.freeze_max / 2 THEN 'wraparound' WHEN h.dead > 50000 AND h.dead > h.live / 4 THEN 'bloated'
                WHEN h.live > 10000 AND h.analyzed IS NULL THEN 'not analyzed' ELSE 'ok' END
    FROM (SELECT r.name, count(*)::integer AS parts, sum(s.n_live_tup)::bigint AS live, sum(s.n_dead_tup)::bigint AS dead,
                 sum(pg_table_size(r.relation))::bigint AS size, sum(pg_indexes_size(r.relation))::bigint AS indexes,
                 max(greatest(s.last_vacuum, s.last_autovacuum)) AS vacuumed,
                 max(greatest(s.last_analyze, s.last_autoanalyze)) AS analyzed,
                 sum(s.n_mod_since_analyze)::bigint AS changed, max(age(c.relfrozenxid)) AS age,
                 (array_agg(r.relation::regclass::text ORDER BY s.n_dead_tup DESC))[1] AS worst,
                 current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max
          FROM streamvibe.own_relations() r
          JOIN pg_class c ON c.oid = r.relation
          JOIN pg_stat_user_tables s ON s.relid = r.relation
          WHERE r.kind = 'r'
          GROUP BY r.name) h
    ORDER BY h.size + h.indexes DESC, h.name;
END
$$;

CREATE FUNCTION public.get_user_jobs(p_user_id uuid, p_status text DEFAULT NULL::text, p_job_type text DEFAULT NULL::text, p_limit integer DEFAULT 50, p_offset integer DEFAULT 0, p_order_by text DEFAULT 'created_at'::text, p_order_dir text DEFAULT 'DESC'::text) RETURNS TABLE(id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb, failure_kind text, error_message text, retry_count integer, progress real, progress_message text, worker_id text, created_at timestamp with time zone, updated_at timestamp with time zone, scheduled_for timestamp with time zone, started_at timestamp with time zone, completed_at timestamp with time zone, expires_at timestamp with time zone, retry_at timestamp with time zone, idempotency_key text, total_count bigint, total_age interval)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_desc boolean := upper(p_order_dir) = 'DESC';
    v_total record;
    v_below uuid;
    v_ids uuid[];
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    IF p_offset IS NULL OR p_offset < 0 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_offset', p_offset::text, 'p_offset is out of range',
            'Use 0 to 1000.');
    ELSIF p_offset > 1000 THEN
        PERFORM streamvibe.raise_error('SV015', 'p_offset', p_offset::text,
            'p_offset is past 1000, where pages get slow and shift',
            'Use get_user_jobs_by_cursor(p_user_id, p_cursor), which costs the same at any depth.');
    ELSIF (p_order_by IN ('created_at', 'completed_at', 'job_priority')) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_order_by', p_order_by, 'p_order_by is unknown',
            'Use created_at, completed_at or job_priority.');
    ELSIF (upper(p_order_dir) IN ('ASC', 'DESC')) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_order_dir', p_order_dir, 'p_order_dir is unknown',
            'Use ASC or DESC.');
    END IF;
    v_total := streamvibe.total_of_user_jobs(v_user_id, p_status, p_job_type, NULL, NULL);
    IF p_order_by = 'created_at' AND v_desc AND p_status IN ('completed', 'failed', 'cancelled') THEN
        -- What is asked for most, in one scan. Later partitions are empty, and are left out; a day, because clocks may be set back.
        v_below := streamvibe.id_bound(streamvibe.now() + interval '1 day');
        RETURN QUERY
        SELECT j.*, v_total.total, v_total.age FROM streamvibe.ended_jobs(v_user_id, p_status, p_job_type, v_below) j
        ORDER BY j.created_at DESC, j.id DESC LIMIT p_limit OFFSET p_offset;
        RETURN;
    ELSIF p_order_by = 'created_at' THEN
        v_ids := ARRAY(SELECT i.id FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, NULL, NULL, p_limit, p_offset,
                                                                v_desc) i);
        RETURN QUERY
        SELECT j.*, v_total.total, v_total.age FROM streamvibe.page_of_jobs(v_ids) j
        ORDER BY CASE WHEN v_desc THEN j.id END DESC, j.id;
        RETURN;
    END IF;
    -- No index has this order for a user. What cannot be sorted within milliseconds is refused.
    IF v_total.total > 10000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_order_by', p_order_by,
            format('the list has %s jobs, and more than 10,000 are only listed in the order of created_at', v_total.total),
            'Order by created_at, or narrow the list with p_status or p_job_type.');
    END IF;
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT i.id, row_number() OVER (
                   ORDER BY CASE WHEN p_order_by = 'completed_at' AND v_desc THEN i.completed_at END DESC NULLS LAST,
                            CASE WHEN p_order_by = 'completed_at' AND NOT v_desc THEN i.completed_at END ASC NULLS LAST,
                            CASE WHEN p_order_by = 'job_priority' AND v_desc THEN i.job_priority END DESC,
                            CASE WHEN p_order_by = 'job_priority' AND NOT v_desc THEN i.job_priority END ASC,
                            CASE WHEN v_desc THEN i.id END DESC,
                            CASE WHEN NOT v_desc THEN i.id END ASC) AS nth
        FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, NULL, NULL, 10000) i
        ORDER BY nth LIMIT p_limit OFFSET p_offset
    )
    SELECT j.*, v_total.total, v_total.age
    FROM page p CROSS JOIN LATERAL (SELECT j.* FROM streamvibe.job j WHERE j.id = p.id OFFSET 0) j
    ORDER BY p.nth;
END
$$;

CREATE FUNCTION public.get_user_jobs_by_bucket(p_user_id uuid, p_bucket text DEFAULT 'day'::text, p_page integer DEFAULT 1, p_status text DEFAULT NULL::text, p_job_type text DEFAULT NULL::text, p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL::text, p_time_zone text DEFAULT 'UTC'::text) RETURNS TABLE(id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb, failure_kind text, error_message text, retry_count integer, progress real, progress_message text, worker_id text, created_at timestamp with time zone, updated_at timestamp with time zone, scheduled_for timestamp with time zone, started_at timestamp with time zone, completed_at timestamp with time zone, expires_at timestamp with time zone, retry_at timestamp with time zone, idempotency_key text, bucket_start timestamp with time zone, bucket_end timestamp with time zone, bucket_total bigint, bucket_total_age interval, next_cursor text, has_more boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_filter text := concat_ws('|', 'bucket', v_user_id, coalesce(p_status, '*'), coalesce(p_job_type, '*'), p_bucket,
                               p_page, p_time_zone);
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_at timestamptz := coalesce(streamvibe.id_time(v_after), streamvibe.now());
    v_back integer := CASE WHEN v_after IS NULL THEN p_page - 1 ELSE 0 END;
    v_width interval;
    v_local timestamp;
    v_start timestamptz;
    v_end timestamptz;
    v_total record;
    v_ids uuid[];
    v_has_more boolean;
    v_next text;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    IF (p_bucket IN ('hour', 'day', 'week', 'month')) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_bucket', p_bucket, 'p_bucket is unknown',
            'Use hour, day, week or month.');
    ELSIF p_page IS NULL OR p_page NOT BETWEEN 1 AND 1000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_page', p_page::text, 'p_page is out of range',
            'Use 1 (the present one) to 1000, or a wider bucket.');
    END IF;
    v_width := ('1 ' || p_bucket)::interval;
    BEGIN
        v_local := date_trunc(p_bucket, v_at AT TIME ZONE p_time_zone) - v_back * v_width;
    EXCEPTION
        WHEN invalid_parameter_value THEN NULL;
    END;
    IF v_local IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_time_zone', p_time_zone, 'p_time_zone is unknown',
            'Use a name of the time zone database, like UTC or Europe/Berlin.');
    ELSIF p_bucket = 'hour' THEN
        -- Hours are counted in time that passes: when clocks are set back, one comes twice.
        v_start := date_trunc(p_bucket, v_at, p_time_zone) - v_back * v_width;
        v_end := v_start + v_width;
    ELSE
        v_start := v_local AT TIME ZONE p_time_zone;
        v_end := (v_local + v_width) AT TIME ZONE p_time_zone;
    END IF;
    v_total := streamvibe.total_of_user_jobs(v_user_id, p_status, p_job_type, v_start, v_end);
    v_ids := ARRAY(SELECT i.id FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, streamvibe.id_floor(v_start),
                                                            coalesce(v_after, streamvibe.id_floor(v_end)), p_limit + 1) i);
    v_has_more := cardinality(v_ids) > p_limit;
    IF v_has_more THEN
        v_next := streamvibe.cursor_of(v_ids[p_limit], v_filter);
        v_ids := v_ids[:p_limit];
    END IF;
    RETURN QUERY
    SELECT j.*, v_start, v_end, v_total.total, v_total.age, v_next, v_has_more
    FROM (SELECT) one LEFT JOIN streamvibe.page_of_jobs(v_ids) j ON true
    ORDER BY j.id DESC;
END
$$;

CREATE FUNCTION public.get_user_jobs_by_cursor(p_user_id uuid, p_cursor text DEFAULT NULL::text, p_status text DEFAULT NULL::text, p_job_type text DEFAULT NULL::text, p_limit integer DEFAULT 50) RETURNS TABLE(id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb, failure_kind text, error_message text, retry_count integer, progress real, progress_message text, worker_id text, created_at timestamp with time zone, updated_at timestamp with time zone, scheduled_for timestamp with time zone, started_at timestamp with time zone, completed_at timestamp with time zone, expires_at timestamp with time zone, retry_at timestamp with time zone, idempotency_key text, next_cursor text, has_more boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_filter text := concat_ws('|', 'jobs', v_user_id, coalesce(p_status, '*'), coalesce(p_job_type, '*'));
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_ids uuid[];
    v_has_more boolean;
    v_next text;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    v_ids := ARRAY(SELECT i.id FROM streamvibe.user_job_ids(v_user_id, p_status, p_job_type, NULL, v_after, p_limit + 1) i);
    v_has_more := cardinality(v_ids) > p_limit;
    IF v_has_more THEN
        v_next := streamvibe.cursor_of(v_ids[p_limit], v_filter);
        v_ids := v_ids[:p_limit];
    END IF;
    RETURN QUERY
    SELECT j.*, v_next, v_has_more FROM streamvibe.page_of_jobs(v_ids) j ORDER BY j.id DESC;
END
$$;

CREATE FUNCTION public.get_workers() RETURNS TABLE(worker_id text, job_types text[], is_alive boolean, claimed_jobs integer, started_at timestamp with time zone, heartbeat_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('get_workers');
    RETURN QUERY
    SELECT w.id, w.job_types, w.heartbeat_at + w.lease >= streamvibe.now(),
           coalesce(h.jobs, 0)::integer, w.started_at, w.heartbeat_at
    FROM streamvibe.worker w
    LEFT JOIN (SELECT c.worker_id, sum(cardinality(c.job_ids)) AS jobs FROM streamvibe.live_claims() c
               GROUP BY c.worker_id) h ON h.worker_id = w.id
    ORDER BY w.started_at, w.id;
END
$$;

CREATE FUNCTION public.heartbeat_worker(p_worker_id text, p_job_types text[] DEFAULT NULL::text[], p_lease interval DEFAULT '00:00:10'::interval, p_job_ids uuid[] DEFAULT '{}'::uuid[], p_tokens bigint[] DEFAULT '{}'::bigint[], p_metadata jsonb DEFAULT NULL::jsonb) RETURNS TABLE(job_id uuid, reason text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
BEGIN
    PERFORM streamvibe.require_service('heartbeat_worker');
    IF p_worker_id IS NULL OR length(p_worker_id) NOT BETWEEN 1 AND 200 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_worker_id', p_worker_id, 'p_worker_id has the wrong length',
            'Use 1 to 200 characters, different for every worker process.');
    ELSIF p_lease IS NULL OR p_lease NOT BETWEEN '500 milliseconds' AND '1 day' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_lease', p_lease::text, 'p_lease is out of range',
            'Use 0.5 seconds to 1 day, and renew it three times as often.');
    END IF;
    INSERT INTO streamvibe.worker AS w (id, job_types, lease, heartbeat_at, started_at, metadata)
    VALUES (p_worker_id, p_job_types, p_lease, v_now, v_now, p_metadata)
    ON CONFLICT (id) DO UPDATE
    SET heartbeat_at = excluded.heartbeat_at, job_types = excluded.job_types, lease = excluded.lease,
        metadata = coalesce(excluded.metadata, w.metadata), left_over = NULL;
    RETURN QUERY
    SELECT r.job_id, CASE WHEN q.status = 'cancelled' THEN 'cancelled' ELSE 'lost' END
    FROM unnest(p_tokens, p_job_ids) r(token, job_id)
    LEFT JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h ON h.token = r.token AND h.job_id = r.job_id
    LEFT JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = r.job_id OFFSET 0) q ON true
    WHERE h.job_id IS NULL OR q.status IS DISTINCT FROM 'pending' AND q.status IS DISTINCT FROM 'processing';
END
$$;

CREATE FUNCTION public.hold_claim(p_worker_id text, p_token bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('hold_claim');
    PERFORM streamvibe.require_read_committed('hold_claim', 'Use READ COMMITTED.');
    UPDATE streamvibe.claim c SET held = true
    WHERE c.token = p_token AND c.worker_id = p_worker_id AND c.in_transaction;
    RETURN FOUND;
END
$$;

CREATE FUNCTION public.keep_claim(p_worker_id text, p_token bigint, p_in_transaction boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('keep_claim');
    PERFORM streamvibe.require_read_committed('keep_claim', 'Use READ COMMITTED.');
    UPDATE streamvibe.claim c SET held = false, in_transaction = p_in_transaction
    WHERE c.token = p_token AND c.worker_id = p_worker_id AND c.held;
END
$$;

CREATE FUNCTION public.lease_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_started_at timestamp with time zone[]) RETURNS TABLE(job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_leased uuid[];
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('lease_jobs');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_started_at)]) l;
    v_now := streamvibe.now();
    WITH leased AS (
        UPDATE public.job_queue q
        SET status = 'processing', worker_id = p_worker_id, claim_token = r.token, updated_at = v_now,
            started_at = least(greatest(r.started_at, r.since), v_now)
        FROM unnest(p_tokens, p_job_ids, p_started_at, v_mine.since) r(token, job_id, started_at, since)
        WHERE q.id = r.job_id AND r.since IS NOT NULL AND coalesce(q.status, '') = 'pending'
          AND q.id = ANY (v_mine.locked)
          AND q.id BETWEEN v_mine.locked[1] AND v_mine.locked[cardinality(v_mine.locked)]
        RETURNING q.tableoid AS leaf, q.id, q.job_type, q.created_at
    ), notes AS MATERIALIZED (
        SELECT l.leaf, l.job_type, streamvibe.minute_of(l.created_at) AS minute, count(*) AS jobs FROM leased l
        GROUP BY l.leaf, l.job_type, streamvibe.minute_of(l.created_at)
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
               n.job_type, m.status, n.minute, m.sign * n.jobs
        FROM notes n CROSS JOIN (VALUES ('pending', -1), ('processing', 1)) m(status, sign)
    )
    SELECT coalesce(array_agg(l.id), '{}') INTO v_leased FROM leased l;
    RETURN QUERY
    SELECT s.* FROM streamvibe.statuses_now(
        ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id) WHERE u.id NOT IN (SELECT unnest(v_leased))), v_mine.busy) s;
END
$$;

CREATE FUNCTION public.make_report(p_kind text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_now CONSTANT timestamptz := streamvibe.now();
    v_unit CONSTANT text := streamvibe.report_unit(p_kind);
    v_to CONSTANT timestamptz := date_trunc(v_unit, v_now, 'UTC');
    v_from CONSTANT timestamptz := date_trunc(v_unit, v_to - interval '1 hour', 'UTC');
    v_today CONSTANT timestamptz := date_trunc('day', v_now, 'UTC');
    v_installed_at timestamptz;
    v_before streamvibe.report;
    v_days integer;
    v_made integer := 0;
BEGIN
    PERFORM streamvibe.require_service('make_report');
    v_installed_at := (SELECT min(m.applied_at) FROM streamvibe.schema_migration m);
    INSERT INTO streamvibe.report (kind, period_start, period_end, made_at, content)
    SELECT 'daily', d.day, d.day + interval '24 hours', v_now, streamvibe.day_figures(d.day)
    FROM (SELECT v_today - n * interval '24 hours' AS day FROM generate_series(1, 7) n) d
    WHERE d.day + interval '24 hours' > v_installed_at
      AND NOT EXISTS (SELECT FROM streamvibe.report r WHERE r.kind = 'daily' AND r.period_start = d.day)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_days = ROW_COUNT;
    IF p_kind <> 'daily' AND v_to > v_installed_at
       AND NOT EXISTS (SELECT FROM streamvibe.report r WHERE r.kind = p_kind AND r.period_start = v_from) THEN
        SELECT r.* INTO v_before FROM streamvibe.report r
        WHERE r.kind = p_kind AND r.period_start < v_from ORDER BY r.period_start DESC LIMIT 1;
        INSERT INTO streamvibe.report (kind, period_start, period_end, made_at, content)
        VALUES (p_kind, v_from, v_to, v_now,
                streamvibe.report_content(v_from, v_to, v_before.content)
                || jsonb_build_object('compared_with', v_before.period_start))
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_made = ROW_COUNT;
    END IF;
    DELETE FROM streamvibe.report r
    USING (VALUES ('daily', interval '100 days'), ('weekly', '2 years'), ('monthly', '10 years')) k(kind, age)
    WHERE r.kind = k.kind AND r.period_end < v_now - k.age;
    RETURN CASE WHEN p_kind = 'daily' THEN v_days ELSE v_made END > 0;
END
$$;

CREATE FUNCTION public.pause_jobs(p_job_type text DEFAULT NULL::text, p_user_id uuid DEFAULT NULL::uuid, p_reason text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('pause_jobs');
    INSERT INTO streamvibe.pause (kind, name, paused_at, reason)
    SELECT k.kind, k.name, streamvibe.now(), left(p_reason, 1000) FROM streamvibe.pause_key(p_job_type, p_user_id) k
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;

CREATE FUNCTION public.recount_stats() RETURNS TABLE(job_type text, status text, jobs_before bigint, jobs_now bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('recount_stats');
    PERFORM streamvibe.require_read_committed('recount_stats', 'Use READ COMMITTED.');
    PERFORM FROM streamvibe.stat_lock FOR UPDATE;
    -- Whoever drops a leaf has its row before its table: so that nobody waits for the other.
    PERFORM FROM streamvibe.partition p WHERE p.sealed_at IS NOT NULL ORDER BY p.parent_name, p.lower_at FOR UPDATE;
    RETURN QUERY
    -- One statement, one snapshot: a note is either seen and replaced, together with the rows it speaks of, or neither.
    WITH noted AS (
        DELETE FROM streamvibe.stat_delta d
        RETURNING d.leaf_number, d.job_type, d.status, d.jobs::bigint AS jobs, coalesce(d.waiting_us, 0) AS waiting_us,
                  coalesce(d.processing_us, 0) AS processing_us, d.waited, d.processed
    ), gone AS (
        DELETE FROM streamvibe.dropped_leaf g RETURNING g.leaf_number
    ), to_count_again AS (
        UPDATE streamvibe.partition p SET row_count = NULL WHERE p.parent_name = 'job_queue' AND p.row_count IS NOT NULL
    ), added AS (
        DELETE FROM streamvibe.stat s RETURNING s.*
    ), sketched AS (
        DELETE FROM streamvibe.stat_sketch
    ), counted AS MATERIALIZED (
        SELECT * FROM streamvibe.counted_jobs()
    ), fresh AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT c.leaf_number, c.job_type, c.status, c.minute, c.jobs, c.waiting_us, c.processing_us, c.waited, c.processed
        FROM counted c
    ), kept AS (
        -- The new notes look like jobs that come to an end now, and took the place of those that did.
        INSERT INTO streamvibe.counter AS c (name, job_type, detail, value)
        SELECT e.name, e.job_type, e.detail, sum(e.value)
        FROM (SELECT s.name, n.job_type, s.detail, s.value
              FROM noted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              UNION ALL
              SELECT s.name, n.job_type, s.detail, -s.value
              FROM counted n
              CROSS JOIN LATERAL streamvibe.counts_of(n.status, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed) s
              UNION ALL
              SELECT 'removed', n.job_type, '', n.jobs FROM noted n
              UNION ALL
              SELECT 'removed', a.job_type, '', a.jobs FROM added a WHERE a.minutes = 0
              UNION ALL
              SELECT 'removed', n.job_type, '', -n.jobs FROM counted n) e
        GROUP BY e.name, e.job_type, e.detail
        ORDER BY e.name, e.job_type, e.detail
        ON CONFLICT (name, job_type, detail) DO UPDATE SET value = c.value + excluded.value
    )
    SELECT e.job_type, e.status, sum(e.was)::bigint, sum(e.is_now)::bigint
    FROM (SELECT n.job_type, n.status, n.jobs AS was, 0::bigint AS is_now, -n.waiting_us AS waiting, -n.processing_us AS processing
          FROM noted n WHERE NOT EXISTS (SELECT FROM gone g WHERE g.leaf_number = n.leaf_number)
          UNION ALL
          SELECT a.job_type, a.status, a.jobs, 0, -a.waiting_us, -a.processing_us FROM added a WHERE a.minutes = 0
          UNION ALL
          SELECT a.job_type, a.status, -a.jobs, 0, a.waiting_us, a.processing_us FROM added a JOIN gone g USING (leaf_number)
          WHERE a.minutes = -1
          UNION ALL
          SELECT c.job_type, c.status, 0, c.jobs, coalesce(c.waiting_us, 0), coalesce(c.processing_us, 0) FROM counted c) e
    GROUP BY e.job_type, e.status
    HAVING sum(e.was) <> sum(e.is_now) OR sum(e.waiting) <> 0 OR sum(e.processing) <> 0
    ORDER BY e.job_type, e.status;
END
$$;

CREATE FUNCTION public.recover_broken_claims() RETURNS TABLE(job_id uuid, worker_id text, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
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

CREATE FUNCTION public.recover_stuck_jobs(p_not_after timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(job_id uuid, worker_id text, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
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

CREATE FUNCTION public.register_job_type(p_name text, p_cache_ttl interval DEFAULT '01:00:00'::interval, p_dedupe_window interval DEFAULT '00:05:00'::interval, p_max_attempts integer DEFAULT 3, p_backoff_base interval DEFAULT '00:00:02'::interval, p_backoff_max interval DEFAULT '01:00:00'::interval, p_timeout interval DEFAULT '00:30:00'::interval, p_max_live_jobs integer DEFAULT NULL::integer, p_priority integer DEFAULT 5, p_expires_after interval DEFAULT '24:00:00'::interval, p_retention interval DEFAULT '7 days'::interval, p_log_retention interval DEFAULT '30 days'::interval, p_max_params_bytes integer DEFAULT 1048576) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_bad record;
BEGIN
    PERFORM streamvibe.require_service('register_job_type');
    SELECT c.* INTO v_bad
    FROM (VALUES
        ('p_name', p_name, p_name ~ '^[a-z][a-z0-9_.-]{0,62}$',
            'Use a lowercase letter, then up to 62 of a-z 0-9 _ . -'),
        ('p_cache_ttl', p_cache_ttl::text, p_cache_ttl BETWEEN '0' AND '100 years',
            'Use ''0'' (off) to ''100 years''.'),
        ('p_dedupe_window', p_dedupe_window::text, p_dedupe_window BETWEEN '0' AND '100 years',
            'Use ''0'' (off) to ''100 years''.'),
        ('p_max_attempts', p_max_attempts::text, p_max_attempts BETWEEN 1 AND 100, 'Use 1 to 100.'),
        ('p_backoff_base', p_backoff_base::text, p_backoff_base BETWEEN '0' AND '1 year',
            'Use ''0'' to ''1 year''.'),
        ('p_backoff_max', p_backoff_max::text, p_backoff_max BETWEEN p_backoff_base AND '1 year',
            'Use at least p_backoff_base, and at most ''1 year''.'),
        ('p_timeout', p_timeout::text, p_timeout > '0' AND p_timeout <= '100 years',
            'Use more than ''0'', up to ''100 years''.'),
        ('p_max_live_jobs', p_max_live_jobs::text, p_max_live_jobs IS NULL OR p_max_live_jobs >= 0,
            'Use 0 or more, or NULL for no limit of its own.'),
        ('p_priority', p_priority::text, p_priority BETWEEN 0 AND 9, 'Use 0 to 9; higher runs first.'),
        ('p_expires_after', p_expires_after::text,
            p_expires_after IS NULL OR p_expires_after > '0' AND p_expires_after <= '100 years',
            'Use more than ''0'', up to ''100 years'', or NULL for never.'),
        ('p_retention', p_retention::text, p_retention > '0' AND p_retention <= '100 years',
            'Use more than ''0'', up to ''100 years''.'),
        ('p_log_retention', p_log_retention::text, p_log_retention > '0' AND p_log_retention <= '100 years',
            'Use more than ''0'', up to ''100 years''.'),
        ('p_max_params_bytes', p_max_params_bytes::text, p_max_params_bytes BETWEEN 2 AND 104857600,
            'Use 2 to 104857600 (100 MiB).')
    ) c(field, received, good, fix)
    WHERE c.good IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', v_bad.field, v_bad.received,
            v_bad.field || ' is not a possible setting', v_bad.fix);
    END IF;
    INSERT INTO streamvibe.job_type AS t
        (name, cache_ttl, dedupe_window, max_attempts, backoff_base, backoff_max, timeout, max_live_jobs,
         priority, expires_after, retention, log_retention, max_params_bytes)
    VALUES (p_name, p_cache_ttl, p_dedupe_window, p_max_attempts, p_backoff_base, p_backoff_max, p_timeout,
            p_max_live_jobs, p_priority, p_expires_after, p_retention, p_log_retention, p_max_params_bytes)
    ON CONFLICT (name) DO UPDATE
    SET cache_ttl = excluded.cache_ttl, dedupe_window = excluded.dedupe_window,
        max_attempts = excluded.max_attempts, backoff_base = excluded.backoff_base,
        backoff_max = excluded.backoff_max, timeout = excluded.timeout,
        max_live_jobs = excluded.max_live_jobs, priority = excluded.priority,
        expires_after = excluded.expires_after, retention = excluded.retention,
        log_retention = excluded.log_retention, max_params_bytes = excluded.max_params_bytes
    WHERE (t.cache_ttl, t.dedupe_window, t.max_attempts, t.backoff_base, t.backoff_max, t.timeout,
           t.max_live_jobs, t.priority, t.expires_after, t.retention, t.log_retention, t.max_params_bytes)
        IS DISTINCT FROM
          (excluded.cache_ttl, excluded.dedupe_window, excluded.max_attempts, excluded.backoff_base,
           excluded.backoff_max, excluded.timeout, excluded.max_live_jobs, excluded.priority,
           excluded.expires_after, excluded.retention, excluded.log_retention, excluded.max_params_bytes);
END
$_$;

CREATE FUNCTION public.release_forgotten_claims(p_worker_id text, p_tokens bigint[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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

CREATE FUNCTION public.release_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[]) RETURNS TABLE(job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('release_jobs');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids, '{}') l;
    PERFORM streamvibe.put_back(v_mine.locked, false);
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
    RETURN QUERY
    SELECT s.* FROM streamvibe.statuses_now(p_job_ids, v_mine.busy) s
    WHERE s.job_id NOT IN (SELECT unnest(v_mine.locked)) OR s.status IS DISTINCT FROM 'pending';
END
$$;

CREATE FUNCTION public.report_job_progress(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_progress real[], p_messages text[]) RETURNS TABLE(job_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('report_job_progress');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_progress), cardinality(p_messages)]) l;
    UPDATE public.job_queue q
    SET progress = CASE WHEN r.progress IS NOT NULL THEN least(greatest(r.progress, 0), 1) END,
        progress_message = left(r.message, 500)
    FROM unnest(p_tokens, p_job_ids, p_progress, p_messages, v_mine.since) r(token, job_id, progress, message, since)
    WHERE q.id = r.job_id AND r.since IS NOT NULL AND coalesce(q.status, '') = 'processing'
      AND q.claim_token = r.token AND q.id = ANY (v_mine.locked)
      AND q.id BETWEEN v_mine.locked[1] AND v_mine.locked[cardinality(v_mine.locked)];
    RETURN QUERY SELECT unnest(v_mine.busy);
END
$$;

CREATE FUNCTION public.request_job(p_user_id uuid, p_job_type text, p_params jsonb DEFAULT '{}'::jsonb, p_priority integer DEFAULT NULL::integer, p_scheduled_for timestamp with time zone DEFAULT NULL::timestamp with time zone, p_force boolean DEFAULT false, p_idempotency_key text DEFAULT NULL::text, p_dedupe_window interval DEFAULT NULL::interval, p_cache_ttl interval DEFAULT NULL::interval, p_enforce_limit boolean DEFAULT true, p_traceparent text DEFAULT NULL::text) RETURNS TABLE(outcome text, job_id uuid, status text, result jsonb, result_age interval, traceparent text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
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

CREATE FUNCTION public.request_jobs(p_requests jsonb) RETURNS TABLE(ordinal integer, outcome text, job_id uuid, status text, result jsonb, result_age interval, error jsonb, traceparent text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_request jsonb;
    v_user_id uuid;
    v_patience text := '5ms';
    v_field text;
    v_code text;
    v_message text;
    v_detail text;
    v_hint text;
    v_column text;
BEGIN
    PERFORM streamvibe.require_service('request_jobs');
    IF p_requests IS NULL OR jsonb_typeof(p_requests) <> 'array' OR jsonb_array_length(p_requests) NOT BETWEEN 1 AND 1000
    THEN
        PERFORM streamvibe.raise_error('SV001', 'p_requests', left(p_requests::text, 200),
            'p_requests is not an array of 1 to 1000 requests', 'Pass an array of objects with user_id, job_type and params.');
    END IF;
    FOR v_request, ordinal IN SELECT e.value, e.ordinality FROM jsonb_array_elements(p_requests) WITH ORDINALITY e LOOP
        outcome := NULL;
        job_id := NULL;
        status := NULL;
        result := NULL;
        result_age := NULL;
        error := NULL;
        traceparent := NULL;
        BEGIN
            IF jsonb_typeof(v_request) <> 'object' THEN
                PERFORM streamvibe.raise_error('SV001', 'p_requests[' || ordinal || ']', left(v_request::text, 200),
                    'the element is not an object', 'Pass objects with user_id, job_type and params.');
            ELSIF v_request - ARRAY['user_id', 'job_type', 'params', 'priority', 'scheduled_for', 'force',
                      'idempotency_key', 'dedupe_window', 'cache_ttl', 'enforce_limit', 'traceparent'] <> '{}' THEN
                PERFORM streamvibe.raise_error('SV001', 'p_requests[' || ordinal || ']', left(v_request::text, 200),
                    'the element has an unknown field', 'Use user_id, job_type, params, priority, scheduled_for, force, '
                    || 'idempotency_key, dedupe_window, cache_ttl, enforce_limit and traceparent.');
            END IF;
            v_field := 'user_id';
            v_user_id := (v_request ->> 'user_id')::uuid;
            IF v_user_id IS NOT NULL AND NOT streamvibe.try_lock_account(v_user_id, v_patience) THEN
                outcome := 'busy';
                v_patience := '1ms';
            ELSE
                v_field := NULL;
                SELECT r.outcome, r.job_id, r.status, r.result, r.result_age, r.traceparent
                INTO outcome, job_id, status, result, result_age, traceparent
                FROM public.request_job(
                    v_user_id, v_request ->> 'job_type', coalesce(v_request -> 'params', '{}'),
                    (v_request ->> 'priority')::integer, (v_request ->> 'scheduled_for')::timestamptz,
                    coalesce((v_request ->> 'force')::boolean, false), v_request ->> 'idempotency_key',
                    (v_request ->> 'dedupe_window')::interval, (v_request ->> 'cache_ttl')::interval,
                    coalesce((v_request ->> 'enforce_limit')::boolean, true), v_request ->> 'traceparent') r;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_code = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                v_detail = PG_EXCEPTION_DETAIL, v_hint = PG_EXCEPTION_HINT, v_column = COLUMN_NAME;
            IF v_code NOT LIKE 'SV%' THEN
                IF v_code NOT LIKE '22%' THEN
                    RAISE;
                END IF;
                v_field := coalesce(v_field, streamvibe.unreadable_field(v_request));
                IF v_field IS NULL THEN
                    RAISE;
                END IF;
                v_code := 'SV001';
                v_column := 'p_' || v_field;
                v_message := v_column || ' cannot be read';
                v_detail := 'Received: ' || left(v_request ->> v_field, 200);
                v_hint := 'Use a UUID for user_id, 0 to 9 for priority, an ISO 8601 time for scheduled_for, intervals for '
                    || 'dedupe_window and cache_ttl, true or false for force and enforce_limit.';
            END IF;
            outcome := 'refused';
            error := jsonb_build_object('code', v_code, 'field', v_column, 'message', v_message,
                                        'received', v_detail, 'fix', v_hint);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION public.resume_jobs(p_job_type text DEFAULT NULL::text, p_user_id uuid DEFAULT NULL::uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('resume_jobs');
    DELETE FROM streamvibe.pause p
    USING streamvibe.pause_key(p_job_type, p_user_id) k
    WHERE p.kind = k.kind AND p.name = k.name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM streamvibe.wake_workers(t.name) FROM streamvibe.job_type t WHERE p_job_type IS NULL OR t.name = p_job_type;
    RETURN true;
END
$$;

CREATE FUNCTION public.retry_failed_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_due record;
    v_job record;
    v_count integer := 0;
    v_seen integer;
    v_busy uuid[] := '{}';  -- users whose lock another session holds
    v_full text[];  -- types of the user for which there is no room
    v_waiting uuid[];
    v_outcome text;
BEGIN
    PERFORM streamvibe.require_service('retry_failed_jobs');
    PERFORM streamvibe.require_read_committed('retry_failed_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    -- In rounds, because what has to wait must not keep others from being looked at.
    FOR v_round IN 1..20 LOOP
        v_seen := 0;
        FOR v_due IN
            SELECT d.user_id, array_agg(d.id ORDER BY d.retry_at, d.id) AS ids
            FROM (SELECT q.user_id, q.id, q.retry_at
                  -- As far as there are any: what a type allows may have been lowered since.
                  FROM generate_series(1, (SELECT max(m.retry_count) FROM public.job_queue m WHERE m.status = 'failed')) n(retry_count)
                  CROSS JOIN LATERAL (
                      SELECT j.user_id, j.id, j.retry_at FROM public.job_queue j
                      WHERE j.status = 'failed' AND j.retry_count = n.retry_count AND j.retry_at <= v_now
                        AND j.user_id <> ALL (v_busy)
                      ORDER BY j.retry_at LIMIT p_limit) q
                  ORDER BY q.retry_at LIMIT p_limit) d
            GROUP BY d.user_id
            ORDER BY d.user_id
        LOOP
            v_seen := v_seen + cardinality(v_due.ids);
            IF NOT streamvibe.try_lock_account(v_due.user_id) THEN
                v_busy := v_busy || v_due.user_id;
                CONTINUE;
            END IF;
            v_full := '{}';
            v_waiting := '{}';
            FOR v_job IN
                SELECT u.id, q.job_type FROM unnest((streamvibe.lock_jobs(v_due.ids)).locked) WITH ORDINALITY u(id, n)
                CROSS JOIN LATERAL (SELECT j.job_type FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
                ORDER BY array_position(v_due.ids, u.id)
            LOOP
                v_outcome := CASE WHEN v_job.job_type = ANY (v_full) THEN 'at_limit'
                                  ELSE streamvibe.retry_job(v_due.user_id, v_job.id) END;
                CASE v_outcome
                    WHEN 'retried' THEN v_count := v_count + 1;
                    WHEN 'attempts_exhausted' THEN
                        -- The type allows fewer now: it is final.
                        UPDATE public.job_queue q SET retry_at = NULL WHERE q.id = v_job.id;
                    ELSE
                        IF v_outcome = 'at_limit' THEN
                            v_full := v_full || v_job.job_type;
                        END IF;
                        v_waiting := v_waiting || v_job.id;
                END CASE;
            END LOOP;
            UPDATE public.job_queue q SET retry_at = v_now + interval '1 minute'
            -- See policies/plans.sql.
            WHERE q.id = ANY (v_waiting) AND coalesce(q.status, '') = 'failed' AND q.retry_at <= v_now;
        END LOOP;
        EXIT WHEN v_seen < p_limit OR v_count >= p_limit;
    END LOOP;
    RETURN v_count;
END
$$;

CREATE FUNCTION public.retry_jobs(p_user_id uuid, p_job_ids uuid[]) RETURNS TABLE(job_id uuid, outcome text, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_ids uuid[];
    v_outcomes text[];
    v_statuses text[];
BEGIN
    PERFORM streamvibe.check_job_ids(p_job_ids);
    PERFORM streamvibe.require_read_committed('retry_jobs', 'Use READ COMMITTED.');
    FOR job_id IN SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id) ORDER BY 1 LOOP
        v_ids := v_ids || job_id;
        v_outcomes := v_outcomes || streamvibe.retry_job(v_user_id, job_id);
        v_statuses := v_statuses || (
            SELECT j.status FROM streamvibe.job j WHERE j.id = job_id AND (j.user_id = v_user_id) IS TRUE);
    END LOOP;
    RETURN QUERY
    SELECT r.id, r.outcome, r.status FROM unnest(v_ids, v_outcomes, v_statuses) r(id, outcome, status)
    JOIN (SELECT u.id, min(u.n) AS n FROM unnest(p_job_ids) WITH ORDINALITY u(id, n) GROUP BY u.id) g ON g.id = r.id
    ORDER BY g.n;
END
$$;

CREATE FUNCTION public.search_jobs(p_user_id uuid DEFAULT NULL::uuid, p_params jsonb DEFAULT NULL::jsonb, p_result jsonb DEFAULT NULL::jsonb, p_status text DEFAULT NULL::text, p_job_type text DEFAULT NULL::text, p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL::text) RETURNS TABLE(id uuid, user_id uuid, job_type text, status text, job_priority integer, params jsonb, result jsonb, failure_kind text, error_message text, retry_count integer, progress real, progress_message text, worker_id text, created_at timestamp with time zone, updated_at timestamp with time zone, scheduled_for timestamp with time zone, started_at timestamp with time zone, completed_at timestamp with time zone, expires_at timestamp with time zone, retry_at timestamp with time zone, idempotency_key text, next_cursor text, has_more boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id, true);
    v_filter text := concat_ws('|', 'search', coalesce(v_user_id::text, '*'), coalesce(p_status, '*'),
                               coalesce(p_job_type, '*'), coalesce(p_params::text, '*'), coalesce(p_result::text, '*'));
    v_after uuid := streamvibe.read_cursor(p_cursor, v_filter);
    v_ids uuid[];
    v_has_more boolean;
    v_next text;
BEGIN
    PERFORM streamvibe.check_page(p_limit, p_status);
    IF p_params IS NULL AND p_result IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_params', NULL, 'there is nothing to look for',
            'Pass p_params, p_result or both, like {"channel": "UC1"}; get_user_jobs_by_cursor lists all.');
    END IF;
    PERFORM streamvibe.check_contained('p_params', p_params);
    PERFORM streamvibe.check_contained('p_result', p_result);
    v_ids := ARRAY(SELECT i FROM streamvibe.find_jobs(v_user_id, p_params, p_result, p_status, p_job_type, v_after, p_limit + 1) i);
    v_has_more := cardinality(v_ids) > p_limit;
    IF v_has_more THEN
        v_next := streamvibe.cursor_of(v_ids[p_limit], v_filter);
        v_ids := v_ids[:p_limit];
    END IF;
    RETURN QUERY
    SELECT j.*, v_next, v_has_more FROM streamvibe.page_of_jobs(v_ids) j ORDER BY j.id DESC;
END
$$;

CREATE FUNCTION public.set_archive(p_url text, p_archive_id uuid DEFAULT NULL::uuid, p_discard boolean DEFAULT false, p_this_is text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_waiting bigint;
BEGIN
    PERFORM streamvibe.require_service('set_archive');
    PERFORM streamvibe.require_read_committed('set_archive', 'Use READ COMMITTED.');
    IF p_url !~ '^(file:///[^?#]*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#@]*)?)$' OR length(p_url) > 1000 THEN
        -- Not the value: it may hold a secret.
        PERFORM streamvibe.raise_error('SV001', 'p_url', substring(p_url FROM '^[a-z0-9+.-]{1,20}:') || '...', 'p_url is not a place for an archive',
            'Use file:///folder or s3://bucket/prefix; credentials come from the environment (AWS_ACCESS_KEY_ID and others).');
    ELSIF p_url IS NOT NULL AND p_archive_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_archive_id', NULL, 'p_archive_id is missing',
            'Use `streamvibe archive set`, which leaves this id in the archive.');
    END IF;
    IF p_this_is IS NULL THEN
        PERFORM streamvibe.refuse_copy();
    ELSIF p_this_is NOT IN ('moved', 'copy') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_this_is', p_this_is, 'p_this_is is unknown', 'Use moved or copy.');
    ELSIF NOT (SELECT coalesce(s.archive_owner <> streamvibe.this_database(), false) FROM streamvibe.setting s) THEN
        PERFORM streamvibe.raise_error('SV001', 'p_this_is', p_this_is, 'this database is no copy of one that has an archive',
            'Leave it out: --copy and --moved are for a restored dump, or a database made from another.');
    ELSIF p_this_is = 'moved' THEN
        UPDATE streamvibe.setting s SET archive_owner = streamvibe.this_database();
    ELSE
        IF p_archive_id = (SELECT s.archive_id FROM streamvibe.setting s) THEN
            PERFORM streamvibe.raise_error('SV001', 'p_archive_id', p_archive_id::text, 'that is the archive of the other database',
                'Name a place of its own for the copy.');
        END IF;
        -- In the order in which drop_partition() locks.
        PERFORM FROM streamvibe.partition p WHERE p.archived_at IS NOT NULL ORDER BY p.parent_name, p.lower_at FOR UPDATE;
        UPDATE streamvibe.setting s SET archive_url = NULL, archive_id = NULL, archive_owner = NULL
        WHERE s.archive_owner <> streamvibe.this_database();
        IF NOT FOUND THEN
            PERFORM streamvibe.raise_error('SV001', 'p_this_is', p_this_is, 'somebody else has said meanwhile what this database is',
                'See what: streamvibe archive status.');
        END IF;
        DELETE FROM streamvibe.archive_file;
        UPDATE streamvibe.partition p SET archived_at = NULL WHERE p.archived_at IS NOT NULL;
    END IF;
    IF p_url IS NOT NULL THEN
        UPDATE streamvibe.setting s
        SET archive_url = p_url, archive_id = p_archive_id, archive_owner = streamvibe.this_database();
        RETURN 0;
    END IF;
    -- Waits for whoever deletes jobs, and read it before.
    UPDATE streamvibe.setting s SET archive_url = NULL;
    SELECT count(*) INTO v_waiting FROM streamvibe.leaving_job;
    IF v_waiting > 0 AND p_discard IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_discard', v_waiting || ' jobs wait to be archived',
            'jobs that have left the queue are not archived yet',
            'Archive them first: streamvibe archive run; or lose them: p_discard => true (--discard).');
    END IF;
    DELETE FROM streamvibe.leaving_job;
    RETURN v_waiting;
END
$_$;

CREATE FUNCTION public.set_maintenance_duty(p_duty text, p_schedule text DEFAULT NULL::text, p_enabled boolean DEFAULT NULL::boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
BEGIN
    PERFORM streamvibe.require_service('set_maintenance_duty');
    IF p_schedule !~ '^$|^every [0-9]{1,9}([.][0-9]{1,9})? (seconds|minutes|hours)$|^\s*(\S+\s+){4,5}\S+\s*$' OR length(p_schedule) > 200 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_schedule', p_schedule, 'p_schedule cannot be read',
            'Use minute hour day month weekday, such as ''30 3 * * *'', or ''every 30 seconds''.');
    END IF;
    UPDATE streamvibe.duty d
    SET schedule = CASE WHEN p_schedule IS NULL THEN d.schedule ELSE nullif(p_schedule, '') END,
        enabled = coalesce(p_enabled, d.enabled)
    WHERE d.name = p_duty;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_duty', p_duty, 'there is no such duty',
            'See which there are: SELECT duty FROM get_maintenance(). They become known when maintenance first runs.');
    END IF;
END
$_$;

CREATE FUNCTION public.set_user_limit(p_user_id uuid, p_max_live_jobs integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('set_user_limit');
    IF p_user_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_user_id', NULL, 'p_user_id is missing',
            'Name the user whose limit it is.');
    ELSIF p_max_live_jobs < 0 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_max_live_jobs', p_max_live_jobs::text,
            'p_max_live_jobs is out of range', 'Pass 0 or more, or NULL for the default.');
    END IF;
    INSERT INTO streamvibe.account (user_id, max_live_jobs) VALUES (p_user_id, p_max_live_jobs)
    ON CONFLICT (user_id) DO UPDATE SET max_live_jobs = excluded.max_live_jobs;
END
$$;

CREATE FUNCTION public.unregister_worker(p_worker_id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('unregister_worker');
    PERFORM public.release_forgotten_claims(p_worker_id, '{}');
    DELETE FROM streamvibe.worker w
    WHERE w.id = p_worker_id
      AND NOT EXISTS (SELECT FROM streamvibe.live_claims() c WHERE c.worker_id = p_worker_id AND NOT c.in_transaction);
    UPDATE streamvibe.worker w SET left_over = 'hand back', asleep = false, transactions_asleep = false
    WHERE w.id = p_worker_id;
END
$$;

CREATE FUNCTION streamvibe.apply_failures(p_worker_id text, p_job_ids uuid[], p_failures jsonb[], p_started_at timestamp with time zone[], p_now timestamp with time zone) RETURNS TABLE(job_id uuid, status text, retry_at timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_wait_in_place interval := (SELECT s.retry_in_place_max FROM streamvibe.setting s);
    -- What is noted for others would look as if they had ended again.
    v_live uuid[] := ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id)
                           CROSS JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
                           WHERE q.status IN ('pending', 'processing') ORDER BY u.id);
BEGIN
    PERFORM streamvibe.count_jobs(-1, v_live);
    RETURN QUERY
    WITH decided AS MATERIALIZED (
        SELECT f.job_id, f.failure, f.started_at, t.expires_after,
               CASE WHEN (f.failure ->> 'retryable')::boolean AND q.retry_count + 1 < t.max_attempts THEN
                   coalesce(
                       make_interval(secs => (f.failure ->> 'retry_after_seconds')::double precision),
                       random() * least(t.backoff_max, t.backoff_base * (2.0 ^ least(q.retry_count, 20))))
               END AS wait
        FROM unnest(p_job_ids, p_failures, p_started_at) f(job_id, failure, started_at)
        CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = f.job_id OFFSET 0) q
        JOIN streamvibe.job_type t ON t.name = q.job_type
        ORDER BY f.job_id
    )
    UPDATE public.job_queue q
    SET status        = CASE WHEN d.wait <= v_wait_in_place THEN 'pending' ELSE 'failed' END,
        retry_count   = q.retry_count + 1,
        failure_kind  = coalesce(d.failure ->> 'kind', 'error'),
        error_message = left(d.failure ->> 'message', 10000),
        scheduled_for = CASE WHEN d.wait <= v_wait_in_place THEN p_now + d.wait ELSE q.scheduled_for END,
        expires_at    = CASE WHEN d.wait <= v_wait_in_place THEN p_now + d.wait + d.expires_after ELSE q.expires_at END,
        retry_at      = CASE WHEN d.wait > v_wait_in_place THEN p_now + d.wait END,
        completed_at  = CASE WHEN d.wait <= v_wait_in_place THEN NULL ELSE p_now END,
        started_at    = CASE WHEN d.wait <= v_wait_in_place THEN NULL ELSE coalesce(q.started_at, d.started_at) END,
        worker_id     = CASE WHEN d.wait <= v_wait_in_place THEN NULL ELSE p_worker_id END,
        claim_token   = NULL, progress = NULL, progress_message = NULL, updated_at = p_now,
        -- A failure that the process survived clears the suspicion that this job kills it.
        isolated      = coalesce(d.failure ->> 'kind', 'error') = 'crash'
    FROM decided d
    WHERE q.id = d.job_id AND q.id = ANY (p_job_ids) AND q.id BETWEEN v_live[1] AND v_live[cardinality(v_live)]
      AND coalesce(q.status, '') IN ('pending', 'processing')
    RETURNING q.id, q.status, CASE WHEN q.status = 'pending' THEN q.scheduled_for ELSE q.retry_at END;
    PERFORM streamvibe.count_jobs(1, v_live);
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'failed', q.job_type, streamvibe.counted_kind(q.failure_kind), count(*)
    FROM unnest(v_live) u(id) CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
    GROUP BY q.job_type, streamvibe.counted_kind(q.failure_kind);
END
$$;

CREATE FUNCTION streamvibe.archive_days(p_source text) RETURNS TABLE(day date, row_count bigint, checksum numeric)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
DECLARE
    v_batch bigint := substring(p_source FROM '^leaving-([0-9]{1,18})$')::bigint;
    v_leaf streamvibe.partition;
    v_from uuid;
BEGIN
    PERFORM streamvibe.require_service('archive_days');
    IF v_batch IS NOT NULL THEN
        RETURN QUERY
        SELECT '1970-01-01'::date + d.day, d.row_count, d.checksum
        FROM (SELECT streamvibe.day_of_id(a.row_id) AS day, count(*) AS row_count, sum(a.digest) AS checksum
              FROM streamvibe.archivable_job a WHERE a.place = 'leaving' AND a.batch = v_batch GROUP BY 1) d
        ORDER BY d.day;
        RETURN;
    END IF;
    v_leaf := streamvibe.sealed_leaf(p_source);
    v_from := streamvibe.id_bound(v_leaf.lower_at);
    IF v_leaf.parent_name = 'job_queue' THEN
        RETURN QUERY
        SELECT '1970-01-01'::date + d.day, d.row_count, d.checksum
        FROM (SELECT streamvibe.day_of_id(a.row_id) AS day, count(*) AS row_count, sum(a.digest) AS checksum
              FROM streamvibe.archivable_job a
              WHERE a.place = 'queue' AND a.row_id >= v_from AND a.row_id < v_leaf.upper_id GROUP BY 1) d
        ORDER BY d.day;
    ELSE
        RETURN QUERY
        SELECT '1970-01-01'::date + d.day, d.row_count, d.checksum
        FROM (SELECT streamvibe.day_of_id(a.row_id) AS day, count(*) AS row_count, sum(a.digest) AS checksum
              FROM streamvibe.archivable_line a WHERE a.row_id >= v_from AND a.row_id < v_leaf.upper_id GROUP BY 1) d
        ORDER BY d.day;
    END IF;
END
$_$;

CREATE FUNCTION streamvibe.archived_time(p_at timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN pg_catalog.isfinite(p_at)
                THEN (extract(epoch FROM p_at - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
                WHEN p_at = 'infinity'::timestamptz THEN 9223372036854775807
                WHEN p_at = '-infinity'::timestamptz THEN -9223372036854775807 END
$$;

CREATE FUNCTION streamvibe.attach_leaf(p_parent text, p_name text, p_lower timestamp with time zone, p_upper timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_index text;
BEGIN
    FOR v_index IN
        SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i
        WHERE i.indrelid = format('public.%I', p_parent)::regclass
          AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid) ORDER BY i.indexrelid
    LOOP
        EXECUTE regexp_replace(v_index, ' INDEX .+? ON ONLY .+? USING ', format(' INDEX ON streamvibe.%I USING ', p_name));
    END LOOP;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION streamvibe.%I FOR VALUES FROM (%L) TO (%L)',
                   p_parent, p_name, streamvibe.id_bound(p_lower), streamvibe.id_bound(p_upper));
    INSERT INTO streamvibe.partition (parent_name, lower_at, upper_at, upper_id, partition_name)
    VALUES (p_parent, p_lower, p_upper, streamvibe.id_bound(p_upper), p_name);
END
$$;

CREATE FUNCTION streamvibe.authorize(p_user_id uuid, p_all_allowed boolean DEFAULT false) RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_caller uuid;
BEGIN
    IF streamvibe.is_service() THEN
        IF p_user_id IS NULL AND NOT p_all_allowed THEN
            PERFORM streamvibe.raise_error('SV001', 'p_user_id', NULL, 'p_user_id is missing',
                'Name the user this call acts for.');
        END IF;
        RETURN p_user_id;
    END IF;
    BEGIN
        v_caller := auth.uid();
    EXCEPTION
        -- No JSON, or a "sub" that is no UUID; auth.uid() may be the platform's own.
        WHEN data_exception THEN
            PERFORM streamvibe.raise_error('SV004', 'request.jwt.claims', current_setting('request.jwt.claims', true),
                'the token''s claims cannot be read',
                'Set request.jwt.claims to a JSON object whose "sub" is the user''s id, a UUID.');
    END;
    IF v_caller IS NULL THEN
        PERFORM streamvibe.raise_error('SV004', 'request.jwt.claims',
            'no "sub"', 'nobody is signed in',
            'Set request.jwt.claims to a token whose "sub" is the user''s id.');
    ELSIF p_user_id IS DISTINCT FROM v_caller AND p_user_id IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV004', 'p_user_id', p_user_id::text,
            'p_user_id is another user''s id', 'Pass auth.uid(), or call as service_role.');
    END IF;
    RETURN v_caller;
END
$$;

CREATE FUNCTION streamvibe.awaits_archive(p_partition_name text) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('awaits_archive');
    RETURN EXISTS (SELECT FROM streamvibe.partition p, streamvibe.setting s
                   WHERE p.partition_name = p_partition_name AND s.archive_url IS NOT NULL
                     AND (p.archived_at IS NULL OR s.archive_owner <> streamvibe.this_database()));
END
$$;

CREATE FUNCTION streamvibe.begin_archive_file(p_fence bigint, p_kind text, p_source text, p_day date, p_url text, p_key text, p_replaces bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_id bigint;
BEGIN
    PERFORM streamvibe.require_service('begin_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    IF p_replaces IS NOT NULL AND NOT EXISTS (
        SELECT FROM streamvibe.archive_file f
        WHERE f.id = p_replaces AND f.state = 'complete' AND f.source = p_source AND f.day = p_day
    ) THEN
        PERFORM streamvibe.raise_error('SV001', 'p_replaces', p_replaces::text, 'there is no such file of the archive',
            'See which there are: SELECT * FROM get_archive_files().');
    END IF;
    INSERT INTO streamvibe.archive_file (kind, source, day, url, key, replaces)
    VALUES (p_kind, p_source, p_day, p_url, p_key, p_replaces) RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

CREATE FUNCTION streamvibe.begin_duty(p_fence bigint, p_duty text) RETURNS timestamp with time zone
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
    v_started_at timestamptz;
BEGIN
    PERFORM streamvibe.require_service('begin_duty');
    PERFORM streamvibe.require_leader(p_fence);
    UPDATE streamvibe.duty d SET running_since = streamvibe.now(), last_started_at = streamvibe.now()
    WHERE d.name = p_duty RETURNING d.running_since INTO v_started_at;
    IF v_started_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_duty', p_duty, 'there is no such duty',
            'See which there are: SELECT name FROM streamvibe.duty.');
    END IF;
    RETURN v_started_at;
END
$$;

CREATE FUNCTION streamvibe.beside_before(p_list jsonb, p_before jsonb, p_keys text[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(jsonb_agg(n.line || jsonb_build_object('before', b.line - 'before') ORDER BY n.place), '[]')
    FROM jsonb_array_elements(p_list) WITH ORDINALITY n(line, place)
    LEFT JOIN LATERAL (
        SELECT o.line FROM jsonb_array_elements(p_before) o(line)
        WHERE NOT EXISTS (SELECT FROM unnest(p_keys) k(key) WHERE o.line -> k.key IS DISTINCT FROM n.line -> k.key)
        LIMIT 1) b ON true
$$;

CREATE FUNCTION streamvibe.check_batch_size(p_limit integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text, 'p_limit is out of range',
            'Use 1 to 10000 jobs a run.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.check_contained(p_field text, p_value jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF p_value IN ('{}', '[]') THEN
        PERFORM streamvibe.raise_error('SV001', p_field, p_value::text, p_field || ' is empty, and everything contains it',
            'Name a key and its value, like {"channel": "UC1"}, or pass NULL.');
    ELSIF octet_length(p_value::text) > 10000 THEN
        PERFORM streamvibe.raise_error('SV003', p_field, octet_length(p_value::text) || ' bytes',
            p_field || ' is too long to search for', 'Use the keys that matter, 10,000 bytes at most.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.check_job_ids(p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF p_job_ids IS NULL OR cardinality(p_job_ids) NOT BETWEEN 1 AND 10000
       OR array_position(p_job_ids, NULL) IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_job_ids',
            CASE WHEN p_job_ids IS NULL THEN NULL ELSE cardinality(p_job_ids) || ' ids' END,
            'p_job_ids is not a list of ids', 'Pass 1 to 10000 ids, none of them NULL.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.check_page(p_limit integer, p_status text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 1000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text,
            'p_limit is out of range', 'Ask for 1 to 1000 rows a page.');
    END IF;
    IF p_status NOT IN ('pending', 'processing', 'completed', 'failed', 'cancelled') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_status', p_status, 'p_status is unknown',
            'Use pending, processing, completed, failed or cancelled, or NULL for all.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.check_patience(p_patience interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF (p_patience BETWEEN '0' AND '1 day') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_patience', p_patience::text, 'p_patience is out of range',
            'Use an interval from 0 to 1 day.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.check_request(p_prefix text, p_user_id uuid, p_params jsonb, p_max_params_bytes integer, p_priority integer, p_scheduled_for timestamp with time zone) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $_$
DECLARE
    -- Written out at once only where it cannot become gigabytes: see below.
    -- (|| because a stored value may be compressed.)
    v_bytes integer := CASE WHEN pg_column_size(p_params || '{}') < 1000 THEN octet_length(p_params::text) END;
BEGIN
    IF p_user_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'user_id', NULL, 'user_id is missing',
            'Name the user the job belongs to.');
    -- A number of more than 300 digits or a nest of 250 levels does not fit into 300 bytes.
    ELSIF v_bytes >= 300 OR v_bytes IS NULL THEN
        IF streamvibe.has_wild_number(p_params) THEN
            PERFORM streamvibe.raise_error('SV001', p_prefix || 'params', 'a number beyond 1e308 or nearer to 0 than 1e-307',
                'params hold a number out of range', 'Send such numbers as text.');
        ELSIF jsonb_path_exists(p_params, '$.**{251}') THEN
            PERFORM streamvibe.raise_error('SV001', p_prefix || 'params', 'more than 250 levels',
                'params are nested too deeply', 'Flatten them.');
        END IF;
        v_bytes := octet_length(p_params::text);
    END IF;
    IF p_params IS NULL OR jsonb_typeof(p_params) <> 'object' THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'params', left(p_params::text, 200),
            'params is not a JSON object', 'Pass an object such as {"key": "value"}, or {}.');
    ELSIF v_bytes > p_max_params_bytes THEN
        PERFORM streamvibe.raise_error('SV003', p_prefix || 'params', v_bytes || ' bytes', 'params are too large',
            'Keep them within ' || p_max_params_bytes || ' bytes (pass a reference instead of the data), '
            || 'or register the type with a larger p_max_params_bytes.');
    ELSIF p_priority NOT BETWEEN 0 AND 9 THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'priority', p_priority::text,
            'priority is out of range', 'Use 0 to 9; higher runs first.');
    ELSIF NOT isfinite(p_scheduled_for) OR p_scheduled_for > '9999-01-01' THEN
        PERFORM streamvibe.raise_error('SV001', p_prefix || 'scheduled_for', p_scheduled_for::text,
            'scheduled_for is out of range', 'Use a time before the year 9999, or NULL for now.');
    END IF;
END
$_$;

CREATE FUNCTION streamvibe.check_window(p_field text, p_window interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF p_window NOT BETWEEN '0' AND '100 years' THEN
        PERFORM streamvibe.raise_error('SV001', p_field, p_window::text, p_field || ' is out of range',
            'Use ''0'' (off) to ''100 years'', or NULL for what the job type says.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.count_jobs(p_sign integer, p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    WITH notes AS MATERIALIZED (
        SELECT q.leaf, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)) AS minute,
               p_sign * count(*) AS jobs,
               p_sign * sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waiting_us,
               p_sign * sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processing_us,
               array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waited,
               array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processed
        FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id)) u
        CROSS JOIN LATERAL (SELECT j.tableoid AS leaf, j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
        GROUP BY q.leaf, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at))
    )
    INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
    SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
           n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed
    FROM notes n;
END
$$;

CREATE FUNCTION streamvibe.count_partition(p_partition_name text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leaf streamvibe.partition;
    v_rows bigint;
BEGIN
    PERFORM streamvibe.require_service('count_partition');
    PERFORM streamvibe.require_read_committed('count_partition', 'Use READ COMMITTED.');
    v_leaf := streamvibe.leaf_of_name(p_partition_name);
    IF v_leaf.row_count IS NOT NULL THEN
        RETURN v_leaf.row_count;
    ELSIF v_leaf.sealed_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'it is not sealed',
            format('SELECT streamvibe.seal_partition(%L), and commit.', p_partition_name));
    END IF;
    EXECUTE format('SELECT count(*) FROM streamvibe.%I', p_partition_name) INTO v_rows;
    UPDATE streamvibe.partition p SET row_count = v_rows WHERE p.partition_name = p_partition_name;
    RETURN v_rows;
END
$$;

CREATE FUNCTION streamvibe.count_recovered(p_outcome text, p_job_types text[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'recovered', u.job_type, p_outcome, count(*)
    FROM unnest(p_job_types) u(job_type)
    GROUP BY u.job_type
$$;

CREATE FUNCTION streamvibe.count_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_from timestamp with time zone, p_end timestamp with time zone, p_most bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_statuses text[] := streamvibe.stored_statuses(p_status);
    v_held uuid[];
    v_from timestamptz := coalesce(p_from, '-infinity');
    v_end timestamptz := coalesce(p_end, 'infinity');
BEGIN
    IF p_status IN ('pending', 'processing') THEN
        v_held := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    END IF;
    IF p_job_type IS NULL THEN
        RETURN (SELECT count(*) FROM (
            SELECT FROM unnest(v_statuses) s(status)
            CROSS JOIN LATERAL (
                SELECT FROM public.job_queue q
                WHERE q.user_id = p_user_id AND q.status = s.status
                  AND q.created_at >= v_from AND q.created_at < v_end
                  AND (v_held IS NULL OR q.status <> 'pending'
                       OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing')) OFFSET 0) f
            LIMIT p_most) c);
    END IF;
    RETURN (SELECT count(*) FROM (
        SELECT FROM unnest(v_statuses) s(status)
        CROSS JOIN LATERAL (
            SELECT FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status
              AND q.created_at >= v_from AND q.created_at < v_end AND q.job_type = p_job_type
              AND (v_held IS NULL OR q.status <> 'pending'
                   OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing')) OFFSET 0) f
        LIMIT p_most) c);
END
$$;

CREATE FUNCTION streamvibe.counted_jobs() RETURNS TABLE(leaf_number bigint, job_type text, status text, minute timestamp with time zone, jobs bigint, waiting_us bigint, processing_us bigint, waited smallint[], processed smallint[])
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(f.leaf_number, 0), c.job_type, c.status, c.minute, c.jobs, c.waiting_us, c.processing_us, c.waited, c.processed
    FROM (SELECT q.tableoid AS leaf, q.job_type, q.status, streamvibe.minute_of(coalesce(q.completed_at, q.created_at)) AS minute,
                 count(*) AS jobs,
                 sum(streamvibe.duration_us(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waiting_us,
                 sum(streamvibe.duration_us(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processing_us,
                 array_agg(streamvibe.sketch_bucket(q.scheduled_for, q.started_at)) FILTER (WHERE q.status = 'completed') AS waited,
                 array_agg(streamvibe.sketch_bucket(q.started_at, q.completed_at)) FILTER (WHERE q.status = 'completed') AS processed
          FROM public.job_queue q GROUP BY 1, 2, 3, 4) c
    LEFT JOIN streamvibe.leaf f ON f.table_oid = c.leaf
$$;

CREATE FUNCTION streamvibe.counted_kind(p_kind text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN p_kind IN ('error', 'permanent', 'retry_later', 'timeout', 'crash', 'expired', 'invalid_params', 'invalid_result')
                THEN p_kind ELSE 'other' END
$$;

CREATE FUNCTION streamvibe.counts_of(p_status text, p_jobs bigint, p_waiting_us bigint, p_processing_us bigint, p_waited smallint[], p_processed smallint[]) RETURNS TABLE(name text, detail text, value bigint)
    LANGUAGE sql IMMUTABLE ROWS 3 PARALLEL SAFE
    AS $$
    SELECT 'ended', p_status, p_jobs WHERE p_jobs > 0 AND p_status IN ('completed', 'failed', 'cancelled')
    UNION ALL
    SELECT m.name, '', m.us
    FROM (VALUES ('waiting_us', p_waiting_us), ('processing_us', p_processing_us)) m(name, us)
    WHERE p_jobs > 0 AND p_status = 'completed' AND m.us IS NOT NULL
    UNION ALL
    SELECT m.name, streamvibe.histogram_bound(u.bucket), pg_catalog.count(*)
    FROM (VALUES ('waited', p_waited), ('processed', p_processed)) m(name, buckets)
    CROSS JOIN LATERAL pg_catalog.unnest(m.buckets) u(bucket)
    WHERE p_jobs > 0 AND p_status = 'completed'
    GROUP BY 1, 2
$$;

CREATE FUNCTION streamvibe.create_staged_jobs(p_batch uuid, p_dedupe boolean DEFAULT false, p_enforce_limit boolean DEFAULT false, p_traceparent text DEFAULT NULL::text) RETURNS TABLE(ordinal integer, job_id uuid, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_below uuid;
    v_default_max integer := (SELECT s.default_max_live_jobs FROM streamvibe.setting s);
    v_unknown record;
    -- Ids are made a microsecond apart, in the order of the elements: a batch of 1,000,000 reaches a second ahead.
    v_us bigint;
    v_random bigint := streamvibe.random_bits();
    v_traceparent text := streamvibe.readable_traceparent(p_traceparent);
    v_users uuid[];
    v_locked integer;
    v_wal_compression text;
BEGIN
    PERFORM streamvibe.require_service('create_jobs');
    v_wal_compression := streamvibe.leave_pages_uncompressed();
    SELECT s.ordinal, s.job_type INTO v_unknown
    FROM streamvibe.staging s
    WHERE s.batch = p_batch AND NOT EXISTS (SELECT FROM streamvibe.job_type t WHERE t.name = s.job_type)
    ORDER BY s.ordinal LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV002', 'p_jobs[' || v_unknown.ordinal || '].job_type',
            v_unknown.job_type, 'job type is not registered',
            'Check the spelling, or register it: SELECT register_job_type(''name'').');
    END IF;
    -- What is plainly right need not be asked about one by one.
    PERFORM streamvibe.check_request('p_jobs[' || s.ordinal || '].', s.user_id, s.params, t.max_params_bytes,
                                     s.priority, s.scheduled_for)
    FROM streamvibe.staging s JOIN streamvibe.job_type t ON t.name = s.job_type
    WHERE s.batch = p_batch
      AND (s.user_id IS NOT NULL AND jsonb_typeof(s.params) = 'object'
           AND CASE WHEN pg_column_size(s.params || '{}') < 300 AND t.max_params_bytes >= 300
                    THEN octet_length(s.params::text) < 300 END
           AND coalesce(s.priority BETWEEN 0 AND 9, true) AND s.scheduled_for IS NULL) IS NOT TRUE;

    IF p_dedupe OR p_enforce_limit THEN
        PERFORM streamvibe.require_read_committed('create_jobs',
            'Use READ COMMITTED, or leave p_dedupe and p_enforce_limit off.');
        v_users := ARRAY(SELECT DISTINCT s.user_id FROM streamvibe.staging s WHERE s.batch = p_batch ORDER BY 1);
        LOOP
            INSERT INTO streamvibe.account (user_id) SELECT unnest(v_users) ON CONFLICT DO NOTHING;
            PERFORM FROM streamvibe.account a WHERE a.user_id = ANY (v_users) ORDER BY a.user_id FOR NO KEY UPDATE;
            GET DIAGNOSTICS v_locked = ROW_COUNT;
            -- Erasing a user takes the row away, also from who waits for it.
            EXIT WHEN v_locked = cardinality(v_users);
        END LOOP;
    END IF;
    v_now := streamvibe.now();
    v_us := streamvibe.microseconds(v_now);
    PERFORM streamvibe.require_partition('job_queue', v_now);
    PERFORM streamvibe.require_partition('job_queue', v_now + interval '1 second');

    v_below := (SELECT p.upper_id FROM streamvibe.partition p
                WHERE p.parent_name = 'job_queue' AND p.lower_at <= v_now + interval '1 hour'
                ORDER BY p.lower_at DESC LIMIT 1);
    IF NOT p_dedupe AND NOT p_enforce_limit THEN
        RETURN QUERY
        WITH accepted AS MATERIALIZED (
            SELECT n.*, streamvibe.make_id(v_us + n.nth, hashint8extended(n.nth, v_random)) AS id,
                   v_now + n.nth * interval '1 microsecond' AS at
            FROM (SELECT s.*, t.expires_after, t.priority AS usual, row_number() OVER (ORDER BY s.ordinal) AS nth
                  FROM streamvibe.staging s JOIN streamvibe.job_type t ON t.name = s.job_type
                  WHERE s.batch = p_batch ORDER BY s.ordinal) n
        ), inserted AS (
            INSERT INTO public.job_queue
                (id, created_at, user_id, job_type, params, job_priority, scheduled_for, expires_at, updated_at, turn,
                 traceparent)
            SELECT a.id, a.at, a.user_id, a.job_type, a.params, coalesce(a.priority, a.usual),
                   greatest(a.scheduled_for, v_now), greatest(a.scheduled_for, v_now) + a.expires_after, v_now,
                   u.turn + row_number() OVER (PARTITION BY a.user_id, a.job_type ORDER BY a.ordinal) - 1, v_traceparent
            FROM accepted a
            JOIN (SELECT n.* FROM (SELECT array_agg(d.user_id) AS user_ids, array_agg(d.job_type) AS job_types
                                   FROM (SELECT DISTINCT s.user_id, s.job_type FROM streamvibe.staging s
                                         WHERE s.batch = p_batch) d) p
                  CROSS JOIN LATERAL streamvibe.next_turns(p.user_ids, p.job_types, v_now, v_below) n) u
                 USING (user_id, job_type)
            -- A user's rows after each other: three indexes begin with the user.
            ORDER BY a.user_id, a.job_type, a.ordinal
            RETURNING tableoid AS leaf, job_type, created_at
        ), noted AS (
            INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs)
            SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = i.leaf), 0),
                   i.job_type, 'pending', streamvibe.minute_of(i.created_at), count(*)
            FROM inserted i GROUP BY i.leaf, i.job_type, streamvibe.minute_of(i.created_at)
        )
        SELECT a.ordinal, a.id, 'created' FROM accepted a ORDER BY a.ordinal;
    ELSE
    RETURN QUERY
    WITH staged AS MATERIALIZED (
        SELECT s.ordinal, s.user_id, s.job_type, s.params, coalesce(s.priority, t.priority) AS priority,
               greatest(s.scheduled_for, v_now) AS due, t.expires_after, t.max_live_jobs AS type_max,
               p_dedupe AND t.dedupe_window > '0' AS dedupe,
               CASE WHEN p_dedupe AND t.dedupe_window > '0' THEN
                   streamvibe.find_same_work(s.user_id, s.job_type, s.params, 'infinity', v_now - t.dedupe_window,
                                             greatest(s.scheduled_for, v_now), v_below)
               END AS twin
        FROM streamvibe.staging s JOIN streamvibe.job_type t ON t.name = s.job_type
        WHERE s.batch = p_batch
    ), first_of_kind AS MATERIALIZED (
        -- Of several identical elements only the first asks for a row of its own, and one that is due earlier.
        SELECT s.*, CASE WHEN s.dedupe THEN
                   min(s.ordinal) OVER (PARTITION BY s.dedupe, s.user_id, s.job_type, s.params ORDER BY s.due)
               ELSE s.ordinal END AS original
        FROM staged s
    ), wanted AS MATERIALIZED (
        SELECT f.ordinal, f.user_id, f.job_type, f.type_max,
               row_number() OVER (PARTITION BY f.user_id ORDER BY f.ordinal) AS nth
        FROM first_of_kind f
        WHERE f.twin IS NULL AND f.original = f.ordinal
    ), room AS MATERIALIZED (
        SELECT u.user_id, coalesce((SELECT a.max_live_jobs FROM streamvibe.account a WHERE a.user_id = u.user_id),
                                   v_default_max) - (
                   SELECT count(*) FROM public.job_queue q
                   WHERE q.user_id = u.user_id AND q.status IN ('pending', 'processing')) AS places
        FROM (SELECT DISTINCT w.user_id FROM wanted w) u
        WHERE p_enforce_limit
    ), room_of_type AS MATERIALIZED (
        SELECT u.user_id, u.job_type, u.type_max - (
                   SELECT count(*) FROM public.job_queue q
                   WHERE q.user_id = u.user_id AND q.status IN ('pending', 'processing')
                     AND q.job_type = u.job_type) AS places
        FROM (SELECT DISTINCT w.user_id, w.job_type, w.type_max FROM wanted w) u
        WHERE p_enforce_limit AND u.type_max IS NOT NULL
    ), fits_type AS MATERIALIZED (
        -- What a type's own limit refuses must not use up a place of the user's limit.
        SELECT w.ordinal, w.user_id, row_number() OVER (PARTITION BY w.user_id ORDER BY w.ordinal) AS nth
        FROM (SELECT w.*, row_number() OVER (PARTITION BY w.user_id, w.job_type ORDER BY w.ordinal) AS nth_of_type
              FROM wanted w) w
        LEFT JOIN room_of_type rt USING (user_id, job_type)
        WHERE rt.user_id IS NULL OR w.nth_of_type <= rt.places
    ), accepted AS MATERIALIZED (
        SELECT n.ordinal, streamvibe.make_id(v_us + n.nth, hashint8extended(n.nth, v_random)) AS id,
               v_now + n.nth * interval '1 microsecond' AS at
        FROM (SELECT f.ordinal, row_number() OVER (ORDER BY f.ordinal) AS nth
              FROM fits_type f LEFT JOIN room r USING (user_id)
              WHERE r.user_id IS NULL OR f.nth <= r.places
              ORDER BY f.ordinal) n
    ), inserted AS (
        INSERT INTO public.job_queue
            (id, created_at, user_id, job_type, params, job_priority, scheduled_for, expires_at, updated_at, turn,
             traceparent)
        SELECT a.id, a.at, s.user_id, s.job_type, s.params, s.priority, s.due,
               s.due + s.expires_after, v_now, u.turn + row_number() OVER (PARTITION BY s.user_id, s.job_type ORDER BY a.ordinal) - 1,
               v_traceparent
        FROM accepted a JOIN staged s USING (ordinal)
        JOIN (SELECT n.* FROM (SELECT array_agg(d.user_id) AS user_ids, array_agg(d.job_type) AS job_types
                               FROM (SELECT DISTINCT w.user_id, w.job_type FROM wanted w) d) p
              CROSS JOIN LATERAL streamvibe.next_turns(p.user_ids, p.job_types, v_now, v_below) n) u
             USING (user_id, job_type)
        ORDER BY a.ordinal
        RETURNING tableoid AS leaf, job_type, created_at
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = i.leaf), 0),
               i.job_type, 'pending', streamvibe.minute_of(i.created_at), count(*)
        FROM inserted i GROUP BY i.leaf, i.job_type, streamvibe.minute_of(i.created_at)
    ), answered AS MATERIALIZED (
        SELECT f.ordinal, f.job_type, coalesce(f.twin, a.id) AS id,
               CASE WHEN f.twin IS NOT NULL THEN 'joined' WHEN a.id IS NULL THEN 'refused'
                    WHEN f.original = f.ordinal THEN 'created' ELSE 'joined' END AS outcome
        FROM first_of_kind f LEFT JOIN accepted a ON a.ordinal = f.original
    ), counted AS (
        INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
        SELECT 'asked', w.job_type, w.outcome, count(*) FROM answered w WHERE w.outcome = 'joined' GROUP BY w.job_type, w.outcome
    )
    SELECT w.ordinal, w.id, w.outcome FROM answered w ORDER BY w.ordinal;
    END IF;

    PERFORM streamvibe.wake_workers(d.job_type)
    FROM (SELECT DISTINCT s.job_type FROM streamvibe.staging s
          WHERE s.batch = p_batch AND coalesce(s.scheduled_for, v_now) <= v_now) d;
    DELETE FROM streamvibe.staging s WHERE s.batch = p_batch;
    IF current_setting('wal_compression') <> v_wal_compression THEN
        PERFORM set_config('wal_compression', v_wal_compression, true);
    END IF;
END
$$;

CREATE FUNCTION streamvibe.cursor_of(p_id uuid, p_filter text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT 'v1' || translate(encode(uuid_send(p_id)
               || substring(int8send(hashtextextended(p_filter, uuid_hash_extended(p_id, 1))) FROM 1 FOR 5),
           'base64'), '+/', '-_')
$$;

CREATE FUNCTION streamvibe.day_figures(p_day timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    v_end CONSTANT timestamptz := p_day + interval '24 hours';
BEGIN
    RETURN (
        WITH counted AS (
            SELECT e.job_type, sum(e.jobs) FILTER (WHERE e.status = 'completed') AS completed,
                   sum(e.jobs) FILTER (WHERE e.status = 'failed') AS failed,
                   sum(e.jobs) FILTER (WHERE e.status = 'cancelled') AS cancelled,
                   sum(e.waiting_us) AS waiting_us, sum(e.processing_us) AS processing_us
            FROM (SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
                  WHERE s.minutes = 1440 AND s.since = p_day
                  UNION ALL
                  SELECT n.job_type, n.status, n.jobs, n.waiting_us, n.processing_us FROM streamvibe.stat_note n
                  WHERE n.minute >= p_day AND n.minute < v_end) e
            WHERE e.status IN ('completed', 'failed', 'cancelled')
            GROUP BY e.job_type
        ), buckets AS (
            SELECT e.job_type, e.measure, e.bucket, sum(e.jobs) AS jobs
            FROM (SELECT s.job_type, s.measure, s.bucket, s.jobs FROM streamvibe.sketch_now s
                  WHERE s.hour >= p_day AND s.hour < v_end
                  UNION ALL
                  SELECT n.job_type, n.measure, n.bucket, n.jobs FROM streamvibe.sketch_note n
                  WHERE n.hour >= p_day AND n.hour < v_end) e
            GROUP BY e.job_type, e.measure, e.bucket HAVING sum(e.jobs) <> 0
        ), sketches AS (
            SELECT b.job_type, jsonb_object_agg(b.bucket, b.jobs) FILTER (WHERE b.measure = 'waiting') AS waiting,
                   jsonb_object_agg(b.bucket, b.jobs) FILTER (WHERE b.measure = 'processing') AS processing
            FROM buckets b GROUP BY b.job_type
        ), errors AS (
            SELECT f.job_type, coalesce(f.failure_kind, 'error') AS failure_kind, count(*) AS jobs
            -- The status as a variable, or an index on failures alone is read, with every failure there is.
            FROM unnest('{failed}'::text[]) s(status)
            CROSS JOIN LATERAL (SELECT q.job_type, q.failure_kind FROM public.job_queue q
                                WHERE q.status = s.status AND q.status IN ('completed', 'cancelled', 'failed')
                                  AND q.completed_at >= p_day AND q.completed_at < v_end) f
            GROUP BY 1, 2
        )
        SELECT jsonb_build_object(
            'job_types', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'job_type', c.job_type, 'completed', coalesce(c.completed, 0), 'failed', coalesce(c.failed, 0),
                    'cancelled', coalesce(c.cancelled, 0), 'waiting_us', coalesce(c.waiting_us, 0),
                    'processing_us', coalesce(c.processing_us, 0), 'waiting', coalesce(s.waiting, '{}'),
                    'processing', coalesce(s.processing, '{}')) ORDER BY c.job_type)
                FROM counted c LEFT JOIN sketches s USING (job_type)
                WHERE c.completed <> 0 OR c.failed <> 0 OR c.cancelled <> 0), '[]'),
            'errors', coalesce((SELECT jsonb_agg(to_jsonb(e) ORDER BY e.job_type, e.failure_kind) FROM errors e), '[]'),
            'in_part', coalesce((SELECT jsonb_agg(t.name ORDER BY t.name) FROM streamvibe.job_type t
                                 WHERE p_day + t.retention < streamvibe.now()), '[]'))
    );
END
$$;

CREATE FUNCTION streamvibe.day_of_id(p_id uuid) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT (('x' || pg_catalog.substr(pg_catalog.encode(pg_catalog.uuid_send(p_id), 'hex'), 1, 12))::bit(48)::bigint
            / 86400000)::integer
$$;

CREATE FUNCTION streamvibe.delete_jobs(p_job_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    v_first uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id LIMIT 1);
    v_last uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id DESC LIMIT 1);
    v_ids uuid[];
    v_archive text;
    v_count integer;
BEGIN
    -- FOR SHARE: set_archive() waits for this transaction, and so knows what was moved.
    SELECT s.archive_url INTO v_archive FROM streamvibe.setting s FOR SHARE;
    -- Hardly ever has anybody one of them, and to lock them first costs as much as to delete them.
    IF v_archive IS NULL THEN
        v_count := streamvibe.remove_jobs_soon(p_job_ids);
        IF v_count IS NOT NULL THEN
            RETURN v_count;
        END IF;
    END IF;
    v_ids := ARRAY(SELECT q.id FROM public.job_queue q
                   WHERE q.id = ANY (p_job_ids) AND q.id BETWEEN v_first AND v_last
                     AND coalesce(q.status, '') IN ('completed', 'failed', 'cancelled') AND q.retry_at IS NULL
                   FOR UPDATE SKIP LOCKED);
    IF v_archive IS NOT NULL THEN
        INSERT INTO streamvibe.leaving_job (
               id, user_id, created_at, updated_at, scheduled_for, expires_at, started_at, completed_at, retry_at,
               claim_token, job_priority, retry_count, progress, turn, isolated, job_type, status, worker_id,
               idempotency_key, failure_kind, error_message, progress_message, params, result, traceparent)
        SELECT q.id, q.user_id, q.created_at, q.updated_at, q.scheduled_for, q.expires_at, q.started_at,
               q.completed_at, q.retry_at, q.claim_token, q.job_priority, q.retry_count, q.progress, q.turn,
               q.isolated, q.job_type, q.status, q.worker_id, q.idempotency_key, q.failure_kind, q.error_message,
               q.progress_message, q.params, q.result, q.traceparent
        FROM public.job_queue q WHERE q.id = ANY (v_ids) AND coalesce(q.status, '') <> '';
    END IF;
    RETURN streamvibe.remove_jobs(v_ids, false);
END
$$;

CREATE FUNCTION streamvibe.drop_from_claims(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_keep uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    WITH rest AS MATERIALIZED (
        SELECT c.token, ARRAY(
                   SELECT u.id FROM unnest(c.job_ids) u(id)
                   -- NOT IN is hashed; NOT EXISTS could become a nested loop over both lists.
                   WHERE (c.token, u.id) NOT IN (
                       SELECT r.token, r.id FROM unnest(p_tokens, p_job_ids) r(token, id)
                       WHERE r.token IS NOT NULL AND r.id IS NOT NULL AND r.id NOT IN (SELECT unnest(p_keep)))
               ) AS job_ids
        FROM streamvibe.claim c
        WHERE c.token = ANY (p_tokens) AND c.worker_id = p_worker_id
    ), emptied AS (
        -- = ANY: looked up by token; the join alone would read every version of every claim.
        DELETE FROM streamvibe.claim c USING rest
        WHERE c.token = ANY (p_tokens) AND c.token = rest.token AND cardinality(rest.job_ids) = 0
    )
    UPDATE streamvibe.claim c SET job_ids = rest.job_ids
    FROM rest WHERE c.token = ANY (p_tokens) AND c.token = rest.token AND cardinality(rest.job_ids) > 0;
END
$$;

CREATE FUNCTION streamvibe.drop_partition(p_partition_name text, p_patience interval DEFAULT '00:00:10'::interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leaf streamvibe.partition;
    v_archive_url text;
BEGIN
    PERFORM streamvibe.require_service('drop_partition');
    PERFORM streamvibe.require_read_committed('drop_partition', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_patience(p_patience);
    -- Before any other table, as ensure_partitions() does.
    LOCK TABLE streamvibe.partition IN ROW EXCLUSIVE MODE;
    v_leaf := streamvibe.leaf_of_name(p_partition_name);
    IF v_leaf.sealed_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'it is not sealed',
            format('SELECT streamvibe.seal_partition(%L), and commit.', p_partition_name));
    END IF;
    -- FOR SHARE: once set_archive() has said where it goes, nothing is dropped unarchived.
    SELECT s.archive_url INTO v_archive_url FROM streamvibe.setting s FOR SHARE;
    IF v_archive_url IS NOT NULL THEN
        PERFORM streamvibe.refuse_copy();
        IF v_leaf.archived_at IS NULL THEN
            PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'it is not archived yet',
                'Run `streamvibe archive run`; or switch the archive off, and lose what is not archived: `streamvibe archive set off`.');
        END IF;
    END IF;
    IF v_leaf.parent_name = 'job_queue' AND streamvibe.has_unplaced_sums() THEN
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name,
            'the statistics do not say yet which jobs are in it',
            format('SELECT streamvibe.place_sums(%L), and commit.', p_partition_name));
    END IF;
    -- Neither readers nor writers wait behind this one, so it may take the second after which autovacuum steps aside.
    PERFORM streamvibe.lock_soon(format('ONLY streamvibe.%I', p_partition_name), 'SHARE UPDATE EXCLUSIVE', p_patience,
                                 '3 seconds');
    PERFORM streamvibe.lock_soon(
        format('ONLY public.%I, ONLY streamvibe.%I', v_leaf.parent_name, p_partition_name), 'ACCESS EXCLUSIVE', p_patience);
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION streamvibe.%I', v_leaf.parent_name, p_partition_name);
    EXECUTE format('DROP TABLE streamvibe.%I', p_partition_name);
    DELETE FROM streamvibe.partition p WHERE p.partition_name = p_partition_name;
    IF v_leaf.parent_name = 'job_queue' THEN
        INSERT INTO streamvibe.dropped_leaf (leaf_number) VALUES (v_leaf.leaf_number);
    END IF;
END
$$;

CREATE FUNCTION streamvibe.due_priorities(p_job_types text[], p_now timestamp with time zone, p_below uuid) RETURNS integer[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_found integer[] := '{}';
    v_rank bigint := 1::bigint << 62;
    v_priority integer;
BEGIN
    LOOP
        v_rank := (SELECT min(d.rank)
            FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
            CROSS JOIN LATERAL (
                SELECT streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                FROM public.job_queue q
                WHERE q.job_type = t.name
                  AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= v_rank
                  AND q.id < p_below
                ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                LIMIT 1) d);
        EXIT WHEN v_rank IS NULL;
        v_priority := 9 - ((v_rank >> 58) & 15);
        IF v_rank <= streamvibe.pickup_rank(v_priority::smallint, p_now, '-infinity', 0) THEN
            v_found := v_found || v_priority;
        END IF;
        EXIT WHEN v_priority = 0;
        v_rank := (1::bigint << 62) + ((10 - v_priority)::bigint << 58);
    END LOOP;
    RETURN v_found;
END
$$;

CREATE FUNCTION streamvibe.duration_us(p_from timestamp with time zone, p_to timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT (pg_catalog.date_part('epoch', p_to - p_from) * 1000000)::bigint $$;

CREATE FUNCTION streamvibe.end_archive_file(p_fence bigint, p_file_id bigint, p_row_count bigint, p_byte_count bigint, p_checksum numeric) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('end_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    UPDATE streamvibe.archive_file f
    SET row_count = p_row_count, byte_count = p_byte_count, checksum = p_checksum, verified_at = streamvibe.now()
    WHERE f.id = p_file_id AND f.state = 'writing' AND f.deleted_at IS NULL;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_file_id', p_file_id::text, 'no such file is being written',
            'Begin it: SELECT streamvibe.begin_archive_file(...).');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.end_duty(p_fence bigint, p_leader_id text, p_duty text, p_started_at timestamp with time zone, p_done bigint, p_error text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
    v_last bigint;
BEGIN
    PERFORM streamvibe.require_service('end_duty');
    UPDATE streamvibe.duty d
    SET running_since = CASE WHEN d.running_since > p_started_at THEN d.running_since END, last_ended_at = v_now,
        last_done = p_done, last_error = left(p_error, 2000)
    WHERE d.name = p_duty;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_duty', p_duty, 'there is no such duty',
            'See which there are: SELECT name FROM streamvibe.duty.');
    END IF;
    IF p_done = 0 AND p_error IS NULL THEN
        UPDATE streamvibe.duty_run r SET ended_at = v_now, runs = r.runs + 1
        WHERE r.id = (SELECT max(l.id) FROM streamvibe.duty_run l WHERE l.duty = p_duty)
          AND r.done = 0 AND r.error IS NULL AND r.fence = p_fence AND r.runs < 1000000000;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO streamvibe.duty_run (duty, fence, leader_id, started_at, ended_at, done, error)
    VALUES (p_duty, p_fence, p_leader_id, p_started_at, v_now, p_done, left(p_error, 2000));
    v_last := (SELECT r.id FROM streamvibe.duty_run r WHERE r.duty = p_duty ORDER BY r.id DESC OFFSET 1000 LIMIT 1);
    IF v_last IS NOT NULL THEN
        DELETE FROM streamvibe.duty_run r WHERE r.duty = p_duty AND r.id <= v_last;
    END IF;
END
$$;

CREATE TABLE streamvibe.claim (
    token bigint NOT NULL,
    worker_id text NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    in_transaction boolean DEFAULT false NOT NULL,
    held boolean DEFAULT false NOT NULL,
    job_ids uuid[] NOT NULL,
    made_in xid8 DEFAULT pg_current_xact_id() NOT NULL,
    low_water text
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');
ALTER TABLE ONLY streamvibe.claim ALTER COLUMN job_ids SET STORAGE EXTERNAL;

CREATE FUNCTION streamvibe.live_claims() RETURNS SETOF streamvibe.claim
    LANGUAGE plpgsql STABLE ROWS 100
    AS $$
DECLARE
    v_known xid8[] := coalesce(nullif(current_setting('streamvibe.live_claims', true), ''), '{0}');
BEGIN
    -- STABLE: the snapshot is the calling statement's, and so is what is read here.
    IF pg_snapshot_xmax(pg_current_snapshot())::text::bigint - v_known[1]::text::bigint > 100
       AND NOT pg_is_in_recovery() THEN
        v_known := pg_snapshot_xmax(pg_current_snapshot()) || ARRAY(
            SELECT c.made_in FROM streamvibe.claim c WHERE c.made_in >= v_known[1]
            UNION
            SELECT c.made_in FROM streamvibe.claim c WHERE c.made_in = ANY (v_known[2:])
            UNION
            SELECT pg_snapshot_xip(pg_current_snapshot())
            UNION
            -- A snapshot does not count its own transaction.
            SELECT o.xid FROM (SELECT pg_current_xact_id_if_assigned() AS xid) o WHERE o.xid IS NOT NULL);
        PERFORM set_config('streamvibe.live_claims', v_known::text, false);
    END IF;
    RETURN QUERY
    -- BETWEEN: so that the planner expects few, and reads the index, whatever it believes of the table.
    SELECT c.* FROM streamvibe.claim c WHERE c.made_in BETWEEN v_known[1] AND '18446744073709551615'
    UNION ALL
    SELECT c.* FROM streamvibe.claim c WHERE c.made_in = ANY (v_known[2:]) AND c.made_in < v_known[1];
END
$$;

CREATE FUNCTION streamvibe.new_id() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    AS $$SELECT pg_catalog.uuidv7()$$;

CREATE FUNCTION streamvibe.now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$SELECT pg_catalog.clock_timestamp()$$;

CREATE TABLE public.job_queue (
    id uuid DEFAULT streamvibe.new_id() NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone DEFAULT streamvibe.now() NOT NULL,
    scheduled_for timestamp with time zone DEFAULT streamvibe.now() NOT NULL,
    expires_at timestamp with time zone,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    retry_at timestamp with time zone,
    claim_token bigint,
    job_priority smallint DEFAULT 5 NOT NULL,
    retry_count smallint DEFAULT 0 NOT NULL,
    progress real,
    turn integer DEFAULT 0 NOT NULL,
    isolated boolean DEFAULT false NOT NULL,
    job_type text NOT NULL COLLATE pg_catalog."C",
    status text DEFAULT 'pending'::text NOT NULL COLLATE pg_catalog."C",
    worker_id text,
    idempotency_key text COLLATE pg_catalog."C",
    failure_kind text,
    error_message text,
    progress_message text,
    params jsonb DEFAULT '{}'::jsonb NOT NULL,
    result jsonb,
    traceparent text COLLATE pg_catalog."C",
    CONSTRAINT job_queue_finished_has_end CHECK (((completed_at IS NULL) = (status = ANY (ARRAY['pending'::text, 'processing'::text])))),
    CONSTRAINT job_queue_params_object CHECK ((jsonb_typeof(params) = 'object'::text)),
    CONSTRAINT job_queue_priority_range CHECK (((job_priority >= 0) AND (job_priority <= 9))),
    CONSTRAINT job_queue_processing_has_claim CHECK (((status <> 'processing'::text) OR ((worker_id IS NOT NULL) AND (claim_token IS NOT NULL) AND (started_at IS NOT NULL)))),
    CONSTRAINT job_queue_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'processing'::text, 'completed'::text, 'failed'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (id);

COMMENT ON TABLE public.job_queue IS 'StreamVibe: one row per job. Written by functions only.';

COMMENT ON COLUMN public.job_queue.created_at IS 'The time in the id, so both orders agree.';

COMMENT ON COLUMN public.job_queue.retry_at IS 'On a failed job: when retry_failed_jobs() brings it back; NULL when it never will.';

COMMENT ON COLUMN public.job_queue.claim_token IS 'The claim that holds a processing job. Stale tokens are refused.';

COMMENT ON COLUMN public.job_queue.retry_count IS 'Attempts that failed so far; the running attempt is retry_count + 1.';

COMMENT ON COLUMN public.job_queue.turn IS 'How many minutes later than its own time the job counts as due, because others of the user wait: see streamvibe.pickup_rank().';

COMMENT ON COLUMN public.job_queue.isolated IS 'Was held by a worker that died with several jobs: runs alone in its process next time.';

COMMENT ON COLUMN public.job_queue.traceparent IS 'The W3C trace context of who asked for the job.';

CREATE VIEW streamvibe.job AS
 SELECT id,
    user_id,
    job_type,
        CASE
            WHEN ((status = 'pending'::text) AND (id IN ( SELECT unnest(c.job_ids) AS unnest
               FROM streamvibe.live_claims() c(token, worker_id, claimed_at, in_transaction, held, job_ids, made_in)))) THEN 'processing'::text
            ELSE status
        END AS status,
    (job_priority)::integer AS job_priority,
    params,
    result,
    failure_kind,
    error_message,
    (retry_count)::integer AS retry_count,
    progress,
    progress_message,
    worker_id,
    created_at,
    updated_at,
    scheduled_for,
    started_at,
    completed_at,
    expires_at,
    retry_at,
    idempotency_key
   FROM public.job_queue q;

CREATE FUNCTION streamvibe.ended_jobs(p_user_id uuid, p_status text, p_job_type text, p_below uuid) RETURNS SETOF streamvibe.job
    LANGUAGE sql STABLE
    AS $$
    SELECT q.id, q.user_id, q.job_type, q.status, q.job_priority::integer, q.params, q.result, q.failure_kind, q.error_message,
           q.retry_count::integer, q.progress, q.progress_message, q.worker_id, q.created_at, q.updated_at, q.scheduled_for,
           q.started_at, q.completed_at, q.expires_at, q.retry_at, q.idempotency_key
    FROM public.job_queue q
    WHERE q.user_id = p_user_id AND q.status = p_status AND q.id < p_below AND (p_job_type IS NULL OR q.job_type = p_job_type)
$$;

CREATE FUNCTION streamvibe.erasures() RETURNS TABLE(user_id uuid, before_id uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('erasures');
    RETURN QUERY
    SELECT e.user_id, e.before_id FROM streamvibe.erasure e WHERE e.left_queue_at IS NOT NULL ORDER BY e.left_queue_at, e.user_id;
END
$$;

CREATE FUNCTION streamvibe.find_jobs(p_user_id uuid, p_params jsonb, p_result jsonb, p_status text, p_job_type text, p_below uuid, p_limit integer) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE ROWS 50
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'on'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_statuses text[] := CASE WHEN p_status IS NOT NULL THEN streamvibe.stored_statuses(p_status) END;
    v_held uuid[];
    v_below uuid := coalesce(p_below, streamvibe.id_bound(streamvibe.now() + interval '1 day'));
BEGIN
    IF p_status IN ('pending', 'processing') THEN
        v_held := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    END IF;
    RETURN QUERY
    SELECT q.id FROM public.job_queue q
    WHERE (p_user_id IS NULL OR q.user_id = p_user_id)
      AND (p_params IS NULL OR q.params @> p_params) AND (p_result IS NULL OR q.result @> p_result)
      AND (v_statuses IS NULL OR q.status = ANY (v_statuses))
      AND (p_job_type IS NULL OR q.job_type = p_job_type)
      AND (v_held IS NULL OR q.status <> 'pending' OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing'))
      AND q.id < v_below
    ORDER BY q.id DESC LIMIT p_limit;
END
$$;

CREATE FUNCTION streamvibe.id_time(p_id uuid) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT pg_catalog.to_timestamp(
        ((('x' || substr(pg_catalog.encode(pg_catalog.uuid_send(p_id), 'hex'), 1, 12))::bit(48)::bigint * 1000
          + ('x' || substr(pg_catalog.encode(pg_catalog.uuid_send(p_id), 'hex'), 14, 3))::bit(12)::integer * 1000 / 4096
         )::double precision / 1000000))
$$;

CREATE TABLE public.job_log (
    id uuid DEFAULT streamvibe.new_id() NOT NULL,
    job_id uuid NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamp with time zone GENERATED ALWAYS AS (streamvibe.id_time(id)) STORED NOT NULL,
    log_level text DEFAULT 'info'::text NOT NULL COLLATE pg_catalog."C",
    message text NOT NULL,
    metadata jsonb,
    job_type text COLLATE pg_catalog."C",
    CONSTRAINT job_log_level_known CHECK ((log_level = ANY (ARRAY['debug'::text, 'info'::text, 'warning'::text, 'error'::text])))
)
PARTITION BY RANGE (id);

COMMENT ON TABLE public.job_log IS 'StreamVibe: what handlers logged. No foreign key: logs and jobs leave on their own schedules.';

CREATE FUNCTION streamvibe.find_log_lines(p_job_id uuid, p_user_id uuid, p_log_level text, p_from uuid, p_below uuid, p_metadata jsonb, p_query tsquery, p_limit integer) RETURNS SETOF public.job_log
    LANGUAGE plpgsql STABLE ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    v_first timestamptz := streamvibe.id_time(p_from);
    v_last timestamptz := streamvibe.id_time(p_below);
BEGIN
    -- Words and values are only found by a bitmap; anything else is read in order.
    IF p_metadata IS NOT NULL OR p_query IS NOT NULL THEN
        PERFORM set_config('enable_bitmapscan', 'on', true);
    END IF;
    IF p_job_id IS NOT NULL OR p_user_id IS NOT NULL OR p_log_level IN ('error', 'warning') THEN
        RETURN QUERY
        SELECT l.* FROM public.job_log l
        WHERE (p_job_id IS NULL OR l.job_id = p_job_id) AND (p_user_id IS NULL OR l.user_id = p_user_id)
          AND (p_log_level IS NULL OR l.log_level = p_log_level)
          AND (p_metadata IS NULL OR l.metadata @> p_metadata)
          AND (p_query IS NULL OR to_tsvector('english', l.message) @@ p_query)
          AND l.id >= p_from AND l.id < p_below AND l.created_at >= v_first AND l.created_at <= v_last
        ORDER BY l.created_at DESC, l.id DESC LIMIT p_limit;
    ELSE
        RETURN QUERY
        SELECT l.* FROM public.job_log l
        WHERE (p_log_level IS NULL OR l.log_level = p_log_level)
          AND (p_metadata IS NULL OR l.metadata @> p_metadata)
          AND (p_query IS NULL OR to_tsvector('english', l.message) @@ p_query)
          AND l.id >= p_from AND l.id < p_below
        ORDER BY l.id DESC LIMIT p_limit;
    END IF;
END
$$;

CREATE FUNCTION streamvibe.find_same_work(p_user_id uuid, p_job_type text, p_params jsonb, p_cached_since timestamp with time zone, p_live_since timestamp with time zone, p_due timestamp with time zone, p_below uuid) RETURNS uuid
    LANGUAGE plpgsql
    SET enable_sort TO 'off'
    AS $$
DECLARE
    v_hash bigint := streamvibe.identity_hash(p_user_id, p_job_type, p_params);
    v_found record;
BEGIN
    SELECT f.id, f.kind INTO v_found FROM (
        (SELECT q.id, 1 AS kind
         FROM public.job_queue q
         WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params) = v_hash
           AND q.completed_at > p_cached_since
           AND coalesce(q.status, '') = 'completed'
           AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
           AND q.id < p_below
         ORDER BY q.completed_at DESC
         LIMIT 1)
        UNION ALL
        (SELECT (array_agg(l.id ORDER BY l.id) FILTER (WHERE l.is_twin))[1], 2
         FROM (SELECT q.id, q.created_at >= p_live_since
                      AND (q.scheduled_for <= p_due OR q.retry_count > 0 OR q.status = 'processing') AS is_twin
               FROM public.job_queue q
               WHERE streamvibe.identity_hash(q.user_id, q.job_type, q.params) = v_hash
                 AND q.completed_at IS NULL
                 AND q.user_id = p_user_id AND q.job_type = p_job_type AND q.params = p_params
                 AND q.id < p_below
               ORDER BY q.completed_at DESC
               LIMIT 100) l
         HAVING bool_or(l.is_twin) OR count(*) = 100)) f
    ORDER BY f.kind LIMIT 1;
    IF v_found.kind = 2 AND v_found.id IS NULL THEN
        RETURN (SELECT l.id
            FROM unnest(ARRAY['pending', 'processing']) s(status)
            CROSS JOIN LATERAL (
                SELECT q.id
                FROM public.job_queue q
                WHERE q.user_id = p_user_id AND q.status = s.status
                  AND q.created_at >= p_live_since
                  AND q.job_type = p_job_type AND q.params = p_params
                  AND (q.scheduled_for <= p_due OR q.retry_count > 0 OR q.status = 'processing')
                  AND q.id < p_below
                ORDER BY q.created_at DESC, q.id DESC
                LIMIT 1) l
            LIMIT 1);
    END IF;
    RETURN v_found.id;
END
$$;

CREATE FUNCTION streamvibe.finish_archive(p_fence bigint, p_source text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_batch bigint := substring(p_source FROM '^leaving-([0-9]{1,18})$')::bigint;
    v_leaf streamvibe.partition;
    v_archived bigint;
    v_unverified text;
BEGIN
    PERFORM streamvibe.require_service('finish_archive');
    PERFORM streamvibe.require_read_committed('finish_archive', 'Use READ COMMITTED.');
    PERFORM streamvibe.require_archiver(p_fence);
    SELECT coalesce(sum(f.row_count), 0), min(f.key) FILTER (WHERE f.verified_at IS NULL) INTO v_archived, v_unverified
    FROM streamvibe.archive_file f
    WHERE f.source = p_source AND f.state = 'writing' AND f.replaces IS NULL AND f.deleted_at IS NULL;
    IF v_unverified IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_source', p_source, v_unverified || ' is not verified',
            'Run `streamvibe archive run`, which writes it again.');
    END IF;
    IF v_batch IS NOT NULL THEN
        IF v_archived <> (SELECT count(*) FROM (SELECT FROM streamvibe.leaving_job l WHERE l.batch = v_batch FOR UPDATE) l) THEN
            RETURN false;
        END IF;
        DELETE FROM streamvibe.leaving_job l WHERE l.batch = v_batch;
    ELSE
        v_leaf := streamvibe.leaf_of_name(p_source);
        -- Erasing a user takes the count back.
        IF v_archived IS DISTINCT FROM v_leaf.row_count THEN
            RETURN false;
        END IF;
        UPDATE streamvibe.partition p SET archived_at = streamvibe.now() WHERE p.partition_name = p_source;
    END IF;
    UPDATE streamvibe.archive_file f SET state = 'complete'
    WHERE f.source = p_source AND f.state = 'writing' AND f.replaces IS NULL AND f.deleted_at IS NULL;
    RETURN true;
END
$_$;

CREATE FUNCTION streamvibe.finish_erasure(p_fence bigint, p_user_id uuid, p_before_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('finish_erasure');
    PERFORM streamvibe.require_archiver(p_fence);
    DELETE FROM streamvibe.erasure e WHERE e.user_id = p_user_id AND e.before_id = p_before_id
      AND e.left_queue_at IS NOT NULL;
END
$$;

CREATE FUNCTION streamvibe.forget_archive_file(p_fence bigint, p_file_id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('forget_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    DELETE FROM streamvibe.archive_file f WHERE f.id = p_file_id AND f.state <> 'complete' AND f.deleted_at IS NOT NULL;
    UPDATE streamvibe.archive_file f SET state = 'obsolete', deleted_at = streamvibe.now()
    WHERE f.id = p_file_id AND f.state <> 'complete';
END
$$;

CREATE FUNCTION streamvibe.forget_leaves(p_leaf_numbers bigint[], p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'on'
    AS $$
DECLARE
    v_deleted integer;
    v_sketches integer;
BEGIN
    -- The sums of a whole leaf, and what they are of those of all, in one step: readers subtract them as long as they are there.
    WITH gone AS MATERIALIZED (
        DELETE FROM streamvibe.stat s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.leaf_number = ANY (p_leaf_numbers)
        RETURNING s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us
    ), removed AS (
        INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
        SELECT 'removed', g.job_type, '', sum(g.jobs) FROM gone g GROUP BY g.job_type
    )
    UPDATE streamvibe.stat s
    SET jobs = s.jobs - g.jobs, waiting_us = s.waiting_us - g.waiting_us, processing_us = s.processing_us - g.processing_us
    FROM (SELECT g.job_type, g.status, sum(g.jobs) AS jobs, sum(g.waiting_us) AS waiting_us, sum(g.processing_us) AS processing_us
          FROM gone g GROUP BY g.job_type, g.status) g
    WHERE s.minutes = 0 AND s.since = 'epoch' AND s.leaf_number = 0 AND s.job_type = g.job_type AND s.status = g.status;
    IF FOUND THEN
        DELETE FROM streamvibe.stat s WHERE s.minutes = 0 AND s.jobs = 0 AND s.waiting_us = 0 AND s.processing_us = 0;
    END IF;
    WITH gone AS MATERIALIZED (
        DELETE FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.leaf_number = ANY (p_leaf_numbers)
        RETURNING s.job_type, s.measure, s.bucket, s.jobs
    )
    UPDATE streamvibe.stat_sketch s SET jobs = s.jobs - g.jobs
    FROM (SELECT w.minutes, g.job_type, g.measure, w.bucket, sum(g.jobs) AS jobs
          FROM gone g CROSS JOIN LATERAL (VALUES (0, g.bucket), (-2, g.bucket >> 4)) w(minutes, bucket)
          GROUP BY w.minutes, g.job_type, g.measure, w.bucket) g
    WHERE s.minutes = g.minutes AND s.since = 'epoch' AND s.leaf_number = 0 AND s.job_type = g.job_type AND s.measure = g.measure
      AND s.bucket = g.bucket AND s.minutes IN (0, -2);
    IF FOUND THEN
        DELETE FROM streamvibe.stat_sketch s WHERE s.minutes IN (0, -2) AND s.jobs = 0;
    END IF;
    DELETE FROM streamvibe.stat s
    WHERE s.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat l WHERE l.leaf_number = ANY (p_leaf_numbers) LIMIT p_limit));
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    DELETE FROM streamvibe.stat_sketch s
    WHERE s.ctid = ANY (ARRAY(SELECT l.ctid FROM streamvibe.stat_sketch l
                              WHERE l.leaf_number = ANY (p_leaf_numbers) LIMIT p_limit - v_deleted));
    GET DIAGNOSTICS v_sketches = ROW_COUNT;
    v_deleted := v_deleted + v_sketches;
    IF v_deleted < p_limit THEN
        DELETE FROM streamvibe.dropped_leaf g WHERE g.leaf_number = ANY (p_leaf_numbers);
    END IF;
    RETURN v_deleted;
END
$$;

CREATE FUNCTION streamvibe.has_open_jobs(p_from uuid, p_before uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
    SELECT EXISTS (SELECT FROM public.job_queue q
                   WHERE q.status IN ('pending', 'processing') AND q.id >= p_from AND q.id < p_before)
        OR EXISTS (SELECT FROM generate_series(0, 100) n(retry_count)
                   CROSS JOIN LATERAL (
                       SELECT FROM public.job_queue q
                       WHERE q.status = 'failed' AND q.retry_count = n.retry_count AND q.retry_at >= '-infinity'
                         AND q.id >= p_from AND q.id < p_before
                       ORDER BY q.retry_at LIMIT 1) f)
$$;

CREATE FUNCTION streamvibe.has_room(p_user_id uuid, p_job_type text, p_max_live_jobs integer, p_max_live_jobs_of_type integer, p_below uuid DEFAULT 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) RETURNS boolean
    LANGUAGE plpgsql
    SET enable_sort TO 'off'
    AS $$
BEGIN
    RETURN (SELECT (SELECT count(*) FROM (
                    SELECT FROM unnest(ARRAY['pending', 'processing']) s(status)
                    CROSS JOIN LATERAL (SELECT FROM public.job_queue q
                    WHERE q.user_id = p_user_id AND q.status = s.status AND q.id < p_below
                    ORDER BY q.created_at DESC, q.id DESC LIMIT p_max_live_jobs) l LIMIT p_max_live_jobs) live) < p_max_live_jobs
           AND (p_max_live_jobs_of_type IS NULL
                OR (SELECT count(*) FROM (
                        SELECT FROM public.job_queue q
                        WHERE q.user_id = p_user_id AND q.status IN ('pending', 'processing')
                          AND q.job_type = p_job_type
                        ORDER BY q.status LIMIT p_max_live_jobs_of_type) live) < p_max_live_jobs_of_type));
END
$$;

CREATE FUNCTION streamvibe.has_unplaced_sums() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT EXISTS (SELECT FROM streamvibe.stat s WHERE s.leaf_number = -1)
        OR EXISTS (SELECT FROM streamvibe.stat_delta d WHERE d.leaf_number IS NULL)
$$;

CREATE FUNCTION streamvibe.has_wild_number(p_document jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $_$
    SELECT pg_catalog.jsonb_path_exists(p_document,
        '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308 || (@ > -1e-307 && @ < 1e-307 && @ != 0)))')
$_$;

CREATE FUNCTION streamvibe.held_jobs(p_worker_id text, p_tokens bigint[]) RETURNS TABLE(token bigint, job_id uuid, claimed_at timestamp with time zone)
    LANGUAGE sql ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.token, u.id, c.claimed_at
    FROM streamvibe.claim c CROSS JOIN LATERAL unnest(c.job_ids) u(id)
    WHERE c.token = ANY (p_tokens) AND c.worker_id = p_worker_id
$$;

CREATE FUNCTION streamvibe.histogram_bound(p_bucket smallint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT (streamvibe.histogram_bounds())[1 + pg_catalog.width_bucket(p_bucket::integer,
        '{-264,-229,-183,-149,-114,-68,-34,1,47,81,116,171,206,286,341,410,480}'::integer[])]::text
$$;

CREATE FUNCTION streamvibe.histogram_bounds() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT '{0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,900,3600,14400,Infinity}'::double precision[] $$;

CREATE FUNCTION streamvibe.id_bound(p_at timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (encode(substring(int8send((extract(epoch FROM p_at) * 1000)::bigint) FROM 3), 'hex')
            || '00000000000000000000')::uuid
$$;

CREATE FUNCTION streamvibe.id_floor(p_at timestamp with time zone) RETURNS uuid
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    AS $$
    SELECT (pg_catalog.encode(
        substring(pg_catalog.int8send(streamvibe.microseconds(least(greatest(p_at, 'epoch'), '9999-01-01')) / 1000) FROM 3)
        || substring(pg_catalog.int4send((28672 + ((streamvibe.microseconds(least(greatest(p_at, 'epoch'), '9999-01-01'))
                                                    % 1000) * 4096 + 999) / 1000)::integer) FROM 3),
        'hex') || '8000000000000000')::uuid
$$;

CREATE FUNCTION streamvibe.identity_hash(p_user_id uuid, p_job_type text, p_params jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT (pg_catalog.uuid_hash(p_user_id)::bigint << 32)
           + (pg_catalog.jsonb_hash_extended(p_params, pg_catalog.hashtextextended(p_job_type COLLATE "C", 0)) & 4294967295)
$$;

CREATE FUNCTION streamvibe.in_utc(p_at timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT CASE WHEN isfinite(p_at) THEN to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') ELSE p_at::text END
$$;

CREATE FUNCTION streamvibe.index_pages(p_leaf_pages bigint, p_leaf_density double precision, p_internal_pages bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT 1 + CASE WHEN p_leaf_pages = 0 OR p_leaf_density < 0.1 THEN 0
                    WHEN p_leaf_pages * p_leaf_density <= 90 THEN 1
                    ELSE ceil(p_leaf_pages * p_leaf_density / 90) + p_internal_pages END
$$;

CREATE FUNCTION streamvibe.indexes_to_rebuild() RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_tables text[];
BEGIN
    IF NOT (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = 'public.job_queue'::regclass) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT format('DROP INDEX CONCURRENTLY streamvibe.%I', c.relname)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = 'streamvibe'::regnamespace
      AND c.relname ~ '_cc(new|old)[0-9]*$'
      AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = i.indexrelid);
    v_tables := ARRAY(SELECT t.name FROM streamvibe.tables_to_pack() t);
    RETURN QUERY SELECT format('VACUUM (FULL, ANALYZE, SKIP_LOCKED) streamvibe.%I', t.name) FROM unnest(v_tables) t(name);
    RETURN QUERY
    WITH bloat AS MATERIALIZED (
        SELECT b.*, p.sealed_at IS NOT NULL AS is_leaving,
               p.upper_at + interval '1 hour' < streamvibe.now() OR t.relname IN ('stat', 'stat_sketch', 'archive_file')
               OR p.parent_name IS NOT NULL AND b.size_bytes < 256 * 1024 * 1024 AS is_packed
        FROM streamvibe.leaf_index_bloat() b
        JOIN pg_index i ON i.indexrelid = b.index_oid
        JOIN pg_class t ON t.oid = i.indrelid
        LEFT JOIN streamvibe.partition p ON p.partition_name = t.relname
    )
    (SELECT format('REINDEX INDEX CONCURRENTLY %s', b.index_oid::regclass)
     FROM bloat b
     WHERE b.is_packed AND NOT b.is_leaving AND b.is_exact
       AND b.bloat_bytes > b.size_bytes / 8
       AND b.table_name <> ALL (v_tables)
     ORDER BY b.bloat_bytes DESC LIMIT 20)
    UNION ALL
    (SELECT format('REINDEX INDEX CONCURRENTLY %s', b.index_oid::regclass)
     FROM bloat b
     WHERE NOT (b.is_packed AND b.is_exact) IS TRUE AND b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > b.size_bytes / 2
     ORDER BY b.bloat_bytes DESC LIMIT 1);
END
$_$;

CREATE FUNCTION streamvibe.is_held(p_job_id uuid) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT EXISTS (SELECT FROM streamvibe.live_claims() c WHERE p_job_id = ANY (c.job_ids))
$$;

CREATE FUNCTION streamvibe.is_service() RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_role name := CASE WHEN current_setting('role') = 'none' THEN session_user
                        ELSE current_setting('role')::name END;
BEGIN
    -- Every call of the queue asks, and these two answers need no query. (is_superuser is of that same role.)
    IF v_role = 'service_role' OR current_setting('is_superuser') = 'on' THEN
        RETURN true;
    END IF;
    RETURN EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
                   WHERE c.oid = 'public.job_queue'::regclass AND r.rolname = v_role);
END
$$;

CREATE TABLE streamvibe.job_type (
    name text NOT NULL COLLATE pg_catalog."C",
    cache_ttl interval DEFAULT '01:00:00'::interval NOT NULL,
    dedupe_window interval DEFAULT '00:05:00'::interval NOT NULL,
    max_attempts smallint DEFAULT 3 NOT NULL,
    backoff_base interval DEFAULT '00:00:02'::interval NOT NULL,
    backoff_max interval DEFAULT '01:00:00'::interval NOT NULL,
    timeout interval DEFAULT '00:30:00'::interval NOT NULL,
    max_live_jobs integer,
    priority smallint DEFAULT 5 NOT NULL,
    expires_after interval DEFAULT '24:00:00'::interval,
    retention interval DEFAULT '7 days'::interval NOT NULL,
    log_retention interval DEFAULT '30 days'::interval NOT NULL,
    max_params_bytes integer DEFAULT 1048576 NOT NULL,
    registered_at timestamp with time zone DEFAULT streamvibe.now() NOT NULL,
    cleaned_until timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL,
    cleaned_id uuid DEFAULT '00000000-0000-0000-0000-000000000000'::uuid NOT NULL,
    lines_cleaned_id uuid DEFAULT '00000000-0000-0000-0000-000000000000'::uuid NOT NULL,
    CONSTRAINT job_type_log_retention_check CHECK ((log_retention > '00:00:00'::interval)),
    CONSTRAINT job_type_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 100))),
    CONSTRAINT job_type_max_live_jobs_check CHECK ((max_live_jobs >= 0)),
    CONSTRAINT job_type_max_params_bytes_check CHECK ((max_params_bytes > 0)),
    CONSTRAINT job_type_name_check CHECK ((name ~ '^[a-z][a-z0-9_.-]{0,62}$'::text)),
    CONSTRAINT job_type_priority_check CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT job_type_retention_check CHECK ((retention > '00:00:00'::interval))
);

CREATE FUNCTION streamvibe.known_job_type(p_job_type text) RETURNS streamvibe.job_type
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_type streamvibe.job_type;
    v_like text;
BEGIN
    SELECT t.* INTO v_type FROM streamvibe.job_type t WHERE t.name = p_job_type;
    IF NOT FOUND THEN
        SELECT string_agg(l.name, ' or ' ORDER BY l.shared DESC, l.name) INTO v_like FROM (
            SELECT t.name, count(*) AS shared FROM streamvibe.job_type t, generate_series(1, length(t.name) - 1) g(i)
            WHERE position(substr(t.name, g.i, 2) IN lower(p_job_type)) > 0
            GROUP BY t.name HAVING 2 * count(*) >= greatest(length(t.name), length(p_job_type)) - 1
            ORDER BY shared DESC, t.name LIMIT 3) l;
        PERFORM streamvibe.raise_error('SV002', 'p_job_type', p_job_type,
            'job type is not registered' || coalesce('; did you mean ' || v_like || '?', ''),
            'Check the spelling, or register it: SELECT register_job_type(''name'').');
    END IF;
    RETURN v_type;
END
$$;

CREATE FUNCTION streamvibe.lead_archive(p_holder text, p_lease interval DEFAULT '00:00:30'::interval) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
DECLARE
    v_fence bigint;
BEGIN
    PERFORM streamvibe.require_service('lead_archive');
    IF (length(p_holder) BETWEEN 1 AND 200) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_holder', p_holder, 'p_holder is not a name',
            'Use 1 to 200 characters that no other process uses.');
    ELSIF (p_lease BETWEEN '1 second' AND '1 hour') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_lease', p_lease::text, 'p_lease is out of range',
            'Use ''1 second'' to ''1 hour''.');
    END IF;
    PERFORM streamvibe.refuse_copy();
    PERFORM FROM streamvibe.archiver FOR NO KEY UPDATE;
    UPDATE streamvibe.archiver a
    SET holder = p_holder, expires_at = streamvibe.now() + p_lease,
        fence = CASE WHEN a.holder = p_holder AND a.expires_at >= streamvibe.now() THEN a.fence ELSE a.fence + 1 END
    WHERE a.holder = p_holder OR a.holder IS NULL OR a.expires_at < streamvibe.now()
    RETURNING a.fence INTO v_fence;
    RETURN v_fence;
END
$$;

CREATE FUNCTION streamvibe.lead_maintenance(p_leader_id text, p_lease interval DEFAULT '00:00:10'::interval) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
    v_now timestamptz;
    v_fence bigint;
BEGIN
    PERFORM streamvibe.require_service('lead_maintenance');
    IF (length(p_leader_id) BETWEEN 1 AND 200) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_leader_id', p_leader_id, 'p_leader_id is not a name',
            'Use 1 to 200 characters that no other process uses.');
    ELSIF (p_lease BETWEEN '1 second' AND '1 hour') IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_lease', p_lease::text, 'p_lease is out of range',
            'Use ''1 second'' to ''1 hour''.');
    END IF;
    PERFORM FROM streamvibe.leader FOR NO KEY UPDATE;
    v_now := streamvibe.now();
    UPDATE streamvibe.leader l
    SET leader_id = p_leader_id, expires_at = v_now + p_lease,
        fence = CASE WHEN l.leader_id = p_leader_id AND l.expires_at >= v_now THEN l.fence ELSE l.fence + 1 END,
        led_since = CASE WHEN l.leader_id = p_leader_id AND l.expires_at >= v_now THEN l.led_since ELSE v_now END
    WHERE l.leader_id = p_leader_id OR l.expires_at < v_now OR l.leader_id IS NULL
    RETURNING l.fence INTO v_fence;
    RETURN v_fence;
END
$$;

CREATE FUNCTION streamvibe.leaf_index_bloat(p_suspicious_only boolean DEFAULT false) RETURNS TABLE(index_oid oid, index_name text, table_name text, size_bytes bigint, bloat_bytes bigint, leaf_density double precision, is_exact boolean)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_function text := streamvibe.pgstattuple_function('pgstatindex');
    v_found text := 'SELECT NULL::double precision AS density, NULL::double precision AS pages';
BEGIN
    IF v_function IS NOT NULL THEN
        -- (The condition stands in a subquery of its own, so that the function is not called where it is not met.)
        v_found := format('SELECT CASE WHEN s.leaf_pages > 0 THEN s.avg_leaf_density END AS density, '
                          'streamvibe.index_pages(s.leaf_pages, s.avg_leaf_density, s.internal_pages) AS pages '
                          'FROM (SELECT WHERE NOT $1 OR NOT e.is_known OR e.needed < 0.75 * e.size) g, '
                          'LATERAL %s(e.relation::regclass) s', v_function);
    END IF;
    RETURN QUERY EXECUTE format($query$
        WITH e AS MATERIALIZED (
            SELECT r.relation, r.name, r.table_name, pg_relation_size(r.relation) AS size,
                   -- A page has 24 bytes of its own and 16 at its end; an entry a pointer, 8 bytes, and its columns, to a
                   -- multiple of 8 bytes.
                   ceil(c.reltuples * (12 + 8 * ceil(coalesce(w.width, 16) / 8.0)) / (8152 * 0.9)) * 8192 + 8192 AS needed,
                   c.reltuples >= 0 AND t.reltuples >= 0 AS is_known
            FROM streamvibe.own_relations() r
            JOIN pg_index i ON i.indexrelid = r.relation AND i.indisvalid
            JOIN pg_class c ON c.oid = r.relation
            JOIN pg_class t ON t.oid = i.indrelid
            JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
            LEFT JOIN LATERAL (
                SELECT sum(coalesce(s.avg_width, CASE WHEN a.attlen > 0 THEN a.attlen ELSE 16 END)) AS width
                FROM pg_attribute a
                LEFT JOIN pg_attribute ta ON ta.attrelid = i.indrelid AND ta.attnum = i.indkey[a.attnum - 1]
                LEFT JOIN pg_stats s ON s.schemaname = 'streamvibe' AND s.tablename = t.relname AND s.attname = ta.attname
                WHERE a.attrelid = r.relation) w ON true
            WHERE r.kind = 'i' AND pg_relation_size(r.relation) > 0
        )
        SELECT e.relation, e.name, e.table_name, e.size,
               greatest(CASE WHEN f.pages IS NOT NULL THEN e.size - f.pages * current_setting('block_size')::integer
                             WHEN e.is_known THEN e.size - e.needed ELSE 0 END, 0)::bigint,
               f.density, f.pages IS NOT NULL
        FROM e LEFT JOIN LATERAL (%s) f ON true
    $query$, v_found) USING p_suspicious_only;
END
$_$;

CREATE TABLE streamvibe.partition (
    parent_name text NOT NULL,
    lower_at timestamp with time zone NOT NULL,
    upper_at timestamp with time zone NOT NULL,
    upper_id uuid NOT NULL,
    partition_name text NOT NULL,
    leaf_number bigint NOT NULL,
    sealed_at timestamp with time zone,
    row_count bigint,
    archived_at timestamp with time zone,
    CONSTRAINT partition_check CHECK ((lower_at < upper_at)),
    CONSTRAINT partition_check1 CHECK (((row_count IS NULL) OR (sealed_at IS NOT NULL))),
    CONSTRAINT partition_check2 CHECK (((archived_at IS NULL) OR (sealed_at IS NOT NULL)))
);

CREATE FUNCTION streamvibe.leaf_of_name(p_partition_name text) RETURNS streamvibe.partition
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leaf streamvibe.partition;
BEGIN
    SELECT p.* INTO v_leaf FROM streamvibe.partition p WHERE p.partition_name = p_partition_name FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV009', 'p_partition_name', p_partition_name, 'there is no such partition',
            'See which there are: SELECT partition_name FROM streamvibe.partition.');
    END IF;
    RETURN v_leaf;
END
$$;

CREATE FUNCTION streamvibe.leave_pages_uncompressed() RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_was text := current_setting('wal_compression');
BEGIN
    IF v_was IN ('on', 'pglz') AND has_parameter_privilege('wal_compression', 'SET') THEN
        PERFORM set_config('wal_compression', 'off', true);
    END IF;
    RETURN v_was;
END
$$;

CREATE FUNCTION streamvibe.lock_account(p_user_id uuid, p_default integer DEFAULT NULL::integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_limit integer;
BEGIN
    LOOP
        SELECT a.max_live_jobs INTO v_limit FROM streamvibe.account a WHERE a.user_id = p_user_id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        -- Erasing a user takes the row away, also from who waits for it.
        INSERT INTO streamvibe.account (user_id) VALUES (p_user_id) ON CONFLICT DO NOTHING;
    END LOOP;
    v_limit := coalesce(v_limit, p_default);
    IF v_limit IS NULL THEN
        SELECT s.default_max_live_jobs INTO v_limit FROM streamvibe.setting s;
    END IF;
    RETURN v_limit;
END
$$;

CREATE FUNCTION streamvibe.lock_claims(p_worker_id text, p_tokens bigint[], p_sizes integer[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(p_sizes) s(size) WHERE s.size IS DISTINCT FROM cardinality(p_tokens)) THEN
        PERFORM streamvibe.raise_error('SV001', 'p_tokens', cardinality(p_tokens) || ' tokens',
            'the arrays differ in length', 'Pass one token per job, and one entry per job in every other array.');
    END IF;
    PERFORM streamvibe.require_read_committed('moving a claimed job', 'Use READ COMMITTED.');
    PERFORM FROM streamvibe.claim c
    WHERE c.token = ANY (p_tokens) AND c.worker_id = p_worker_id
    ORDER BY c.token FOR NO KEY UPDATE;
END
$$;

CREATE FUNCTION streamvibe.lock_due_jobs(p_job_types text[], p_lows bigint[], p_highs bigint[], p_limit integer, p_alone boolean, p_besides uuid[], p_now timestamp with time zone, p_below uuid, p_paused_users uuid[] DEFAULT '{}'::uuid[], p_only uuid DEFAULT NULL::uuid) RETURNS TABLE(id uuid, isolated boolean, rank bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    v_left integer := p_limit;
    v_reach integer := p_limit;
    v_from bigint := 0;
    v_to bigint := 9223372036854775807;
    v_count integer;
BEGIN
    LOOP
        IF cardinality(p_job_types) > 1 THEN
            v_to := (SELECT max(d.rank) + 1 FROM (
                SELECT e.rank
                FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
                CROSS JOIN LATERAL (
                    SELECT s.rank
                    FROM unnest(p_lows, p_highs) r(low, high)
                    CROSS JOIN LATERAL (
                        SELECT streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                        FROM public.job_queue q
                        WHERE q.job_type = t.name
                          AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                          AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                              >= greatest(r.low, v_from)
                          AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) < r.high
                          AND q.id < p_below
                          AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
                          AND q.id <> ALL (p_besides)
                          AND q.user_id <> ALL (p_paused_users)
                        ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                        LIMIT v_reach) s
                    LIMIT v_reach) e
                ORDER BY e.rank LIMIT v_reach) d);
            EXIT WHEN v_to IS NULL;
        END IF;
        RETURN QUERY
        SELECT d.id, d.isolated, d.rank
        FROM unnest(p_job_types, array_fill('pending'::text, ARRAY[cardinality(p_job_types)])) t(name, status)
        CROSS JOIN LATERAL (
            SELECT e.*
            FROM unnest(p_lows, p_highs) r(low, high)
            CROSS JOIN LATERAL (
                SELECT q.id, q.isolated,
                       streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                FROM public.job_queue q
                WHERE q.job_type = t.name
                  AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= greatest(r.low, v_from)
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) < least(r.high, v_to)
                  AND q.id < p_below
                  AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
                  AND q.id <> ALL (p_besides)
                  AND q.user_id <> ALL (p_paused_users)
                  AND (p_only IS NULL OR q.id = p_only)
                  AND (p_alone OR NOT q.isolated OR p_alone IS NOT NULL AND q.updated_at < p_now - interval '1 minute')
                ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                LIMIT v_left
                FOR NO KEY UPDATE OF q SKIP LOCKED) e
            LIMIT v_left) d
        ORDER BY d.rank LIMIT v_left;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        EXIT WHEN v_count = v_left OR cardinality(p_job_types) <= 1;
        v_left := v_left - v_count;
        v_reach := CASE WHEN v_count > 0 THEN v_left ELSE 2 * v_reach END;
        v_from := v_to;
    END LOOP;
END
$$;

CREATE FUNCTION streamvibe.lock_held_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_sizes integer[], OUT since timestamp with time zone[], OUT locked uuid[], OUT processing uuid[], OUT busy uuid[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
DECLARE
    v_missing record;
BEGIN
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens, p_sizes || cardinality(p_job_ids));
    since := ARRAY(
        SELECT h.claimed_at FROM unnest(p_tokens, p_job_ids) WITH ORDINALITY a(token, job_id, n)
        LEFT JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id) ORDER BY a.n);
    SELECT l.* INTO locked, processing FROM streamvibe.lock_jobs(ARRAY(
        SELECT a.job_id FROM unnest(p_job_ids, since) a(job_id, since) WHERE a.since IS NOT NULL)) l;
    busy := '{}';
    IF cardinality(locked) < cardinality(array_remove(since, NULL)) THEN
        SELECT coalesce(array_agg(a.job_id) FILTER (WHERE q.id IS NULL), '{}') AS ids,
               coalesce(array_agg(a.token) FILTER (WHERE q.id IS NULL), '{}') AS tokens,
               coalesce(array_agg(a.job_id) FILTER (WHERE q.id IS NOT NULL), '{}') AS busy INTO v_missing
        FROM unnest(p_tokens, p_job_ids, since) a(token, job_id, since)
        LEFT JOIN LATERAL (SELECT j.id FROM public.job_queue j WHERE j.id = a.job_id OFFSET 0) q ON true
        WHERE a.since IS NOT NULL AND a.job_id NOT IN (SELECT unnest(locked));
        busy := v_missing.busy;
        PERFORM streamvibe.drop_from_claims(p_worker_id, v_missing.tokens, v_missing.ids, '{}');
        since := ARRAY(
            SELECT CASE WHEN a.job_id IN (SELECT unnest(locked)) THEN a.since END
            FROM unnest(p_job_ids, since) WITH ORDINALITY a(job_id, since, n) ORDER BY a.n);
    END IF;
END
$$;

CREATE FUNCTION streamvibe.lock_jobs(p_job_ids uuid[], OUT locked uuid[], OUT processing uuid[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    SELECT coalesce(array_agg(l.id ORDER BY l.id), '{}'),
           coalesce(array_agg(l.id) FILTER (WHERE l.status = 'processing'), '{}') INTO locked, processing
    FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id) ORDER BY 1) r
    CROSS JOIN LATERAL (
        SELECT q.id, q.status FROM public.job_queue q WHERE q.id = r.id FOR NO KEY UPDATE SKIP LOCKED) l;
END
$$;

CREATE FUNCTION streamvibe.lock_soon(p_tables text, p_mode text, p_patience interval, p_try interval DEFAULT '00:00:00.05'::interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_before text := current_setting('lock_timeout');
    v_until timestamptz := clock_timestamp() + p_patience;
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', ceil(extract(epoch FROM p_try) * 1000)::text, true);
            EXECUTE format('LOCK TABLE %s IN %s MODE', p_tables, p_mode);
            PERFORM set_config('lock_timeout', v_before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF clock_timestamp() > v_until THEN
                PERFORM streamvibe.raise_error('55P03', 'p_patience', p_patience::text,
                    'others hold ' || p_tables || ' and did not let go of them in time',
                    'Try again later, or look for who does: SELECT * FROM pg_locks JOIN pg_stat_activity USING (pid).');
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
END
$$;

CREATE FUNCTION streamvibe.look_at_live_jobs(p_user_id uuid, p_job_type text, p_most integer, p_below uuid, OUT jobs bigint, OUT jobs_of_type bigint, OUT last_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET enable_sort TO 'off'
    AS $$
BEGIN
    SELECT count(*), count(*) FILTER (WHERE l.job_type = p_job_type),
           max(l.created_at + l.turn * interval '1 minute') FILTER (
               WHERE l.job_type = p_job_type AND l.status = 'pending' AND l.scheduled_for <= l.created_at)
    INTO jobs, jobs_of_type, last_at
    FROM (SELECT q.job_type, q.status, q.created_at, q.turn, q.scheduled_for
          FROM public.job_queue q
          WHERE q.user_id = p_user_id AND q.status IN ('pending', 'processing') AND q.id < p_below
          ORDER BY q.status
          LIMIT p_most) l;
END
$$;

CREATE FUNCTION streamvibe.low_water(p_job_types text[], p_started timestamp with time zone, OUT seen_us bigint, OUT seen_rank bigint, OUT until_us bigint) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_state text[] := string_to_array(nullif(current_setting('streamvibe.low_water', true), ''), ' ');
    v_started bigint := streamvibe.microseconds(p_started);
BEGIN
    -- Not for longer than a second either when the clock was set back.
    IF v_state[1] = md5(p_job_types::text) AND v_state[2]::bigint - v_started BETWEEN 1 AND 1000000 THEN
        SELECT o.state INTO v_state
        FROM (SELECT v_state AS state UNION ALL
              SELECT string_to_array(c.low_water, ' ') FROM streamvibe.live_claims() c WHERE c.low_water IS NOT NULL) o
        WHERE o.state[1] = v_state[1] AND o.state[2]::bigint - v_started BETWEEN 1 AND 1000000
        ORDER BY o.state[4]::bigint DESC LIMIT 1;
        until_us := v_state[2];
        seen_us := v_state[3];
        seen_rank := v_state[4];
    END IF;
END
$$;

CREATE FUNCTION streamvibe.make_id(p_at timestamp with time zone) RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    AS $$
    SELECT streamvibe.make_id(streamvibe.microseconds(p_at), streamvibe.random_bits())
$$;

CREATE FUNCTION streamvibe.make_id(p_us bigint, p_random bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT (pg_catalog.lpad(pg_catalog.to_hex(
                ((p_us / 1000) << 16) | 28672 | (((p_us % 1000) * 4096 + 999) / 1000)), 16, '0')
            || pg_catalog.to_hex((p_random & 4611686018427387903) | (-9223372036854775807 - 1)))::uuid
$$;

CREATE FUNCTION streamvibe.make_leaf(p_parent text, p_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    EXECUTE format('CREATE TABLE streamvibe.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING GENERATED '
                   'INCLUDING CONSTRAINTS INCLUDING STORAGE)', p_name, p_parent);
    -- Seen from a leaf, these are what an operator meets first: rows churn, so vacuum early and fast.
    EXECUTE format('ALTER TABLE streamvibe.%I SET (autovacuum_vacuum_scale_factor = 0.05, '
                   'autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05, '
                   'autovacuum_vacuum_cost_limit = 1000)', p_name);
    IF p_parent = 'job_queue' THEN
        EXECUTE format('ALTER TABLE streamvibe.%I ALTER COLUMN status SET STATISTICS 1000, '
                       'ALTER COLUMN job_type SET STATISTICS 1000', p_name);
    ELSE
        EXECUTE format('ALTER TABLE streamvibe.%I SET (toast_tuple_target = 8160)', p_name);
    END IF;
    EXECUTE format('ALTER TABLE streamvibe.%I ENABLE ROW LEVEL SECURITY', p_name);
END
$$;

CREATE FUNCTION streamvibe.microseconds(p_at timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT (pg_catalog.date_part('epoch', p_at - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
$$;

CREATE FUNCTION streamvibe.minute_of(p_at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT pg_catalog.date_bin('1 minute', p_at, '2000-01-01 00:00:00+00'::timestamptz) $$;

CREATE FUNCTION streamvibe.next_turn(p_last_at timestamp with time zone, p_now timestamp with time zone) RETURNS integer
    LANGUAGE sql STABLE
    AS $$
    SELECT CASE WHEN p_last_at + interval '1 minute' > p_now
                THEN least(ceil(date_part('epoch', p_last_at - p_now) / 60) + 1, 1000000000)::integer
                ELSE 0 END
$$;

CREATE FUNCTION streamvibe.next_turns(p_user_ids uuid[], p_job_types text[], p_now timestamp with time zone, p_below uuid) RETURNS TABLE(user_id uuid, job_type text, turn integer)
    LANGUAGE sql STABLE
    SET enable_sort TO 'off'
    AS $$
    WITH newest AS MATERIALIZED (
        SELECT streamvibe.id_bound(max(p.lower_at)) AS from_id FROM streamvibe.partition p
        WHERE p.parent_name = 'job_queue' AND p.lower_at <= p_now
    )
    SELECT u.user_id, u.job_type, streamvibe.next_turn(l.last_at, p_now)
    FROM unnest(p_user_ids, p_job_types) u(user_id, job_type)
    LEFT JOIN LATERAL (
        SELECT w.last_at
        FROM (VALUES ((SELECT n.from_id FROM newest n), p_below),
                     ('00000000-0000-0000-0000-000000000000', (SELECT n.from_id FROM newest n))) leaves(from_id, below_id)
        CROSS JOIN LATERAL (
            SELECT max(m.last_at) AS last_at
            FROM (SELECT n.created_at + n.turn * interval '1 minute' AS last_at
                  FROM (SELECT q.created_at, q.turn, q.job_type, q.scheduled_for
                        FROM public.job_queue q
                        WHERE q.user_id = u.user_id AND q.status = 'pending' AND q.id >= leaves.from_id AND q.id < leaves.below_id
                        ORDER BY q.created_at DESC, q.id DESC LIMIT 100) n
                  WHERE n.job_type = u.job_type AND n.scheduled_for <= n.created_at
                  LIMIT 2) m) w
        WHERE w.last_at IS NOT NULL
        LIMIT 1) l ON true
$$;

CREATE FUNCTION streamvibe.not_paused(p_job_types text[]) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT ARRAY(SELECT u.name FROM unnest(p_job_types) u(name)
                 WHERE NOT EXISTS (SELECT FROM streamvibe.pause p
                                   WHERE p.kind = 'all' OR p.kind = 'job_type' AND p.name = u.name))
$$;

CREATE FUNCTION streamvibe.note_low_water(p_low_water record, p_job_types text[], p_started timestamp with time zone, p_now timestamp with time zone, p_rows integer, p_last_rank bigint) RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
    -- Beyond what its rows take: what it walked over in vain.
    v_wasted bigint := streamvibe.microseconds(clock_timestamp()) - streamvibe.microseconds(p_started) - 15 * p_rows;
    v_until bigint := p_low_water.until_us;
BEGIN
    IF p_low_water.seen_rank IS NULL THEN
        -- A large batch behind thousands of dead rows, a small one behind tens of thousands.
        IF v_wasted < (CASE WHEN p_rows >= 100 THEN 1000 ELSE 5000 END) THEN
            RETURN NULL;
        END IF;
        -- So that full looks waste a fiftieth of the time at most.
        v_until := streamvibe.microseconds(p_started) + least(50 * v_wasted, 1000000);
    ELSIF p_last_rank < p_low_water.seen_rank THEN
        -- It got all it wanted from what came since: not one step further.
        RETURN NULL;
    END IF;
    RETURN set_config('streamvibe.low_water',
        concat_ws(' ', md5(p_job_types::text), v_until, streamvibe.microseconds(p_now),
                  p_last_rank),
        false);
END
$$;

CREATE FUNCTION streamvibe.old_partitions() RETURNS SETOF streamvibe.partition
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_sort TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
    SELECT p.*
    FROM streamvibe.partition p
    CROSS JOIN LATERAL (SELECT streamvibe.now() AS now) n
    CROSS JOIN LATERAL (SELECT coalesce(max(t.retention), '7 days') AS of_jobs, coalesce(max(t.log_retention), '30 days') AS of_logs
                        FROM streamvibe.job_type t) longest
    WHERE p.upper_at + interval '1 hour' < n.now
      AND CASE p.parent_name
          WHEN 'job_log' THEN p.upper_at + longest.of_logs < n.now
          -- A type whose retention is long keeps a leaf only when it has jobs in it.
          ELSE p.upper_at + (SELECT coalesce(min(t.retention), '7 days') FROM streamvibe.job_type t) < n.now
               AND NOT EXISTS (
                   SELECT FROM unnest('{completed,failed,cancelled}'::text[]) s(status)
                   CROSS JOIN LATERAL (
                       SELECT FROM public.job_queue q LEFT JOIN streamvibe.job_type t ON t.name = q.job_type
                       WHERE q.status = s.status AND q.status IN ('completed', 'cancelled', 'failed')
                         AND q.completed_at > n.now - greatest(longest.of_jobs, '7 days')
                         AND q.completed_at > n.now - coalesce(t.retention, '7 days')
                         AND q.id >= streamvibe.id_bound(p.lower_at) AND q.id < p.upper_id
                       -- The newest is the likeliest; without an order all of the leaf would be read by its ids.
                       ORDER BY q.completed_at DESC LIMIT 1) f)
          END
    ORDER BY p.parent_name, p.lower_at
$$;

CREATE FUNCTION streamvibe.oldest_due(p_job_types text[]) RETURNS TABLE(job_type text, due_at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_below uuid := streamvibe.id_floor(v_now + interval '1 minute');
    v_held uuid[] := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    v_types text[] := '{}';
    v_due timestamptz[] := '{}';
    v_type text;
    v_rank bigint;
    v_first record;
BEGIN
    FOREACH v_type IN ARRAY p_job_types LOOP
        v_rank := 0;
        LOOP
            SELECT d.* INTO v_first
            FROM (VALUES (v_type, 'pending')) t(name, status)
            CROSS JOIN LATERAL (
                SELECT q.scheduled_for,
                       streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) AS rank
                FROM public.job_queue q
                WHERE q.job_type = t.name
                  AND q.status = t.status AND q.status IN ('pending', 'processing', 'failed')
                  AND streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn) >= v_rank
                  AND q.id < v_below AND q.id NOT IN (SELECT unnest(v_held))
                ORDER BY streamvibe.pickup_rank(q.job_priority, q.scheduled_for, q.created_at, q.turn)
                LIMIT 1) d;
            EXIT WHEN NOT FOUND;
            v_types := v_types || v_type;
            v_due := v_due || v_first.scheduled_for;
            v_rank := ((v_first.rank >> 58) + 1) << 58;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT f.job_type, min(f.scheduled_for)
    FROM (SELECT u.job_type, u.scheduled_for FROM unnest(v_types, v_due) u(job_type, scheduled_for) WHERE u.scheduled_for <= v_now
          UNION ALL
          SELECT o.job_type, o.scheduled_for
          FROM generate_series(0, 9) p(priority)
          CROSS JOIN LATERAL (
              SELECT q.job_type, q.scheduled_for FROM public.job_queue q
              WHERE q.status = 'pending' AND q.job_priority = p.priority AND q.scheduled_for <= v_now
                AND q.id < v_below AND q.id NOT IN (SELECT unnest(v_held))
              ORDER BY q.scheduled_for LIMIT 100) o
          WHERE o.job_type = ANY (p_job_types)) f
    GROUP BY f.job_type;
END
$$;

CREATE FUNCTION streamvibe.open_archive_rows(p_source text, p_day date) RETURNS refcursor
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_batch bigint := substring(p_source FROM '^leaving-([0-9]{1,18})$')::bigint;
    v_from uuid := streamvibe.id_bound(p_day::timestamp AT TIME ZONE 'UTC');
    v_before uuid := streamvibe.id_bound((p_day + 1)::timestamp AT TIME ZONE 'UTC');
    v_leaf streamvibe.partition;
    v_rows refcursor := 'archive_rows';
BEGIN
    PERFORM streamvibe.require_service('open_archive_rows');
    IF v_batch IS NOT NULL THEN
        OPEN v_rows NO SCROLL FOR
        SELECT a.id, a.user_id, a.created_at, a.updated_at, a.scheduled_for, a.expires_at, a.started_at,
               a.completed_at, a.retry_at, a.claim_token, a.job_priority, a.retry_count, a.progress, a.turn,
               a.isolated, a.job_type, a.status, a.worker_id, a.idempotency_key, a.failure_kind, a.error_message,
               a.progress_message, a.params, a.result, a.traceparent
        FROM streamvibe.archivable_job a
        WHERE a.place = 'leaving' AND a.batch = v_batch AND a.row_id >= v_from AND a.row_id < v_before
        ORDER BY a.row_user_id, a.job_type, a.row_id;
        RETURN v_rows;
    END IF;
    v_leaf := streamvibe.sealed_leaf(p_source);
    v_from := greatest(v_from, streamvibe.id_bound(v_leaf.lower_at));
    v_before := least(v_before, v_leaf.upper_id);
    IF v_leaf.parent_name = 'job_queue' THEN
        OPEN v_rows NO SCROLL FOR
        SELECT a.id, a.user_id, a.created_at, a.updated_at, a.scheduled_for, a.expires_at, a.started_at,
               a.completed_at, a.retry_at, a.claim_token, a.job_priority, a.retry_count, a.progress, a.turn,
               a.isolated, a.job_type, a.status, a.worker_id, a.idempotency_key, a.failure_kind, a.error_message,
               a.progress_message, a.params, a.result, a.traceparent
        FROM streamvibe.archivable_job a WHERE a.place = 'queue' AND a.row_id >= v_from AND a.row_id < v_before
        ORDER BY a.row_user_id, a.job_type, a.row_id;
    ELSE
        OPEN v_rows NO SCROLL FOR
        SELECT a.id, a.job_id, a.user_id, a.created_at, a.log_level, a.message, a.metadata
        FROM streamvibe.archivable_line a WHERE a.row_id >= v_from AND a.row_id < v_before
        ORDER BY a.row_user_id, a.job_id, a.row_id;
    END IF;
    RETURN v_rows;
END
$_$;

CREATE FUNCTION streamvibe.open_leaves(p_parent text, p_ids uuid[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    UPDATE streamvibe.partition p SET row_count = NULL
    WHERE p.parent_name = p_parent AND p.row_count IS NOT NULL AND EXISTS (
        SELECT FROM unnest(p_ids) u(id) WHERE u.id >= streamvibe.id_bound(p.lower_at) AND u.id < p.upper_id)
$$;

CREATE FUNCTION streamvibe.own_functions() RETURNS TABLE(function regprocedure, schema_name name, function_name name)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    SELECT p.oid::regprocedure, n.nspname, p.proname
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prokind = 'f'
      AND (n.nspname = 'streamvibe'
           OR n.nspname = 'public' AND p.prosecdef AND 'search_path=pg_catalog, pg_temp' = ANY (p.proconfig)
              AND p.proowner = (SELECT c.relowner FROM pg_class c WHERE c.oid = 'public.job_queue'::regclass)
              AND EXISTS (SELECT FROM streamvibe.schema_migration m
                          WHERE m.kind = 'function' AND substring(m.name FROM '([^/]+)\.sql$') = p.proname))
$_$;

CREATE FUNCTION streamvibe.own_relations() RETURNS TABLE(relation oid, kind "char", name text, of_table oid, table_name text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.oid, c.relkind, coalesce(p.relname, c.relname)::text, coalesce(i.indrelid, c.oid),
           coalesce(tp.relname, t.relname, p.relname, c.relname)::text
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
    LEFT JOIN pg_class p ON p.oid = h.inhparent
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    LEFT JOIN pg_class t ON t.oid = i.indrelid
    LEFT JOIN pg_inherits th ON th.inhrelid = t.oid
    LEFT JOIN pg_class tp ON tp.oid = th.inhparent
    WHERE c.relkind IN ('r', 'i') AND n.nspname = 'streamvibe'
$$;

CREATE FUNCTION streamvibe.page_of_jobs(p_job_ids uuid[]) RETURNS SETOF streamvibe.job
    LANGUAGE sql STABLE
    AS $$
    SELECT j.* FROM unnest(p_job_ids) i(id) CROSS JOIN LATERAL (SELECT j.* FROM streamvibe.job j WHERE j.id = i.id OFFSET 0) j
$$;

CREATE FUNCTION streamvibe.parents_to_analyze() RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT format('ANALYZE public.%I', c.relname) FROM pg_class c
    WHERE c.oid IN ('public.job_queue'::regclass, 'public.job_log'::regclass) AND pg_has_role(c.relowner, 'USAGE')
$$;

CREATE FUNCTION streamvibe.pause_key(p_job_type text, p_user_id uuid, OUT kind text, OUT name text) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF p_job_type IS NOT NULL AND p_user_id IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_user_id', p_user_id::text, 'a type or a user can be paused, not a type of a user',
            'Leave p_job_type or p_user_id out; without both, everything is meant.');
    ELSIF p_job_type IS NOT NULL THEN
        PERFORM streamvibe.known_job_type(p_job_type);
    END IF;
    kind := CASE WHEN p_job_type IS NOT NULL THEN 'job_type' WHEN p_user_id IS NOT NULL THEN 'user' ELSE 'all' END;
    name := coalesce(p_job_type, p_user_id::text, '');
END
$$;

CREATE FUNCTION streamvibe.period_figures(p_from timestamp with time zone, p_to timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN (
        WITH day AS MATERIALIZED (
            SELECT r.content FROM streamvibe.report r
            WHERE r.kind = 'daily' AND r.period_start >= p_from AND r.period_start < p_to
        ), figures AS MATERIALIZED (
            SELECT t.* FROM day d
            CROSS JOIN LATERAL jsonb_to_recordset(d.content -> 'job_types') t(
                job_type text, completed bigint, failed bigint, cancelled bigint, waiting_us bigint, processing_us bigint,
                waiting jsonb, processing jsonb)
        ), counted AS (
            -- A row per type, and one for all of them, whose type is NULL.
            SELECT f.job_type, sum(f.completed) AS completed, sum(f.failed) AS failed, sum(f.cancelled) AS cancelled,
                   sum(f.waiting_us) AS waiting_us, sum(f.processing_us) AS processing_us
            FROM figures f GROUP BY GROUPING SETS ((f.job_type), ())
        ), buckets AS (
            SELECT f.job_type, m.measure, b.key::smallint AS bucket, sum(b.value::bigint) AS jobs
            FROM figures f
            CROSS JOIN LATERAL (VALUES ('wait', f.waiting), ('processing', f.processing)) m(measure, sketch)
            CROSS JOIN LATERAL jsonb_each_text(m.sketch) b
            GROUP BY GROUPING SETS ((f.job_type, m.measure, b.key::smallint), (m.measure, b.key::smallint))
        ), ranked AS (
            SELECT b.job_type, b.measure, b.bucket,
                   sum(b.jobs) OVER (PARTITION BY b.job_type, b.measure ORDER BY b.bucket)
                   / nullif(sum(b.jobs) OVER (PARTITION BY b.job_type, b.measure), 0) AS part
            FROM buckets b
        ), percentiles AS (
            SELECT q.job_type, jsonb_object_agg(q.measure || '_' || q.name || '_seconds', q.seconds) AS of
            FROM (SELECT r.job_type, r.measure, p.name,
                         streamvibe.sketch_seconds(min(r.bucket) FILTER (WHERE r.part >= p.share)) AS seconds
                  FROM ranked r CROSS JOIN (VALUES ('p50', 0.50), ('p95', 0.95), ('p99', 0.99)) p(name, share)
                  GROUP BY r.job_type, r.measure, p.name) q
            GROUP BY q.job_type
        ), summed AS (
            SELECT c.job_type, c.completed, c.failed,
                   jsonb_build_object(
                       'completed', coalesce(c.completed, 0), 'failed', coalesce(c.failed, 0), 'cancelled', coalesce(c.cancelled, 0),
                       'error_rate', c.failed / nullif(c.completed + c.failed, 0),
                       'avg_processing_seconds', c.processing_us / 1e6 / nullif(c.completed, 0),
                       'avg_wait_seconds', c.waiting_us / 1e6 / nullif(c.completed, 0))
                   || coalesce(p.of, '{}') AS of
            FROM counted c LEFT JOIN percentiles p ON p.job_type IS NOT DISTINCT FROM c.job_type
        )
        SELECT jsonb_build_object(
            'days', (SELECT count(*) FROM day),
            'in_part', coalesce((SELECT jsonb_agg(DISTINCT t.name ORDER BY t.name)
                                 FROM day d CROSS JOIN LATERAL jsonb_array_elements_text(d.content -> 'in_part') t(name)), '[]'),
            'jobs', (SELECT s.of FROM summed s WHERE s.job_type IS NULL),
            'job_types', coalesce((
                SELECT jsonb_agg(jsonb_build_object('job_type', s.job_type) || s.of
                                 ORDER BY s.failed DESC, s.completed DESC, s.job_type)
                FROM summed s WHERE s.job_type IS NOT NULL), '[]'),
            'errors', coalesce((
                SELECT jsonb_agg(jsonb_build_object('job_type', e.job_type, 'failure_kind', e.failure_kind, 'jobs', e.jobs)
                                 ORDER BY e.jobs DESC, e.job_type, e.failure_kind)
                FROM (SELECT e.job_type, e.failure_kind, sum(e.jobs) AS jobs
                      FROM day d CROSS JOIN LATERAL jsonb_to_recordset(d.content -> 'errors')
                           e(job_type text, failure_kind text, jobs bigint)
                      GROUP BY e.job_type, e.failure_kind) e), '[]'))
    );
END
$$;

CREATE FUNCTION streamvibe.pgstattuple_function(p_name text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT format('%I.%I', n.nspname, p.proname)
    FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.deptype = 'e'
    JOIN pg_proc p ON p.oid = d.objid AND p.proname = p_name AND p.proargtypes[0] = 'regclass'::regtype
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE e.extname = 'pgstattuple' AND has_function_privilege(p.oid, 'EXECUTE')
$$;

CREATE FUNCTION streamvibe.pickup_order(p_waited integer[], p_odd boolean, p_now timestamp with time zone, p_seen_us bigint, p_seen_rank bigint) RETURNS TABLE(lows bigint[], highs bigint[], halved boolean)
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_priority integer;
    v_from bigint := 0;
    v_base bigint;
    v_all constant bigint := 1::bigint << 62;
    v_now bigint := streamvibe.microseconds(p_now);
BEGIN
    halved := false;
    FOREACH v_priority IN ARRAY p_waited LOOP
        v_base := (9 - v_priority)::bigint << 58;
        lows := ARRAY[v_from];
        highs := ARRAY[v_base];
        IF v_from < v_base THEN
            RETURN NEXT;
        END IF;
        v_from := v_base + (1::bigint << 58);
        FOR v_step IN 1..3 LOOP
            lows := ARRAY[CASE WHEN (v_step = 2) <> p_odd THEN v_base ELSE v_all + v_base END];
            highs := ARRAY[CASE WHEN (v_step = 2) <> p_odd THEN v_from ELSE v_all + v_base + v_now + 1 END];
            halved := v_step = 1;
            RETURN NEXT;
        END LOOP;
    END LOOP;
    IF p_seen_rank IS NULL OR p_waited <> '{}' THEN
        lows := ARRAY[v_from];
        highs := ARRAY[v_all];
    ELSE
        -- What came since: at a higher priority anything not older than that look (and a little, for what was
        -- committed meanwhile), at its own priority what came before the last rank it reached, then all behind that.
        lows := '{}';
        highs := '{}';
        FOR v_rank IN 0..(p_seen_rank >> 58)::integer LOOP
            v_base := v_rank::bigint << 58;
            lows := lows || (v_base + p_seen_us - 100000);
            highs := highs || CASE WHEN v_rank < p_seen_rank >> 58 THEN v_base + (1::bigint << 58)
                                   ELSE least(v_base + v_now + 1, p_seen_rank) END;
        END LOOP;
        lows := lows || p_seen_rank;
        highs := highs || v_all;
    END IF;
    RETURN NEXT;
END
$$;

CREATE FUNCTION streamvibe.pickup_rank(p_priority smallint, p_scheduled_for timestamp with time zone, p_created_at timestamp with time zone, p_turn integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN p_scheduled_for > p_created_at THEN 4611686018427387904 ELSE p_turn::bigint * 60000000 END
           + ((9 - p_priority)::bigint << 58)
           + (pg_catalog.date_part('epoch', greatest(p_scheduled_for, p_created_at) - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
$$;

CREATE FUNCTION streamvibe.place_sums(p_partition_name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_parent_name text;
BEGIN
    PERFORM streamvibe.require_service('place_sums');
    PERFORM streamvibe.require_read_committed('place_sums', 'Use READ COMMITTED.');
    -- Not locked: recount_stats() has its order.
    SELECT p.parent_name INTO v_parent_name FROM streamvibe.partition p WHERE p.partition_name = p_partition_name;
    IF NOT FOUND THEN
        PERFORM streamvibe.leaf_of_name(p_partition_name);
    END IF;
    IF v_parent_name = 'job_queue' AND streamvibe.has_unplaced_sums() THEN
        PERFORM FROM public.recount_stats();
    END IF;
END
$$;

CREATE FUNCTION streamvibe.plan_leaving(p_fence bigint, p_limit integer DEFAULT 100000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_batch bigint;
BEGIN
    PERFORM streamvibe.require_service('plan_leaving');
    PERFORM streamvibe.require_read_committed('plan_leaving', 'Use READ COMMITTED.');
    PERFORM streamvibe.require_archiver(p_fence);
    IF (p_limit BETWEEN 1 AND 1000000) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text, 'p_limit is out of range', 'Use 1 to 1000000.');
    END IF;
    v_batch := (SELECT min(l.batch) FROM streamvibe.leaving_job l WHERE l.batch IS NOT NULL);
    IF v_batch IS NOT NULL THEN
        RETURN v_batch;
    END IF;
    v_batch := (SELECT a.last_batch + 1 FROM streamvibe.archiver a);
    UPDATE streamvibe.leaving_job l SET batch = v_batch
    WHERE l.id = ANY (ARRAY(SELECT w.id FROM streamvibe.leaving_job w ORDER BY w.id LIMIT p_limit FOR UPDATE SKIP LOCKED));
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE streamvibe.archiver a SET last_batch = v_batch;
    RETURN v_batch;
END
$$;

CREATE FUNCTION streamvibe.put_back(p_job_ids uuid[], p_isolated boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
DECLARE
    v_now timestamptz := streamvibe.now();
    v_ids uuid[];
BEGIN
    v_ids := ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id)
                   CROSS JOIN LATERAL (SELECT j.* FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
                   WHERE q.status = 'processing'
                      OR q.status = 'pending' AND (p_isolated AND NOT q.isolated OR q.expires_at <= v_now)
                   ORDER BY u.id);
    PERFORM streamvibe.count_jobs(-1, v_ids);
    UPDATE public.job_queue q
    SET status = 'pending', started_at = NULL, worker_id = NULL, claim_token = NULL, progress = NULL,
        progress_message = NULL, isolated = q.isolated OR p_isolated, updated_at = v_now,
        -- Somebody did start it in time; what ended that was no fault of its own.
        expires_at = CASE WHEN q.expires_at < v_now + t.expires_after THEN v_now + t.expires_after
                          ELSE q.expires_at END
    FROM streamvibe.job_type t
    WHERE q.id = ANY (v_ids) AND q.id BETWEEN v_ids[1] AND v_ids[cardinality(v_ids)] AND t.name = q.job_type;
    PERFORM streamvibe.count_jobs(1, v_ids);
    PERFORM streamvibe.wake_workers(d.job_type)
    FROM (SELECT DISTINCT q.job_type FROM unnest(p_job_ids) u(id)
          CROSS JOIN LATERAL (SELECT j.job_type, j.status FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
          WHERE q.status = 'pending') d;
END
$$;

CREATE FUNCTION streamvibe.raise_error(p_code text, p_field text, p_received text, p_message text, p_fix text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = p_code,
        MESSAGE = p_message,
        DETAIL = 'Received: ' || coalesce(left(p_received, 200), 'NULL'),
        HINT = p_fix,
        COLUMN = p_field;
END
$$;

CREATE FUNCTION streamvibe.random_bits() RETURNS bigint
    LANGUAGE sql PARALLEL SAFE
    AS $$SELECT pg_catalog.uuid_hash_extended(pg_catalog.gen_random_uuid(), 0)$$;

CREATE FUNCTION streamvibe.read_cursor(p_cursor text, p_filter text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_id uuid;
BEGIN
    IF p_cursor IS NULL THEN
        RETURN NULL;
    END IF;
    IF p_cursor ~ '^v1[A-Za-z0-9_-]{28}$' THEN
        v_id := encode(substring(decode(translate(substr(p_cursor, 3), '-_', '+/'), 'base64') FROM 1 FOR 16),
                       'hex')::uuid;
        IF streamvibe.cursor_of(v_id, p_filter) = p_cursor THEN
            RETURN v_id;
        END IF;
    END IF;
    PERFORM streamvibe.raise_error('SV014', 'p_cursor', p_cursor,
        'p_cursor is broken, or was made for another list',
        'Pass next_cursor of the page before, unchanged and with the same filters, or NULL for the first page.');
    RETURN NULL;
END
$_$;

CREATE FUNCTION streamvibe.readable_traceparent(p_traceparent text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
    SELECT CASE WHEN length(p_traceparent) < 1000 THEN substring(p_traceparent FROM
        '^(?:(?=00-.{52}$)|(?!00|ff))([0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?$') END
$_$;

CREATE FUNCTION streamvibe.refuse_copy() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_url text;
BEGIN
    SELECT coalesce(s.archive_url, 'off') INTO v_url FROM streamvibe.setting s WHERE s.archive_owner <> streamvibe.this_database();
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV017', 'archive', v_url,
            'this database is a copy of the one whose archive that is, or was moved',
            'Beside the other database: streamvibe archive set --copy, with a place of its own, or off. '
            'Instead of it, when nothing runs there any more: streamvibe archive set --moved, with the same place.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.refuse_held_claim() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF EXISTS (SELECT FROM streamvibe.claim c WHERE c.token = new.token AND c.held) THEN
        PERFORM streamvibe.raise_error('SV001', 'connection', 'COMMIT or SET CONSTRAINTS ALL IMMEDIATE',
            'the transaction of a claim ends with its jobs, not before',
            'Return, and the worker commits; raise, and it rolls back; name constraints that are to be checked now.');
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION streamvibe.refuse_unreadable_job(p_jobs jsonb) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_ordinal integer;
    v_job jsonb;
    v_field text;
BEGIN
    FOR v_job, v_ordinal IN SELECT e.value, e.ordinality FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e LOOP
        IF jsonb_typeof(v_job) <> 'object' THEN
            PERFORM streamvibe.raise_error('SV001', 'p_jobs[' || v_ordinal || ']', left(v_job::text, 200),
                'the element is not an object', 'Pass objects with user_id, job_type and params.');
        END IF;
        BEGIN
            v_field := 'user_id';
            PERFORM (v_job ->> 'user_id')::uuid;
            v_field := 'priority';
            PERFORM (v_job ->> 'priority')::integer;
            v_field := 'scheduled_for';
            PERFORM (v_job ->> 'scheduled_for')::timestamptz;
        EXCEPTION WHEN data_exception THEN
            PERFORM streamvibe.raise_error('SV001', 'p_jobs[' || v_ordinal || '].' || v_field,
                v_job ->> v_field, v_field || ' cannot be read',
                'Use a UUID for user_id, 0 to 9 for priority, an ISO 8601 time for scheduled_for.');
        END;
        SELECT k.key INTO v_field FROM jsonb_object_keys(v_job) k(key)
        WHERE k.key NOT IN ('user_id', 'job_type', 'params', 'priority', 'scheduled_for') LIMIT 1;
        IF FOUND THEN
            PERFORM streamvibe.raise_error('SV001', 'p_jobs[' || v_ordinal || '].' || v_field,
                left((v_job -> v_field)::text, 200), 'the field is unknown',
                'Use user_id, job_type, params, priority and scheduled_for.');
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION streamvibe.register_duties(p_fence bigint, p_names text[], p_schedules text[]) RETURNS TABLE(name text, schedule text, enabled boolean, last_started_at timestamp with time zone, now timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
#variable_conflict use_column
DECLARE
    v_leader streamvibe.leader;
BEGIN
    PERFORM streamvibe.require_service('register_duties');
    v_leader := streamvibe.require_leader(p_fence);
    -- Rows that are right are not touched: an operator may have one of them in an open transaction.
    INSERT INTO streamvibe.duty (name, usual_schedule)
    SELECT u.name, u.schedule FROM unnest(p_names, p_schedules) u(name, schedule)
    WHERE NOT EXISTS (SELECT FROM streamvibe.duty d WHERE d.name = u.name)
    ON CONFLICT DO NOTHING;
    UPDATE streamvibe.duty d SET usual_schedule = u.schedule
    FROM unnest(p_names, p_schedules) u(name, schedule)
    WHERE d.name = u.name AND d.usual_schedule <> u.schedule;
    -- Whoever led before may have died in the middle of one.
    UPDATE streamvibe.duty d SET running_since = NULL WHERE d.running_since < v_leader.led_since;
    RETURN QUERY
    SELECT d.name, coalesce(d.schedule, d.usual_schedule), d.enabled, d.last_started_at, streamvibe.now()
    FROM streamvibe.duty d WHERE d.name = ANY (p_names) ORDER BY d.name;
END
$$;

CREATE FUNCTION streamvibe.reject_archive_file(p_fence bigint, p_file_id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('reject_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    UPDATE streamvibe.archive_file f SET state = 'obsolete' WHERE f.id = p_file_id AND f.state = 'writing';
END
$$;

CREATE FUNCTION streamvibe.remember_key(p_user_id uuid, p_idempotency_key text, p_job_id uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF p_idempotency_key IS NOT NULL THEN
        INSERT INTO streamvibe.idempotency (user_id, idempotency_key, job_id)
        VALUES (p_user_id, p_idempotency_key, p_job_id)
        ON CONFLICT (user_id, idempotency_key) DO UPDATE SET job_id = excluded.job_id
        WHERE idempotency.job_id <> excluded.job_id;
    END IF;
END
$$;

CREATE FUNCTION streamvibe.remove_jobs(p_job_ids uuid[], p_ended boolean) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    -- (min(uuid) came with PostgreSQL 18.)
    v_first uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id LIMIT 1);
    v_last uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id DESC LIMIT 1);
    v_count integer;
BEGIN
    WITH gone AS MATERIALIZED (
        DELETE FROM public.job_queue q
        WHERE q.id = ANY (p_job_ids) AND q.id BETWEEN v_first AND v_last AND coalesce(q.status, '') <> ''
          AND (NOT p_ended OR coalesce(q.status, '') IN ('completed', 'failed', 'cancelled') AND q.retry_at IS NULL)
        RETURNING q.tableoid AS leaf, q.job_type, q.status, q.created_at, q.scheduled_for, q.started_at, q.completed_at
    ), notes AS MATERIALIZED (
        -- As count_jobs(-1, ...), which would look all of them up again.
        SELECT g.leaf, g.job_type, g.status, streamvibe.minute_of(coalesce(g.completed_at, g.created_at)) AS minute, -count(*) AS jobs,
               -sum(streamvibe.duration_us(g.scheduled_for, g.started_at)) FILTER (WHERE g.status = 'completed') AS waiting_us,
               -sum(streamvibe.duration_us(g.started_at, g.completed_at)) FILTER (WHERE g.status = 'completed') AS processing_us,
               array_agg(streamvibe.sketch_bucket(g.scheduled_for, g.started_at)) FILTER (WHERE g.status = 'completed') AS waited,
               array_agg(streamvibe.sketch_bucket(g.started_at, g.completed_at)) FILTER (WHERE g.status = 'completed') AS processed
        FROM gone g
        GROUP BY g.leaf, g.job_type, g.status, streamvibe.minute_of(coalesce(g.completed_at, g.created_at))
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
               n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed
        FROM notes n
    ), counted AS (
        INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
        SELECT 'removed', g.job_type, '', count(*) FROM gone g GROUP BY g.job_type
    )
    SELECT count(*) INTO v_count FROM gone;
    RETURN v_count;
END
$$;

CREATE FUNCTION streamvibe.remove_jobs_soon(p_job_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10ms'
    AS $$
BEGIN
    RETURN streamvibe.remove_jobs(p_job_ids, true);
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;

CREATE FUNCTION streamvibe.replace_archive_file(p_fence bigint, p_file_id bigint, p_by bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('replace_archive_file');
    PERFORM streamvibe.require_archiver(p_fence);
    UPDATE streamvibe.archive_file f SET state = 'obsolete' WHERE f.id = p_file_id AND f.state = 'complete';
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_file_id', p_file_id::text, 'there is no such file of the archive',
            'See which there are: SELECT * FROM get_archive_files().');
    END IF;
    IF p_by IS NOT NULL THEN
        UPDATE streamvibe.archive_file f SET state = 'complete', replaces = NULL
        WHERE f.id = p_by AND f.replaces = p_file_id AND f.state = 'writing' AND f.verified_at IS NOT NULL AND f.deleted_at IS NULL;
        IF NOT FOUND THEN
            PERFORM streamvibe.raise_error('SV001', 'p_by', p_by::text, 'no such file was verified to replace it',
                'Begin one with p_replaces, write it, read it back, and end it.');
        END IF;
    END IF;
END
$$;

CREATE FUNCTION streamvibe.report_content(p_from timestamp with time zone, p_to timestamp with time zone, p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_now CONSTANT timestamptz := streamvibe.now();
    v_figures jsonb := streamvibe.period_figures(p_from, p_to);
    v_of record;
BEGIN
    -- Each of the lists with its line of the report before, where there was one.
    FOR v_of IN SELECT * FROM (VALUES ('job_types', '{job_type}'::text[]), ('errors', '{job_type,failure_kind}')) l(name, keys) LOOP
        v_figures := jsonb_set(v_figures, ARRAY[v_of.name], streamvibe.beside_before(
            v_figures -> v_of.name, p_before -> v_of.name, v_of.keys));
    END LOOP;
    RETURN v_figures || jsonb_build_object(
        'jobs', (v_figures -> 'jobs') || jsonb_build_object('before', (p_before -> 'jobs') - 'before'),
        'queue', (SELECT jsonb_build_object('pending', s.pending_jobs, 'processing', s.processing_jobs, 'jobs', s.total_jobs)
                  FROM public.get_job_queue_stats() s),
        'alerts', coalesce((SELECT jsonb_agg(to_jsonb(a)) FROM public.get_job_queue_alerts() a), '[]'),
        'tables', streamvibe.beside_before(streamvibe.report_tables(), p_before -> 'tables', '{table_name}'),
        'indexes', streamvibe.report_indexes(p_before -> 'indexes'),
        'statements', streamvibe.report_statements(p_before -> 'statements'),
        'partitions', (
            SELECT jsonb_agg(to_jsonb(p) ORDER BY p.parent_name)
            FROM (SELECT l.parent_name, count(*) AS leaves, min(l.lower_at) AS oldest_from, max(l.upper_at) AS ahead_until,
                         count(*) FILTER (WHERE l.sealed_at IS NOT NULL) AS sealed
                  FROM streamvibe.partition l GROUP BY l.parent_name) p),
        'duties', coalesce((
            SELECT jsonb_agg(to_jsonb(d) ORDER BY d.failures DESC, d.duty)
            FROM (SELECT r.duty, count(*) AS failures, (array_agg(r.error ORDER BY r.id DESC))[1] AS last_error
                  FROM streamvibe.duty_run r
                  WHERE r.error IS NOT NULL AND r.started_at >= p_from AND r.started_at < p_to
                  GROUP BY r.duty) d), '[]'),
        'growth', streamvibe.report_growth(v_now, p_before -> 'growth'));
END
$$;

CREATE FUNCTION streamvibe.report_growth(p_now timestamp with time zone, p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_days double precision := extract(epoch FROM p_now - (p_before ->> 'at')::timestamptz) / 86400;
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'at', p_now, 'database_bytes', n.database_bytes, 'queue_bytes', n.queue_bytes, 'jobs', n.jobs,
            'database_bytes_per_day', g.database_bytes, 'jobs_per_day', g.jobs,
            'days_until_10m_jobs', CASE WHEN n.jobs >= 10000000 THEN 0 WHEN g.jobs > 0 THEN ceil((10000000 - n.jobs) / g.jobs) END,
            'before', p_before - 'before')
        FROM (SELECT pg_database_size(current_database()) AS database_bytes,
                     (SELECT sum(h.size_bytes + h.index_bytes)::bigint FROM public.get_table_health() h) AS queue_bytes,
                     (SELECT s.total_jobs FROM public.get_job_queue_stats() s) AS jobs) n
        CROSS JOIN LATERAL (
            SELECT (n.database_bytes - (p_before ->> 'database_bytes')::bigint) / nullif(v_days, 0) AS database_bytes,
                   (n.jobs - (p_before ->> 'jobs')::bigint) / nullif(v_days, 0) AS jobs) g
    );
END
$$;

CREATE FUNCTION streamvibe.report_indexes(p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN (
        WITH listed AS (
            SELECT u.index_name, u.table_name, u.size_bytes, u.scans AS scans_total, u.since, u.verdict,
                   b.bloat_bytes, b.method AS bloat_method, o.size_bytes AS size_bytes_before,
                   -- A dropped leaf takes its scans with it.
                   CASE WHEN o.since IS NOT DISTINCT FROM u.since AND u.scans >= o.scans_total THEN u.scans - o.scans_total END AS scans,
                   CASE WHEN b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > u.size_bytes / 2
                        THEN 'REINDEX INDEX CONCURRENTLY ' || b.worst_index END AS advice
            FROM public.get_index_usage() u
            LEFT JOIN public.get_index_bloat() b USING (index_name, table_name)
            LEFT JOIN jsonb_to_recordset(p_before) o(index_name text, table_name text, size_bytes bigint, scans_total bigint,
                                                     since timestamptz) USING (index_name, table_name)
        )
        SELECT jsonb_agg(to_jsonb(l) ORDER BY l.verdict <> 'invalid', l.advice IS NULL, l.verdict NOT IN ('unused'),
                         l.bloat_bytes DESC NULLS LAST, l.size_bytes DESC, l.index_name)
        FROM listed l
    );
END
$$;

CREATE FUNCTION streamvibe.report_statements(p_before jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN (
        WITH found AS MATERIALIZED (
            SELECT * FROM public.get_slow_statements(100)
        ), listed AS (
            SELECT f.statement, f.query_id::text AS query_id, f.max_seconds, f.blocks_per_call, f.calls AS calls_total,
                   f.total_seconds AS total_seconds_total, f.since, o.calls_total IS NULL AS is_total,
                   f.calls - coalesce(o.calls_total, 0) AS calls,
                   f.total_seconds - coalesce(o.total_seconds_total, 0) AS total_seconds,
                   (f.total_seconds - coalesce(o.total_seconds_total, 0)) / nullif(f.calls - coalesce(o.calls_total, 0), 0) AS mean_seconds
            FROM found f
            LEFT JOIN jsonb_to_recordset(p_before -> 'items') o(query_id text, calls_total bigint, total_seconds_total double precision,
                                                                since timestamptz)
                -- A statement that was forgotten meanwhile began again.
                ON o.query_id = f.query_id::text AND o.since = f.since AND o.calls_total <= f.calls
                   AND o.total_seconds_total <= f.total_seconds
            WHERE f.problem IS NULL
        )
        SELECT jsonb_build_object(
            'problem', (SELECT f.problem FROM found f WHERE f.problem IS NOT NULL),
            'fix', (SELECT f.fix FROM found f WHERE f.problem IS NOT NULL),
            'items', coalesce((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.total_seconds DESC, l.query_id)
                               FROM listed l WHERE l.calls > 0), '[]'))
    );
END
$$;

CREATE FUNCTION streamvibe.report_tables() RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object(
                   'table_name', h.table_name, 'live_rows', h.live_rows, 'dead_rows', h.dead_rows,
                   'size_bytes', h.size_bytes, 'index_bytes', h.index_bytes, 'last_vacuum', h.last_vacuum,
                   'last_analyze', h.last_analyze, 'verdict', h.verdict,
                   'advice', CASE h.verdict
                       WHEN 'bloated' THEN
                           'Dead rows gather faster than autovacuum removes them: streamvibe doctor names what holds them back. '
                           'When nothing does: ALTER TABLE ' || h.worst_table || ' SET (autovacuum_vacuum_cost_delay = 0). '
                           'Space already lost comes back with VACUUM FULL ' || h.worst_table || ', which locks everybody out of it.'
                       WHEN 'not analyzed' THEN 'ANALYZE ' || h.worst_table
                       WHEN 'wraparound' THEN 'VACUUM (FREEZE) ' || h.worst_table || '; autovacuum does not get to it'
                   END) ORDER BY h.verdict = 'ok', h.size_bytes + h.index_bytes DESC, h.table_name)
        FROM public.get_table_health() h
    );
END
$$;

CREATE FUNCTION streamvibe.report_unit(p_kind text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_unit text := CASE p_kind WHEN 'daily' THEN 'day' WHEN 'weekly' THEN 'week' WHEN 'monthly' THEN 'month' END;
BEGIN
    IF v_unit IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_kind', p_kind, 'p_kind is no kind of report', 'Use daily, weekly or monthly.');
    END IF;
    RETURN v_unit;
END
$$;

CREATE FUNCTION streamvibe.require_archiver(p_fence bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM FROM streamvibe.archiver a
    WHERE a.fence = p_fence AND a.holder IS NOT NULL AND a.expires_at >= streamvibe.now() FOR SHARE;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV016', 'p_fence', p_fence::text, 'another process writes to the archive now',
            'Wait until it is done: streamvibe archive status says which.');
    END IF;
END
$$;

CREATE TABLE streamvibe.leader (
    only_row boolean DEFAULT true NOT NULL,
    leader_id text,
    fence bigint DEFAULT 0 NOT NULL,
    led_since timestamp with time zone,
    expires_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT leader_only_row_check CHECK (only_row)
)
WITH (fillfactor='50');

CREATE FUNCTION streamvibe.require_leader(p_fence bigint) RETURNS streamvibe.leader
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leader streamvibe.leader;
BEGIN
    SELECT l.* INTO v_leader FROM streamvibe.leader l;
    IF (v_leader.fence = p_fence AND v_leader.leader_id IS NOT NULL AND v_leader.expires_at >= streamvibe.now()) IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV016', 'p_fence', p_fence::text, 'another process does the maintenance now',
            'Lead again before you begin another duty: SELECT streamvibe.lead_maintenance(''name'').');
    END IF;
    RETURN v_leader;
END
$$;

CREATE FUNCTION streamvibe.require_partition(p_parent text, p_at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leaf_number bigint := (SELECT p.leaf_number FROM streamvibe.partition p
                             WHERE p.parent_name = p_parent AND p.lower_at <= p_at AND p.upper_at > p_at);
BEGIN
    IF v_leaf_number IS NULL THEN
        PERFORM streamvibe.raise_error('SV009', p_parent, p_at::text,
            p_parent || ' has no partition for this time',
            'Run SELECT * FROM ensure_partitions() in a transaction of its own, then try again.');
    END IF;
    RETURN v_leaf_number;
END
$$;

CREATE FUNCTION streamvibe.require_read_committed(p_what text, p_fix text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        PERFORM streamvibe.raise_error('SV006', 'transaction_isolation',
            current_setting('transaction_isolation'),
            p_what || ' cannot be exact inside this transaction', p_fix);
    END IF;
END
$$;

CREATE FUNCTION streamvibe.require_service(p_function text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF NOT streamvibe.is_service() THEN
        PERFORM streamvibe.raise_error('SV004', 'role',
            CASE WHEN current_setting('role') = 'none' THEN session_user ELSE current_setting('role') END,
            p_function || ' is for the service only',
            'Call it as service_role (SET ROLE service_role) or as the owner of job_queue.');
    END IF;
END
$$;

CREATE FUNCTION streamvibe.resign_archive(p_fence bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('resign_archive');
    UPDATE streamvibe.archiver a SET holder = NULL, expires_at = '-infinity' WHERE a.fence = p_fence;
END
$$;

CREATE FUNCTION streamvibe.resign_maintenance(p_leader_id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
BEGIN
    PERFORM streamvibe.require_service('resign_maintenance');
    UPDATE streamvibe.leader SET leader_id = NULL, expires_at = '-infinity' WHERE leader_id = p_leader_id;
END
$$;

CREATE FUNCTION streamvibe.retry_job(p_user_id uuid, p_job_id uuid) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_max_live integer := streamvibe.lock_account(p_user_id);
    v_now timestamptz := streamvibe.now();
    v_job public.job_queue;
    v_type streamvibe.job_type;
BEGIN
    SELECT q.* INTO v_job FROM public.job_queue q
    -- IS TRUE: see policies/plans.sql.
    WHERE q.id = p_job_id AND (q.user_id = p_user_id) IS TRUE FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN 'not_found'; END IF;
    IF v_job.status <> 'failed' THEN RETURN 'not_failed'; END IF;
    v_type := streamvibe.known_job_type(v_job.job_type);
    IF v_job.retry_count >= v_type.max_attempts THEN RETURN 'attempts_exhausted'; END IF;
    IF v_job.retry_at IS NULL THEN RETURN 'not_retryable'; END IF;
    IF streamvibe.find_same_work(p_user_id, v_job.job_type, v_job.params, 'infinity', '-infinity',
                                 'infinity', 'ffffffff-ffff-ffff-ffff-ffffffffffff') IS NOT NULL THEN
        RETURN 'has_twin';
    END IF;
    IF NOT streamvibe.has_room(p_user_id, v_job.job_type, v_max_live, v_type.max_live_jobs) THEN
        RETURN 'at_limit';
    END IF;
    PERFORM streamvibe.count_jobs(-1, ARRAY[p_job_id]);
    UPDATE public.job_queue q
    SET status = 'pending', scheduled_for = v_now, expires_at = v_now + v_type.expires_after,
        completed_at = NULL, retry_at = NULL, started_at = NULL, worker_id = NULL, claim_token = NULL,
        progress = NULL, progress_message = NULL, updated_at = v_now
    WHERE q.id = p_job_id;
    PERFORM streamvibe.count_jobs(1, ARRAY[p_job_id]);
    PERFORM streamvibe.wake_workers(v_job.job_type);
    RETURN 'retried';
END
$$;

CREATE FUNCTION streamvibe.seal_partition(p_partition_name text, p_patience interval DEFAULT '00:00:10'::interval) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leaf streamvibe.partition;
BEGIN
    PERFORM streamvibe.require_service('seal_partition');
    PERFORM streamvibe.require_read_committed('seal_partition', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_patience(p_patience);
    v_leaf := streamvibe.leaf_of_name(p_partition_name);
    IF v_leaf.sealed_at IS NOT NULL THEN
        RETURN true;
    ELSIF v_leaf.upper_at + interval '1 hour' > streamvibe.now() THEN
        -- An hour allows for clocks that differ.
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'its time is not over',
            'Wait until an hour after ' || v_leaf.upper_at || '.');
    ELSIF v_leaf.parent_name = 'job_queue'
          AND streamvibe.has_open_jobs(streamvibe.id_bound(v_leaf.lower_at), v_leaf.upper_id) THEN
        RETURN false;
    END IF;
    PERFORM streamvibe.lock_soon(format('ONLY streamvibe.%I', p_partition_name), 'SHARE', p_patience);
    -- Only now is everything committed that was written before.
    IF v_leaf.parent_name = 'job_queue'
       AND streamvibe.has_open_jobs(streamvibe.id_bound(v_leaf.lower_at), v_leaf.upper_id) THEN
        RETURN false;
    END IF;
    UPDATE streamvibe.partition p SET sealed_at = streamvibe.now() WHERE p.partition_name = p_partition_name;
    RETURN true;
END
$$;

CREATE FUNCTION streamvibe.sealed_leaf(p_partition_name text) RETURNS streamvibe.partition
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_leaf streamvibe.partition;
BEGIN
    SELECT p.* INTO v_leaf FROM streamvibe.partition p WHERE p.partition_name = p_partition_name;
    IF NOT FOUND THEN
        PERFORM streamvibe.raise_error('SV009', 'p_source', p_partition_name, 'there is no such partition',
            'See which there are: SELECT partition_name FROM streamvibe.partition.');
    ELSIF v_leaf.sealed_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_source', p_partition_name, 'it is not sealed',
            format('SELECT streamvibe.seal_partition(%L), and commit.', p_partition_name));
    END IF;
    RETURN v_leaf;
END
$$;

CREATE FUNCTION streamvibe.sketch_bucket(p_from timestamp with time zone, p_to timestamp with time zone) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN p_to > p_from THEN
        pg_catalog.ceil(pg_catalog.ln(greatest(pg_catalog.date_part('epoch', p_to - p_from), 0.000001::double precision))
                        / 0.020000666706669543::double precision)::smallint
    WHEN p_to <= p_from THEN -690 END::smallint
$$;

CREATE FUNCTION streamvibe.sketch_groups(p_job_type text) RETURNS TABLE(measure text, bucket_group integer, jobs bigint)
    LANGUAGE sql STABLE ROWS 100
    AS $$
    SELECT s.measure, s.bucket::integer, s.jobs FROM streamvibe.stat_sketch s
    WHERE s.minutes = -2 AND s.since = 'epoch' AND s.job_type = p_job_type
    UNION ALL
    SELECT l.measure, l.bucket >> 4, -l.jobs
    FROM streamvibe.dropped_leaf g
    CROSS JOIN LATERAL (
        SELECT s.measure, s.bucket, s.jobs FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.leaf_number = g.leaf_number OFFSET 0) l
$$;

CREATE FUNCTION streamvibe.sketch_seconds(p_bucket smallint) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT pg_catalog.exp(p_bucket * 0.020000666706669543::double precision) * 0.99::double precision $$;

CREATE FUNCTION streamvibe.sketch_total(p_job_type text, p_measure text, p_group integer) RETURNS TABLE(bucket smallint, jobs bigint)
    LANGUAGE sql STABLE ROWS 16
    AS $$
    SELECT s.bucket, s.jobs FROM streamvibe.stat_sketch s
    WHERE s.minutes = 0 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.measure = p_measure
      AND s.bucket >= p_group << 4 AND s.bucket < (p_group + 1) << 4
    UNION ALL
    SELECT l.bucket, -l.jobs
    FROM streamvibe.dropped_leaf g
    CROSS JOIN LATERAL (
        SELECT s.bucket, s.jobs FROM streamvibe.stat_sketch s
        WHERE s.minutes = -1 AND s.since = 'epoch' AND s.job_type = p_job_type AND s.measure = p_measure
          AND s.bucket >= p_group << 4 AND s.bucket < (p_group + 1) << 4 AND s.leaf_number = g.leaf_number OFFSET 0) l
$$;

CREATE FUNCTION streamvibe.stat_since(p_since timestamp with time zone) RETURNS TABLE(job_type text, status text, jobs bigint, waiting_us bigint, processing_us bigint)
    LANGUAGE sql STABLE ROWS 100
    AS $$
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE p_since IS NULL AND s.minutes = 0
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 1440 AND s.since >= p_since
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 60 AND s.since >= p_since
      AND s.since < date_bin('1 day', p_since + interval '23:59', '2000-01-01 00:00:00+00'::timestamptz)
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 10 AND s.since >= p_since
      AND s.since < date_bin('1 hour', p_since + interval '59 minutes', '2000-01-01 00:00:00+00'::timestamptz)
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 1 AND s.since >= p_since
      AND s.since < date_bin('10 minutes', p_since + interval '9 minutes', '2000-01-01 00:00:00+00'::timestamptz)
$$;

CREATE FUNCTION streamvibe.statuses_now(p_job_ids uuid[], p_busy uuid[]) RETURNS TABLE(job_id uuid, status text)
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT u.id, CASE WHEN u.id IN (SELECT unnest(p_busy)) THEN 'busy' ELSE q.status END
    FROM unnest(p_job_ids) u(id)
    LEFT JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q ON true
$$;

CREATE FUNCTION streamvibe.stored_statuses(p_status text) RETURNS text[]
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT CASE WHEN p_status IS NULL THEN '{pending,processing,completed,failed,cancelled}'
                WHEN p_status = 'processing' THEN '{pending,processing}'
                ELSE ARRAY[p_status] END
$$;

CREATE FUNCTION streamvibe.tables_to_pack() RETURNS TABLE(name text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    v_tables text := streamvibe.pgstattuple_function('pgstattuple');
    v_indexes text := streamvibe.pgstattuple_function('pgstatindex');
BEGIN
    IF v_tables IS NULL OR v_indexes IS NULL THEN
        RETURN;
    END IF;
    -- A row takes a line pointer of 4 bytes, and is filled up to a multiple of 8; a page has 24 of its own.
    RETURN QUERY EXECUTE format($query$
        SELECT c.relname::text
        FROM (SELECT t.oid, t.relname, t.reloptions FROM pg_class t
              WHERE t.relnamespace = 'streamvibe'::regnamespace AND t.relkind = 'r' AND NOT t.relispartition
                AND pg_relation_size(t.oid) <= 32 * 1024 * 1024
                AND (pg_relation_size(t.oid) < 128 * 1024 OR t.relname IN ('stat', 'stat_sketch', 'archive_file')) OFFSET 0) c
        CROSS JOIN LATERAL (SELECT 8168 * coalesce((SELECT o.option_value::integer FROM pg_options_to_table(c.reloptions) o
                                                    WHERE o.option_name = 'fillfactor'), 100) / 100 AS bytes) page
        CROSS JOIN LATERAL (
            SELECT t.table_len, (t.tuple_len + 8 * t.tuple_count) * 8192.0 / page.bytes AS needed,
                   -- As many whole rows as fit, of few pages; a page where there is none.
                   8192 * greatest(ceil(t.tuple_count::numeric
                                        / greatest(floor(page.bytes / (t.tuple_len::numeric / nullif(t.tuple_count, 0) + 11)), 1)), 1) AS whole
            FROM %s(c.oid::regclass) t) t
        WHERE CASE WHEN t.table_len >= 128 * 1024 THEN t.table_len - t.needed > t.table_len / 6
              ELSE t.table_len > 1.25 * coalesce(t.whole, 8192)
                   OR EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                              JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
                              CROSS JOIN LATERAL %s(x.oid::regclass) s
                              WHERE i.indrelid = c.oid AND i.indisvalid AND pg_relation_size(x.oid)
                                    > 1.25 * 8192 * streamvibe.index_pages(s.leaf_pages, s.avg_leaf_density, s.internal_pages))
              END
    $query$, v_tables, v_indexes);
END
$_$;

CREATE FUNCTION streamvibe.tables_to_vacuum() RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF NOT (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = 'public.job_queue'::regclass) THEN
        RETURN;
    END IF;
    -- INDEX_CLEANUP: else indexes are left alone where dead rows are on fewer than two of a hundred pages.
    RETURN QUERY
    SELECT format('VACUUM (INDEX_CLEANUP ON, SKIP_LOCKED) streamvibe.%I', s.relname)
    FROM pg_stat_all_tables s
    WHERE s.schemaname = 'streamvibe' AND s.n_dead_tup > 0 AND pg_relation_size(s.relid) <= 32 * 1024 * 1024
      AND NOT EXISTS (SELECT FROM streamvibe.partition p WHERE p.partition_name = s.relname AND p.sealed_at IS NOT NULL)
    ORDER BY s.relname;
END
$$;

CREATE FUNCTION streamvibe.this_database() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.system_identifier || '/' || d.oid
    FROM pg_control_system() c CROSS JOIN pg_database d WHERE d.datname = current_database()
$$;

CREATE FUNCTION streamvibe.total_of_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_from timestamp with time zone, p_end timestamp with time zone, OUT total bigint, OUT age interval) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_most CONSTANT bigint := 10000;
    v_list text;
    v_known jsonb;
    v_now double precision;
BEGIN
    IF p_status IN ('completed', 'failed', 'cancelled') AND p_job_type IS NULL AND p_from IS NULL AND p_end IS NULL THEN
        -- What is asked for most: one range of the index, and nothing that a worker may hold.
        SELECT count(*) INTO total
        FROM (SELECT FROM public.job_queue q WHERE q.user_id = p_user_id AND q.status = p_status LIMIT v_most + 1) c;
    ELSE
        total := streamvibe.count_user_jobs(p_user_id, p_status, p_job_type, p_from, p_end, v_most + 1);
    END IF;
    age := '0';
    IF total > v_most THEN
        v_now := extract(epoch FROM streamvibe.now());
        -- Hashed: sessions are shared, and whoever reads the setting must not see whose jobs were counted.
        v_list := hashtextextended(concat_ws('|', p_user_id, coalesce(p_status, '*'), coalesce(p_job_type, '*'), p_from,
                                             p_end), 0)::text;
        SELECT jsonb_object_agg(k.key, k.value) INTO v_known
        FROM jsonb_each(coalesce(nullif(current_setting('streamvibe.totals', true), ''), '{}')::jsonb) k
        WHERE (k.value->>1)::double precision > v_now - 300 AND (k.value->>1)::double precision <= v_now;
        IF v_known ? v_list THEN
            total := v_known->v_list->>0;
            age := make_interval(secs => v_now - (v_known->v_list->>1)::double precision);
        ELSE
            total := streamvibe.count_user_jobs(p_user_id, p_status, p_job_type, p_from, p_end, NULL);
            -- Not more than a session may well ask about in five minutes.
            IF (SELECT count(*) FROM jsonb_object_keys(v_known)) >= 100 THEN
                v_known := NULL;
            END IF;
            PERFORM set_config('streamvibe.totals',
                (coalesce(v_known, '{}') || jsonb_build_object(v_list, jsonb_build_array(total, v_now)))::text, false);
        END IF;
    END IF;
END
$$;

CREATE FUNCTION streamvibe.try_lock_account(p_user_id uuid, p_patience text DEFAULT '50ms'::text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_timeout text := current_setting('lock_timeout');
BEGIN
    PERFORM FROM streamvibe.account a WHERE a.user_id = p_user_id FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        RETURN true;
    ELSIF EXISTS (SELECT FROM streamvibe.account a WHERE a.user_id = p_user_id) THEN
        RETURN false;
    END IF;
    BEGIN
        -- SKIP LOCKED does not see a row that is not committed; inserting another waits for it.
        PERFORM set_config('lock_timeout', p_patience, true);
        INSERT INTO streamvibe.account (user_id) VALUES (p_user_id) ON CONFLICT DO NOTHING;
        PERFORM set_config('lock_timeout', v_timeout, true);
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN false;
    END;
    PERFORM FROM streamvibe.account a WHERE a.user_id = p_user_id FOR NO KEY UPDATE SKIP LOCKED;
    RETURN FOUND;
END
$$;

CREATE FUNCTION streamvibe.unfinished_archive_files() RETURNS TABLE(file_id bigint, source text, day date, url text, key text, row_count bigint, checksum numeric, to_delete boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    PERFORM streamvibe.require_service('unfinished_archive_files');
    RETURN QUERY
    SELECT f.id, f.source, f.day, f.url, f.key, f.row_count, f.checksum,
           f.state = 'obsolete' OR f.verified_at IS NULL OR f.replaces IS NOT NULL
    FROM streamvibe.archive_file f
    WHERE f.state <> 'complete' AND (f.deleted_at IS NULL OR f.deleted_at < streamvibe.now() - interval '7 days')
    ORDER BY f.id;
END
$$;

CREATE FUNCTION streamvibe.unreadable_field(p_request jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_field text;
BEGIN
    v_field := 'priority';
    PERFORM (p_request ->> v_field)::integer;
    v_field := 'scheduled_for';
    PERFORM (p_request ->> v_field)::timestamptz;
    v_field := 'force';
    PERFORM (p_request ->> v_field)::boolean;
    v_field := 'dedupe_window';
    PERFORM (p_request ->> v_field)::interval;
    v_field := 'cache_ttl';
    PERFORM (p_request ->> v_field)::interval;
    v_field := 'enforce_limit';
    PERFORM (p_request ->> v_field)::boolean;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN v_field;
END
$$;

CREATE FUNCTION streamvibe.user_job_ids(p_user_id uuid, p_status text, p_job_type text, p_from uuid, p_below uuid, p_limit integer, p_offset integer DEFAULT 0, p_newest_first boolean DEFAULT true) RETURNS TABLE(id uuid, completed_at timestamp with time zone, job_priority smallint)
    LANGUAGE plpgsql STABLE ROWS 50
    SET enable_sort TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_statuses text[] := streamvibe.stored_statuses(p_status);
    v_held uuid[];
    v_from uuid := coalesce(p_from, '00000000-0000-0000-0000-000000000000');
    -- Later partitions are empty, and are left out; a day, because clocks may be set back.
    v_below uuid := coalesce(p_below, streamvibe.id_bound(streamvibe.now() + interval '1 day'));
    -- created_at is the id's time: it bounds what is read of the index, the id which partitions.
    v_first timestamptz := streamvibe.id_time(v_from);
    v_last timestamptz := streamvibe.id_time(v_below);
BEGIN
    IF p_status IN ('pending', 'processing') THEN
        v_held := ARRAY(SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    END IF;
    IF p_newest_first THEN
        RETURN QUERY
        SELECT f.id, f.completed_at, f.job_priority
        FROM unnest(v_statuses) s(status)
        CROSS JOIN LATERAL (
            SELECT q.created_at, q.id, q.completed_at, q.job_priority FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status AND q.id >= v_from AND q.id < v_below
              AND q.created_at >= v_first AND q.created_at <= v_last
              AND (p_job_type IS NULL OR q.job_type = p_job_type)
              AND (v_held IS NULL OR q.status <> 'pending' OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing'))
            ORDER BY q.created_at DESC, q.id DESC LIMIT p_offset + p_limit) f
        ORDER BY f.created_at DESC, f.id DESC LIMIT p_limit OFFSET p_offset;
    ELSE
        RETURN QUERY
        SELECT f.id, f.completed_at, f.job_priority
        FROM unnest(v_statuses) s(status)
        CROSS JOIN LATERAL (
            SELECT q.created_at, q.id, q.completed_at, q.job_priority FROM public.job_queue q
            WHERE q.user_id = p_user_id AND q.status = s.status AND q.id >= v_from AND q.id < v_below
              AND q.created_at >= v_first AND q.created_at <= v_last
              AND (p_job_type IS NULL OR q.job_type = p_job_type)
              AND (v_held IS NULL OR q.status <> 'pending' OR (q.id IN (SELECT unnest(v_held))) = (p_status = 'processing'))
            ORDER BY q.created_at, q.id LIMIT p_offset + p_limit) f
        ORDER BY f.created_at, f.id LIMIT p_limit OFFSET p_offset;
    END IF;
END
$$;

CREATE FUNCTION streamvibe.wake_workers(p_job_type text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (
        SELECT FROM streamvibe.worker w
        WHERE CASE WHEN p_job_type = ANY (w.transaction_types) THEN w.transactions_asleep
                   ELSE w.asleep AND (w.job_types IS NULL OR p_job_type = ANY (w.job_types)) END
    ) THEN
        PERFORM pg_notify('streamvibe_jobs', p_job_type);
    END IF;
END
$$;

CREATE FUNCTION streamvibe.without_literals(p_statement text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    -- Tags of dollar quotes do not begin with a digit: $1 is a parameter.
    v_said text := regexp_replace(p_statement, '\$([^\s$''"0-9][^\s$''"]*)?\$.*$', '…');
BEGIN
    -- In one pass, since each of these may contain what looks like the begin of another. Quoted names stay.
    v_said := regexp_replace(v_said, '("([^"]|"")*")'
                             || '|(?<!\w)[eE]''([^''\\]|\\.|'''')*''|''([^'']|'''')*'''
                             || '|--[^\n\r]*|/\*([^*]|\*+[^*/])*\*+/'
                             || '|(?<![\w$])\.?[0-9][\w.]*', '\1?', 'g');
    v_said := regexp_replace(v_said, '("([^"]|"")*")\?', '\1', 'g');
    -- Comments that it begins with.
    v_said := btrim(regexp_replace(regexp_replace(v_said, '\s+', ' ', 'g'), '^[? ]+', ''));
    IF v_said ~ '''|/\*|\*/' OR mod(length(v_said) - length(replace(v_said, '"', '')), 2) = 1 THEN
        RETURN substring(v_said FROM '\w+') || ' …';
    END IF;
    RETURN CASE WHEN length(v_said) > 1000 THEN left(v_said, 999) || '…' ELSE v_said END;
END
$_$;

CREATE TABLE creators.content (
    platform text NOT NULL COLLATE pg_catalog."C",
    platform_content_id text NOT NULL COLLATE pg_catalog."C",
    platform_account_id text NOT NULL COLLATE pg_catalog."C",
    title text NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    thumbnail_url text,
    published_at timestamp with time zone,
    duration_seconds integer,
    view_count bigint,
    like_count bigint,
    comment_count bigint,
    available boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT content_numbers_not_negative CHECK ((LEAST((duration_seconds)::bigint, view_count, like_count, comment_count) >= 0))
);

COMMENT ON TABLE creators.content IS 'One published item of a creator, such as a video.';

COMMENT ON COLUMN creators.content.duration_seconds IS '0 while a stream is live or upcoming; NULL where unknown.';

COMMENT ON COLUMN creators.content.like_count IS 'NULL where the creator hides it.';

COMMENT ON COLUMN creators.content.available IS 'False once the platform no longer shows it: private, deleted or removed. The row and its last values stay.';

COMMENT ON COLUMN creators.content.updated_at IS 'When a value of this row last changed. How fresh the values are is creator.fetched_at.';

CREATE TABLE creators.creator (
    platform text NOT NULL COLLATE pg_catalog."C",
    platform_account_id text NOT NULL COLLATE pg_catalog."C",
    title text NOT NULL,
    handle text,
    description text DEFAULT ''::text NOT NULL,
    thumbnail_url text,
    published_at timestamp with time zone,
    subscriber_count bigint,
    video_count bigint,
    view_count bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    fetched_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT creator_counts_not_negative CHECK ((LEAST(subscriber_count, video_count, view_count) >= 0)),
    CONSTRAINT creator_platform_known CHECK ((platform = ANY (ARRAY['youtube'::text, 'instagram'::text, 'tiktok'::text])))
);

COMMENT ON TABLE creators.creator IS 'One account of a creator on one platform.';

COMMENT ON COLUMN creators.creator.platform_account_id IS 'The platform''s own id: a YouTube channel id (UC...).';

COMMENT ON COLUMN creators.creator.subscriber_count IS 'NULL where the creator hides it.';

COMMENT ON COLUMN creators.creator.updated_at IS 'When a value of this row last changed.';

COMMENT ON COLUMN creators.creator.fetched_at IS 'When the platform was last asked.';

CREATE TABLE streamvibe.account (
    user_id uuid NOT NULL,
    max_live_jobs integer,
    CONSTRAINT account_max_live_jobs_check CHECK ((max_live_jobs >= 0))
);

CREATE TABLE streamvibe.leaving_job (
    id uuid CONSTRAINT job_queue_id_not_null NOT NULL,
    user_id uuid CONSTRAINT job_queue_user_id_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_queue_created_at_not_null NOT NULL,
    updated_at timestamp with time zone CONSTRAINT job_queue_updated_at_not_null NOT NULL,
    scheduled_for timestamp with time zone CONSTRAINT job_queue_scheduled_for_not_null NOT NULL,
    expires_at timestamp with time zone,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    retry_at timestamp with time zone,
    claim_token bigint,
    job_priority smallint CONSTRAINT job_queue_job_priority_not_null NOT NULL,
    retry_count smallint CONSTRAINT job_queue_retry_count_not_null NOT NULL,
    progress real,
    turn integer CONSTRAINT job_queue_turn_not_null NOT NULL,
    isolated boolean CONSTRAINT job_queue_isolated_not_null NOT NULL,
    job_type text CONSTRAINT job_queue_job_type_not_null NOT NULL COLLATE pg_catalog."C",
    status text CONSTRAINT job_queue_status_not_null NOT NULL COLLATE pg_catalog."C",
    worker_id text,
    idempotency_key text COLLATE pg_catalog."C",
    failure_kind text,
    error_message text,
    progress_message text,
    params jsonb CONSTRAINT job_queue_params_not_null NOT NULL,
    result jsonb,
    traceparent text COLLATE pg_catalog."C",
    batch bigint,
    left_at timestamp with time zone DEFAULT streamvibe.now() NOT NULL
);

CREATE VIEW streamvibe.archivable_job AS
 SELECT j.place,
    j.batch,
    j.id AS row_id,
    j.user_id AS row_user_id,
    t.id,
    t.user_id,
    t.created_at,
    t.updated_at,
    t.scheduled_for,
    t.expires_at,
    t.started_at,
    t.completed_at,
    t.retry_at,
    t.claim_token,
    t.job_priority,
    t.retry_count,
    t.progress,
    t.turn,
    t.isolated,
    t.job_type,
    t.status,
    t.worker_id,
    t.idempotency_key,
    t.failure_kind,
    t.error_message,
    t.progress_message,
    t.params,
    t.result,
    t.traceparent,
    ((('x'::text || "left"(md5(concat_ws('|'::text, COALESCE(((length(t.id) || ':'::text) || t.id), '-'::text), COALESCE(((length(t.user_id) || ':'::text) || t.user_id), '-'::text), COALESCE(((length((t.created_at)::text) || ':'::text) || (t.created_at)::text), '-'::text), COALESCE(((length((t.updated_at)::text) || ':'::text) || (t.updated_at)::text), '-'::text), COALESCE(((length((t.scheduled_for)::text) || ':'::text) || (t.scheduled_for)::text), '-'::text), COALESCE(((length((t.expires_at)::text) || ':'::text) || (t.expires_at)::text), '-'::text), COALESCE(((length((t.started_at)::text) || ':'::text) || (t.started_at)::text), '-'::text), COALESCE(((length((t.completed_at)::text) || ':'::text) || (t.completed_at)::text), '-'::text), COALESCE(((length((t.retry_at)::text) || ':'::text) || (t.retry_at)::text), '-'::text), COALESCE(((length((t.claim_token)::text) || ':'::text) || (t.claim_token)::text), '-'::text), COALESCE(((length((t.job_priority)::text) || ':'::text) || (t.job_priority)::text), '-'::text), COALESCE(((length((t.retry_count)::text) || ':'::text) || (t.retry_count)::text), '-'::text), COALESCE(((length(b.progress) || ':'::text) || b.progress), '-'::text), COALESCE(((length((t.turn)::text) || ':'::text) || (t.turn)::text), '-'::text), COALESCE(((length(((t.isolated)::integer)::text) || ':'::text) || ((t.isolated)::integer)::text), '-'::text), COALESCE(((length(t.job_type) || ':'::text) || t.job_type), '-'::text), COALESCE(((length(t.status) || ':'::text) || t.status), '-'::text), COALESCE(((length(t.worker_id) || ':'::text) || t.worker_id), '-'::text), COALESCE(((length(t.idempotency_key) || ':'::text) || t.idempotency_key), '-'::text), COALESCE(((length(t.failure_kind) || ':'::text) || t.failure_kind), '-'::text), COALESCE(((length(t.error_message) || ':'::text) || t.error_message), '-'::text), COALESCE(((length(t.progress_message) || ':'::text) || t.progress_message), '-'::text), COALESCE(((length(t.params) || ':'::text) || t.params), '-'::text), COALESCE(((length(t.result) || ':'::text) || t.result), '-'::text), COALESCE(((length(t.traceparent) || ':'::text) || t.traceparent), '-'::text))), 15)))::bit(60))::bigint AS digest
   FROM ((( SELECT 'queue'::text AS place,
            NULL::bigint AS batch,
            q.id,
            q.user_id,
            q.created_at,
            q.updated_at,
            q.scheduled_for,
            q.expires_at,
            q.started_at,
            q.completed_at,
            q.retry_at,
            q.claim_token,
            q.job_priority,
            q.retry_count,
            q.progress,
            q.turn,
            q.isolated,
            q.job_type,
            q.status,
            q.worker_id,
            q.idempotency_key,
            q.failure_kind,
            q.error_message,
            q.progress_message,
            q.params,
            q.result,
            q.traceparent
           FROM public.job_queue q
        UNION ALL
         SELECT 'leaving'::text,
            l.batch,
            l.id,
            l.user_id,
            l.created_at,
            l.updated_at,
            l.scheduled_for,
            l.expires_at,
            l.started_at,
            l.completed_at,
            l.retry_at,
            l.claim_token,
            l.job_priority,
            l.retry_count,
            l.progress,
            l.turn,
            l.isolated,
            l.job_type,
            l.status,
            l.worker_id,
            l.idempotency_key,
            l.failure_kind,
            l.error_message,
            l.progress_message,
            l.params,
            l.result,
            l.traceparent
           FROM streamvibe.leaving_job l) j
     CROSS JOIN LATERAL ( SELECT (j.id)::text AS id,
            (j.user_id)::text AS user_id,
            streamvibe.archived_time(j.created_at) AS created_at,
            streamvibe.archived_time(j.updated_at) AS updated_at,
            streamvibe.archived_time(j.scheduled_for) AS scheduled_for,
            streamvibe.archived_time(j.expires_at) AS expires_at,
            streamvibe.archived_time(j.started_at) AS started_at,
            streamvibe.archived_time(j.completed_at) AS completed_at,
            streamvibe.archived_time(j.retry_at) AS retry_at,
            j.claim_token,
            j.job_priority,
            j.retry_count,
            j.progress,
            j.turn,
            j.isolated,
            j.job_type,
            j.status,
            j.worker_id,
            j.idempotency_key,
            j.failure_kind,
            j.error_message,
            j.progress_message,
            (j.params)::text AS params,
            (j.result)::text AS result,
            j.traceparent
         OFFSET 0) t)
     CROSS JOIN LATERAL ( SELECT (((('x'::text || encode(float4send(j.progress), 'hex'::text)))::bit(32))::integer)::text AS progress
         OFFSET 0) b);

CREATE VIEW streamvibe.archivable_line AS
 SELECT j.id AS row_id,
    j.user_id AS row_user_id,
    t.id,
    t.job_id,
    t.user_id,
    t.created_at,
    t.log_level,
    t.message,
    t.metadata,
    ((('x'::text || "left"(md5(concat_ws('|'::text, COALESCE(((length(t.id) || ':'::text) || t.id), '-'::text), COALESCE(((length(t.job_id) || ':'::text) || t.job_id), '-'::text), COALESCE(((length(t.user_id) || ':'::text) || t.user_id), '-'::text), COALESCE(((length((t.created_at)::text) || ':'::text) || (t.created_at)::text), '-'::text), COALESCE(((length(t.log_level) || ':'::text) || t.log_level), '-'::text), COALESCE(((length(t.message) || ':'::text) || t.message), '-'::text), COALESCE(((length(t.metadata) || ':'::text) || t.metadata), '-'::text))), 15)))::bit(60))::bigint AS digest
   FROM (public.job_log j
     CROSS JOIN LATERAL ( SELECT (j.id)::text AS id,
            (j.job_id)::text AS job_id,
            (j.user_id)::text AS user_id,
            streamvibe.archived_time(j.created_at) AS created_at,
            j.log_level,
            j.message,
            (j.metadata)::text AS metadata
         OFFSET 0) t);

CREATE TABLE streamvibe.archive_file (
    id bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL COLLATE pg_catalog."C",
    day date NOT NULL,
    url text NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    state text DEFAULT 'writing'::text NOT NULL COLLATE pg_catalog."C",
    replaces bigint,
    row_count bigint,
    byte_count bigint,
    checksum numeric,
    written_at timestamp with time zone DEFAULT streamvibe.now() NOT NULL,
    verified_at timestamp with time zone,
    deleted_at timestamp with time zone,
    CONSTRAINT archive_file_check CHECK (((state <> 'complete'::text) OR (verified_at IS NOT NULL))),
    CONSTRAINT archive_file_check1 CHECK ((((verified_at IS NULL) = (row_count IS NULL)) AND ((verified_at IS NULL) = (byte_count IS NULL)) AND ((verified_at IS NULL) = (checksum IS NULL)))),
    CONSTRAINT archive_file_kind_check CHECK ((kind = ANY (ARRAY['jobs'::text, 'logs'::text]))),
    CONSTRAINT archive_file_state_check CHECK ((state = ANY (ARRAY['writing'::text, 'complete'::text, 'obsolete'::text])))
);

ALTER TABLE streamvibe.archive_file ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME streamvibe.archive_file_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE streamvibe.archiver (
    only_row boolean DEFAULT true NOT NULL,
    holder text,
    fence bigint DEFAULT 0 NOT NULL,
    expires_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    last_batch bigint DEFAULT 0 NOT NULL,
    CONSTRAINT archiver_only_row_check CHECK (only_row)
)
WITH (fillfactor='50');

ALTER TABLE streamvibe.claim ALTER COLUMN token ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME streamvibe.claim_token_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE streamvibe.counter (
    name text NOT NULL COLLATE pg_catalog."C",
    job_type text NOT NULL COLLATE pg_catalog."C",
    detail text NOT NULL COLLATE pg_catalog."C",
    value bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE streamvibe.counter_note (
    name text NOT NULL COLLATE pg_catalog."C",
    job_type text NOT NULL COLLATE pg_catalog."C",
    detail text NOT NULL COLLATE pg_catalog."C",
    value bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

CREATE TABLE streamvibe.stat_delta (
    job_type text NOT NULL COLLATE pg_catalog."C",
    status text NOT NULL COLLATE pg_catalog."C",
    minute timestamp with time zone NOT NULL,
    jobs integer NOT NULL,
    waiting_us bigint,
    processing_us bigint,
    waited smallint[],
    processed smallint[],
    leaf_number bigint
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', toast_tuple_target='8160');

CREATE VIEW streamvibe.counter_now AS
 SELECT c.name,
    c.job_type,
    c.detail,
    c.value
   FROM streamvibe.counter c
UNION ALL
 SELECT n.name,
    n.job_type,
    n.detail,
    n.value
   FROM streamvibe.counter_note n
UNION ALL
 SELECT e.name,
    d.job_type,
    e.detail,
    e.value
   FROM (streamvibe.stat_delta d
     CROSS JOIN LATERAL streamvibe.counts_of(d.status, (d.jobs)::bigint, d.waiting_us, d.processing_us, d.waited, d.processed) e(name, detail, value))
  WHERE ((d.jobs > 0) AND (d.status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text])));

CREATE TABLE streamvibe.dropped_leaf (
    leaf_number bigint NOT NULL
);

CREATE TABLE streamvibe.duty (
    name text NOT NULL COLLATE pg_catalog."C",
    usual_schedule text NOT NULL,
    schedule text,
    enabled boolean DEFAULT true NOT NULL,
    running_since timestamp with time zone,
    last_started_at timestamp with time zone,
    last_ended_at timestamp with time zone,
    last_done bigint,
    last_error text,
    CONSTRAINT duty_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100)))
)
WITH (fillfactor='50');

CREATE TABLE streamvibe.duty_run (
    id bigint NOT NULL,
    duty text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    leader_id text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    runs integer DEFAULT 1 NOT NULL,
    done bigint,
    error text
)
WITH (fillfactor='90');

ALTER TABLE streamvibe.duty_run ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME streamvibe.duty_run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE streamvibe.erasure (
    user_id uuid NOT NULL,
    begun_at timestamp with time zone NOT NULL,
    before_id uuid NOT NULL,
    beside text[] NOT NULL,
    left_queue_at timestamp with time zone
);

CREATE TABLE streamvibe.idempotency (
    user_id uuid NOT NULL,
    idempotency_key text NOT NULL COLLATE pg_catalog."C",
    job_id uuid NOT NULL
);

CREATE TABLE streamvibe.job_log_leaf (
    id uuid DEFAULT streamvibe.new_id() CONSTRAINT job_log_id_not_null NOT NULL,
    job_id uuid CONSTRAINT job_log_job_id_not_null NOT NULL,
    user_id uuid CONSTRAINT job_log_user_id_not_null NOT NULL,
    created_at timestamp with time zone GENERATED ALWAYS AS (streamvibe.id_time(id)) STORED CONSTRAINT job_log_created_at_not_null NOT NULL,
    log_level text DEFAULT 'info'::text CONSTRAINT job_log_log_level_not_null NOT NULL COLLATE pg_catalog."C",
    message text CONSTRAINT job_log_message_not_null NOT NULL,
    metadata jsonb,
    job_type text COLLATE pg_catalog."C",
    CONSTRAINT job_log_level_known CHECK ((log_level = ANY (ARRAY['debug'::text, 'info'::text, 'warning'::text, 'error'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_vacuum_cost_limit='1000', toast_tuple_target='8160');

CREATE TABLE streamvibe.job_queue_leaf (
    id uuid DEFAULT streamvibe.new_id() CONSTRAINT job_queue_id_not_null NOT NULL,
    user_id uuid CONSTRAINT job_queue_user_id_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_queue_created_at_not_null NOT NULL,
    updated_at timestamp with time zone DEFAULT streamvibe.now() CONSTRAINT job_queue_updated_at_not_null NOT NULL,
    scheduled_for timestamp with time zone DEFAULT streamvibe.now() CONSTRAINT job_queue_scheduled_for_not_null NOT NULL,
    expires_at timestamp with time zone,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    retry_at timestamp with time zone,
    claim_token bigint,
    job_priority smallint DEFAULT 5 CONSTRAINT job_queue_job_priority_not_null NOT NULL,
    retry_count smallint DEFAULT 0 CONSTRAINT job_queue_retry_count_not_null NOT NULL,
    progress real,
    turn integer DEFAULT 0 CONSTRAINT job_queue_turn_not_null NOT NULL,
    isolated boolean DEFAULT false CONSTRAINT job_queue_isolated_not_null NOT NULL,
    job_type text CONSTRAINT job_queue_job_type_not_null NOT NULL COLLATE pg_catalog."C",
    status text DEFAULT 'pending'::text CONSTRAINT job_queue_status_not_null NOT NULL COLLATE pg_catalog."C",
    worker_id text,
    idempotency_key text COLLATE pg_catalog."C",
    failure_kind text,
    error_message text,
    progress_message text,
    params jsonb DEFAULT '{}'::jsonb CONSTRAINT job_queue_params_not_null NOT NULL,
    result jsonb,
    traceparent text COLLATE pg_catalog."C",
    CONSTRAINT job_queue_finished_has_end CHECK (((completed_at IS NULL) = (status = ANY (ARRAY['pending'::text, 'processing'::text])))),
    CONSTRAINT job_queue_params_object CHECK ((jsonb_typeof(params) = 'object'::text)),
    CONSTRAINT job_queue_priority_range CHECK (((job_priority >= 0) AND (job_priority <= 9))),
    CONSTRAINT job_queue_processing_has_claim CHECK (((status <> 'processing'::text) OR ((worker_id IS NOT NULL) AND (claim_token IS NOT NULL) AND (started_at IS NOT NULL)))),
    CONSTRAINT job_queue_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'processing'::text, 'completed'::text, 'failed'::text, 'cancelled'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_vacuum_cost_limit='1000');
ALTER TABLE ONLY streamvibe.job_queue_leaf ALTER COLUMN job_type SET STATISTICS 1000;
ALTER TABLE ONLY streamvibe.job_queue_leaf ALTER COLUMN status SET STATISTICS 1000;

CREATE VIEW streamvibe.leaf AS
 SELECT oid AS table_oid,
    ( SELECT p.leaf_number
           FROM streamvibe.partition p
          WHERE (p.partition_name = (c.relname)::text)) AS leaf_number
   FROM pg_class c
  WHERE (relnamespace = ('streamvibe'::regnamespace)::oid);

ALTER TABLE streamvibe.partition ALTER COLUMN leaf_number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME streamvibe.partition_leaf_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE streamvibe.pause (
    kind text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    paused_at timestamp with time zone NOT NULL,
    reason text,
    CONSTRAINT pause_check CHECK (((kind = 'all'::text) = (name = ''::text))),
    CONSTRAINT pause_kind_check CHECK ((kind = ANY (ARRAY['all'::text, 'job_type'::text, 'user'::text])))
);

CREATE TABLE streamvibe.report (
    kind text NOT NULL COLLATE pg_catalog."C",
    period_start timestamp with time zone NOT NULL,
    period_end timestamp with time zone NOT NULL,
    made_at timestamp with time zone NOT NULL,
    content jsonb NOT NULL,
    CONSTRAINT report_check CHECK ((period_end > period_start)),
    CONSTRAINT report_kind_check CHECK ((kind = ANY (ARRAY['daily'::text, 'weekly'::text, 'monthly'::text])))
);

CREATE TABLE streamvibe.schema_migration (
    kind text NOT NULL,
    name text NOT NULL,
    version integer,
    checksum text NOT NULL,
    release text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT schema_migration_check CHECK (((version IS NOT NULL) = (kind = 'migration'::text))),
    CONSTRAINT schema_migration_kind_check CHECK ((kind = ANY (ARRAY['migration'::text, 'function'::text, 'policy'::text])))
);

COMMENT ON TABLE streamvibe.schema_migration IS 'StreamVibe: what was applied to this database, by streamvibe migrate.';

CREATE TABLE streamvibe.setting (
    only_row boolean DEFAULT true NOT NULL,
    default_max_live_jobs integer DEFAULT 10 NOT NULL,
    partition_width interval DEFAULT '7 days'::interval NOT NULL,
    retry_in_place_max interval DEFAULT '00:05:00'::interval NOT NULL,
    max_result_bytes integer DEFAULT 1048576 NOT NULL,
    archive_url text,
    archive_id uuid,
    archive_owner text COLLATE pg_catalog."C",
    CONSTRAINT setting_default_max_live_jobs_check CHECK ((default_max_live_jobs >= 0)),
    CONSTRAINT setting_max_result_bytes_check CHECK ((max_result_bytes > 0)),
    CONSTRAINT setting_only_row_check CHECK (only_row),
    CONSTRAINT setting_partition_width_check CHECK (((partition_width >= '1 day'::interval) AND (partition_width = date_trunc('day'::text, partition_width)) AND (EXTRACT(year FROM partition_width) = (0)::numeric) AND (EXTRACT(month FROM partition_width) = (0)::numeric)))
);

CREATE VIEW streamvibe.sketch_note AS
 SELECT d.job_type,
    date_bin('01:00:00'::interval, d.minute, '2000-01-01 00:00:00+00'::timestamp with time zone) AS hour,
    m.measure,
    m.bucket,
    (sign((d.jobs)::double precision))::integer AS jobs
   FROM (streamvibe.stat_delta d
     CROSS JOIN LATERAL ( SELECT 'waiting'::text AS "?column?",
            u.bucket
           FROM unnest(d.waited) u(bucket)
        UNION ALL
         SELECT 'processing'::text,
            u.bucket
           FROM unnest(d.processed) u(bucket)) m(measure, bucket))
  WHERE ((d.leaf_number = ANY (ARRAY( SELECT g.leaf_number
           FROM streamvibe.dropped_leaf g))) IS NOT TRUE);

CREATE TABLE streamvibe.stat_sketch (
    leaf_number bigint CONSTRAINT sketch_by_leaf_leaf_number_not_null NOT NULL,
    minutes smallint CONSTRAINT sketch_by_leaf_minutes_not_null NOT NULL,
    bucket smallint CONSTRAINT sketch_by_leaf_bucket_not_null NOT NULL,
    job_type text CONSTRAINT sketch_by_leaf_job_type_not_null NOT NULL COLLATE pg_catalog."C",
    measure text CONSTRAINT sketch_by_leaf_measure_not_null NOT NULL COLLATE pg_catalog."C",
    since timestamp with time zone CONSTRAINT sketch_by_leaf_since_not_null NOT NULL,
    jobs bigint CONSTRAINT sketch_by_leaf_jobs_not_null NOT NULL,
    CONSTRAINT stat_sketch_measure_check CHECK ((measure = ANY (ARRAY['waiting'::text, 'processing'::text]))),
    CONSTRAINT stat_sketch_minutes_check CHECK ((minutes = ANY (ARRAY['-2'::integer, '-1'::integer, 0, 60])))
)
WITH (fillfactor='50');

CREATE VIEW streamvibe.sketch_now AS
 SELECT since AS hour,
    job_type,
    measure,
    bucket,
    jobs
   FROM streamvibe.stat_sketch s
  WHERE ((minutes = 60) AND (leaf_number <> ALL (ARRAY( SELECT g.leaf_number
           FROM streamvibe.dropped_leaf g))));

CREATE UNLOGGED TABLE streamvibe.staging (
    batch uuid NOT NULL,
    ordinal integer NOT NULL,
    user_id uuid,
    job_type text COLLATE pg_catalog."C",
    params jsonb,
    priority integer,
    scheduled_for timestamp with time zone
);

CREATE TABLE streamvibe.stat (
    leaf_number bigint CONSTRAINT stat_by_leaf_leaf_number_not_null NOT NULL,
    minutes smallint CONSTRAINT stat_by_leaf_minutes_not_null NOT NULL,
    job_type text CONSTRAINT stat_by_leaf_job_type_not_null NOT NULL COLLATE pg_catalog."C",
    status text CONSTRAINT stat_by_leaf_status_not_null NOT NULL COLLATE pg_catalog."C",
    since timestamp with time zone CONSTRAINT stat_by_leaf_since_not_null NOT NULL,
    jobs bigint CONSTRAINT stat_by_leaf_jobs_not_null NOT NULL,
    waiting_us bigint CONSTRAINT stat_by_leaf_waiting_us_not_null NOT NULL,
    processing_us bigint CONSTRAINT stat_by_leaf_processing_us_not_null NOT NULL,
    CONSTRAINT stat_minutes_check CHECK ((minutes = ANY (ARRAY['-1'::integer, 0, 1, 10, 60, 1440])))
)
WITH (fillfactor='50');

CREATE TABLE streamvibe.stat_lock (
    only_row boolean DEFAULT true CONSTRAINT stat_keeper_only_row_not_null NOT NULL,
    CONSTRAINT stat_lock_only_row_check CHECK (only_row)
);

CREATE VIEW streamvibe.stat_note AS
 SELECT job_type,
    status,
    minute,
    jobs,
    waiting_us,
    processing_us
   FROM streamvibe.stat_delta d
  WHERE ((leaf_number = ANY (ARRAY( SELECT g.leaf_number
           FROM streamvibe.dropped_leaf g))) IS NOT TRUE);

CREATE VIEW streamvibe.stat_now AS
 SELECT s.minutes,
    s.since,
    s.job_type,
    s.status,
    s.jobs,
    s.waiting_us,
    s.processing_us
   FROM streamvibe.stat s
  WHERE ((s.minutes >= 0) AND (s.leaf_number <> ALL (ARRAY( SELECT g.leaf_number
           FROM streamvibe.dropped_leaf g))))
UNION ALL
 SELECT (0)::smallint AS minutes,
    s.since,
    s.job_type,
    s.status,
    (- s.jobs) AS jobs,
    (- s.waiting_us) AS waiting_us,
    (- s.processing_us) AS processing_us
   FROM (streamvibe.dropped_leaf g
     CROSS JOIN LATERAL ( SELECT s_1.leaf_number,
            s_1.minutes,
            s_1.job_type,
            s_1.status,
            s_1.since,
            s_1.jobs,
            s_1.waiting_us,
            s_1.processing_us
           FROM streamvibe.stat s_1
          WHERE ((s_1.minutes = '-1'::integer) AND (s_1.leaf_number = g.leaf_number))
         OFFSET 0) s);

CREATE TABLE streamvibe.worker (
    id text NOT NULL,
    job_types text[],
    lease interval NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone NOT NULL,
    asleep boolean DEFAULT false NOT NULL,
    transaction_types text[] DEFAULT '{}'::text[] NOT NULL,
    transactions_asleep boolean DEFAULT false NOT NULL,
    metadata jsonb,
    left_over text,
    CONSTRAINT worker_id_check CHECK (((length(id) >= 1) AND (length(id) <= 200))),
    CONSTRAINT worker_left_over_check CHECK ((left_over = ANY (ARRAY['hand back'::text, 'isolate'::text])))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.job_log ATTACH PARTITION streamvibe.job_log_leaf FOR VALUES FROM (its week);

ALTER TABLE ONLY public.job_queue ATTACH PARTITION streamvibe.job_queue_leaf FOR VALUES FROM (its week);

ALTER TABLE ONLY creators.content
    ADD CONSTRAINT content_pkey PRIMARY KEY (platform, platform_content_id);

ALTER TABLE ONLY creators.creator
    ADD CONSTRAINT creator_pkey PRIMARY KEY (platform, platform_account_id);

ALTER TABLE ONLY public.job_log
    ADD CONSTRAINT job_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job_queue
    ADD CONSTRAINT job_queue_pkey PRIMARY KEY (id) INCLUDE (status);

ALTER TABLE ONLY streamvibe.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY streamvibe.archive_file
    ADD CONSTRAINT archive_file_key_key UNIQUE (key);

ALTER TABLE ONLY streamvibe.archive_file
    ADD CONSTRAINT archive_file_pkey PRIMARY KEY (id);

ALTER TABLE ONLY streamvibe.archiver
    ADD CONSTRAINT archiver_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY streamvibe.claim
    ADD CONSTRAINT claim_pkey PRIMARY KEY (token);

ALTER TABLE ONLY streamvibe.counter
    ADD CONSTRAINT counter_pkey PRIMARY KEY (name, job_type, detail);

ALTER TABLE ONLY streamvibe.dropped_leaf
    ADD CONSTRAINT dropped_leaf_pkey PRIMARY KEY (leaf_number);

ALTER TABLE ONLY streamvibe.duty
    ADD CONSTRAINT duty_pkey PRIMARY KEY (name);

ALTER TABLE ONLY streamvibe.duty_run
    ADD CONSTRAINT duty_run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY streamvibe.erasure
    ADD CONSTRAINT erasure_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY streamvibe.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (user_id, idempotency_key);

ALTER TABLE ONLY streamvibe.job_log_leaf
    ADD CONSTRAINT job_log_leaf_pkey PRIMARY KEY (id);

ALTER TABLE ONLY streamvibe.job_queue_leaf
    ADD CONSTRAINT job_queue_leaf_pkey PRIMARY KEY (id) INCLUDE (status);

ALTER TABLE ONLY streamvibe.job_type
    ADD CONSTRAINT job_type_pkey PRIMARY KEY (name);

ALTER TABLE ONLY streamvibe.leader
    ADD CONSTRAINT leader_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY streamvibe.leaving_job
    ADD CONSTRAINT leaving_job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY streamvibe.partition
    ADD CONSTRAINT partition_partition_name_key UNIQUE (partition_name);

ALTER TABLE ONLY streamvibe.partition
    ADD CONSTRAINT partition_pkey PRIMARY KEY (parent_name, lower_at);

ALTER TABLE ONLY streamvibe.pause
    ADD CONSTRAINT pause_pkey PRIMARY KEY (kind, name);

ALTER TABLE ONLY streamvibe.report
    ADD CONSTRAINT report_pkey PRIMARY KEY (kind, period_start);

ALTER TABLE ONLY streamvibe.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (kind, name);

ALTER TABLE ONLY streamvibe.schema_migration
    ADD CONSTRAINT schema_migration_version_key UNIQUE (version);

ALTER TABLE ONLY streamvibe.setting
    ADD CONSTRAINT setting_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY streamvibe.staging
    ADD CONSTRAINT staging_pkey PRIMARY KEY (batch, ordinal);

ALTER TABLE ONLY streamvibe.stat_lock
    ADD CONSTRAINT stat_lock_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY streamvibe.stat
    ADD CONSTRAINT stat_pkey PRIMARY KEY (minutes, since, job_type, status, leaf_number);

ALTER TABLE ONLY streamvibe.stat_sketch
    ADD CONSTRAINT stat_sketch_pkey PRIMARY KEY (minutes, since, job_type, measure, bucket, leaf_number);

ALTER TABLE ONLY streamvibe.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (id);

CREATE INDEX idx_content_creator ON creators.content USING btree (platform, platform_account_id, available, published_at DESC);

CREATE INDEX idx_job_log_errors ON ONLY public.job_log USING btree (log_level, created_at DESC) WHERE (log_level = ANY (ARRAY['error'::text, 'warning'::text]));

CREATE INDEX idx_job_log_job_time ON ONLY public.job_log USING btree (job_id, created_at DESC, id DESC);

CREATE INDEX idx_job_log_message_fts ON ONLY public.job_log USING gin (to_tsvector('english'::regconfig, message));

CREATE INDEX idx_job_log_metadata_gin ON ONLY public.job_log USING gin (metadata jsonb_path_ops) WHERE (metadata IS NOT NULL);

CREATE INDEX idx_job_log_user_time ON ONLY public.job_log USING btree (user_id, created_at DESC, id DESC);

CREATE INDEX idx_job_queue_cleanup ON ONLY public.job_queue USING btree (status, completed_at) WHERE (status = ANY (ARRAY['completed'::text, 'cancelled'::text, 'failed'::text]));

CREATE INDEX idx_job_queue_expiration ON ONLY public.job_queue USING btree (expires_at) WHERE (status = 'pending'::text);

CREATE INDEX idx_job_queue_identity ON ONLY public.job_queue USING btree (((((uuid_hash(user_id))::bigint << 32) + (jsonb_hash_extended(params, hashtextextended(job_type, (0)::bigint)) & '4294967295'::bigint))), completed_at DESC);

CREATE INDEX idx_job_queue_params_gin ON ONLY public.job_queue USING gin (params jsonb_path_ops);

CREATE INDEX idx_job_queue_pending_pickup ON ONLY public.job_queue USING btree (job_priority DESC, scheduled_for, id) WHERE (status = 'pending'::text);

CREATE INDEX idx_job_queue_result_gin ON ONLY public.job_queue USING gin (result jsonb_path_ops) WHERE (result IS NOT NULL);

CREATE INDEX idx_job_queue_retry_eligible ON ONLY public.job_queue USING btree (retry_count, retry_at) WHERE (status = 'failed'::text);

CREATE INDEX idx_job_queue_stuck_detection ON ONLY public.job_queue USING btree (started_at) WHERE (status = 'processing'::text);

CREATE INDEX idx_job_queue_type_status ON ONLY public.job_queue USING btree (job_type, status, (((
CASE
    WHEN (scheduled_for > created_at) THEN '4611686018427387904'::bigint
    ELSE ((turn)::bigint * 60000000)
END + (((9 - job_priority))::bigint << 58)) + ((date_part('epoch'::text, (GREATEST(scheduled_for, created_at) - '1970-01-01 00:00:00+00'::timestamp with time zone)) * (1000000)::double precision))::bigint))) WHERE (status = ANY (ARRAY['pending'::text, 'processing'::text, 'failed'::text]));

CREATE INDEX idx_job_queue_user_active ON ONLY public.job_queue USING btree (user_id, status) WHERE (status = ANY (ARRAY['pending'::text, 'processing'::text]));

CREATE INDEX idx_job_queue_user_status_created ON ONLY public.job_queue USING btree (user_id, status, created_at DESC, id DESC);

CREATE INDEX idx_job_queue_worker_active ON ONLY public.job_queue USING btree (worker_id, started_at DESC) WHERE (status = 'processing'::text);

CREATE UNIQUE INDEX archive_file_complete ON streamvibe.archive_file USING btree (source, day) WHERE (state = 'complete'::text);

CREATE INDEX archive_file_incomplete ON streamvibe.archive_file USING btree (id) WHERE (state <> 'complete'::text);

CREATE INDEX claim_made_in ON streamvibe.claim USING btree (made_in);

CREATE INDEX duty_run_of_duty ON streamvibe.duty_run USING btree (duty, id);

CREATE INDEX idempotency_job ON streamvibe.idempotency USING btree (job_id);

CREATE INDEX job_log_leaf_job_id_created_at_id_idx ON streamvibe.job_log_leaf USING btree (job_id, created_at DESC, id DESC);

CREATE INDEX job_log_leaf_log_level_created_at_idx ON streamvibe.job_log_leaf USING btree (log_level, created_at DESC) WHERE (log_level = ANY (ARRAY['error'::text, 'warning'::text]));

CREATE INDEX job_log_leaf_metadata_idx ON streamvibe.job_log_leaf USING gin (metadata jsonb_path_ops) WHERE (metadata IS NOT NULL);

CREATE INDEX job_log_leaf_to_tsvector_idx ON streamvibe.job_log_leaf USING gin (to_tsvector('english'::regconfig, message));

CREATE INDEX job_log_leaf_user_id_created_at_id_idx ON streamvibe.job_log_leaf USING btree (user_id, created_at DESC, id DESC);

CREATE INDEX job_queue_leaf_expires_at_idx ON streamvibe.job_queue_leaf USING btree (expires_at) WHERE (status = 'pending'::text);

CREATE INDEX job_queue_leaf_expr_completed_at_idx ON streamvibe.job_queue_leaf USING btree (((((uuid_hash(user_id))::bigint << 32) + (jsonb_hash_extended(params, hashtextextended(job_type, (0)::bigint)) & '4294967295'::bigint))), completed_at DESC);

CREATE INDEX job_queue_leaf_job_priority_scheduled_for_id_idx ON streamvibe.job_queue_leaf USING btree (job_priority DESC, scheduled_for, id) WHERE (status = 'pending'::text);

CREATE INDEX job_queue_leaf_job_type_status_expr_idx ON streamvibe.job_queue_leaf USING btree (job_type, status, (((
CASE
    WHEN (scheduled_for > created_at) THEN '4611686018427387904'::bigint
    ELSE ((turn)::bigint * 60000000)
END + (((9 - job_priority))::bigint << 58)) + ((date_part('epoch'::text, (GREATEST(scheduled_for, created_at) - '1970-01-01 00:00:00+00'::timestamp with time zone)) * (1000000)::double precision))::bigint))) WHERE (status = ANY (ARRAY['pending'::text, 'processing'::text, 'failed'::text]));

CREATE INDEX job_queue_leaf_params_idx ON streamvibe.job_queue_leaf USING gin (params jsonb_path_ops);

CREATE INDEX job_queue_leaf_result_idx ON streamvibe.job_queue_leaf USING gin (result jsonb_path_ops) WHERE (result IS NOT NULL);

CREATE INDEX job_queue_leaf_retry_count_retry_at_idx ON streamvibe.job_queue_leaf USING btree (retry_count, retry_at) WHERE (status = 'failed'::text);

CREATE INDEX job_queue_leaf_started_at_idx ON streamvibe.job_queue_leaf USING btree (started_at) WHERE (status = 'processing'::text);

CREATE INDEX job_queue_leaf_status_completed_at_idx ON streamvibe.job_queue_leaf USING btree (status, completed_at) WHERE (status = ANY (ARRAY['completed'::text, 'cancelled'::text, 'failed'::text]));

CREATE INDEX job_queue_leaf_user_id_status_created_at_id_idx ON streamvibe.job_queue_leaf USING btree (user_id, status, created_at DESC, id DESC);

CREATE INDEX job_queue_leaf_user_id_status_idx ON streamvibe.job_queue_leaf USING btree (user_id, status) WHERE (status = ANY (ARRAY['pending'::text, 'processing'::text]));

CREATE INDEX job_queue_leaf_worker_id_started_at_idx ON streamvibe.job_queue_leaf USING btree (worker_id, started_at DESC) WHERE (status = 'processing'::text);

CREATE INDEX leaving_job_batch ON streamvibe.leaving_job USING btree (batch) WHERE (batch IS NOT NULL);

CREATE INDEX stat_leaf ON streamvibe.stat USING btree (leaf_number);

CREATE INDEX stat_sketch_leaf ON streamvibe.stat_sketch USING btree (leaf_number);

ALTER INDEX public.idx_job_log_job_time ATTACH PARTITION streamvibe.job_log_leaf_job_id_created_at_id_idx;

ALTER INDEX public.idx_job_log_errors ATTACH PARTITION streamvibe.job_log_leaf_log_level_created_at_idx;

ALTER INDEX public.idx_job_log_metadata_gin ATTACH PARTITION streamvibe.job_log_leaf_metadata_idx;

ALTER INDEX public.job_log_pkey ATTACH PARTITION streamvibe.job_log_leaf_pkey;

ALTER INDEX public.idx_job_log_message_fts ATTACH PARTITION streamvibe.job_log_leaf_to_tsvector_idx;

ALTER INDEX public.idx_job_log_user_time ATTACH PARTITION streamvibe.job_log_leaf_user_id_created_at_id_idx;

ALTER INDEX public.idx_job_queue_expiration ATTACH PARTITION streamvibe.job_queue_leaf_expires_at_idx;

ALTER INDEX public.idx_job_queue_identity ATTACH PARTITION streamvibe.job_queue_leaf_expr_completed_at_idx;

ALTER INDEX public.idx_job_queue_pending_pickup ATTACH PARTITION streamvibe.job_queue_leaf_job_priority_scheduled_for_id_idx;

ALTER INDEX public.idx_job_queue_type_status ATTACH PARTITION streamvibe.job_queue_leaf_job_type_status_expr_idx;

ALTER INDEX public.idx_job_queue_params_gin ATTACH PARTITION streamvibe.job_queue_leaf_params_idx;

ALTER INDEX public.job_queue_pkey ATTACH PARTITION streamvibe.job_queue_leaf_pkey;

ALTER INDEX public.idx_job_queue_result_gin ATTACH PARTITION streamvibe.job_queue_leaf_result_idx;

ALTER INDEX public.idx_job_queue_retry_eligible ATTACH PARTITION streamvibe.job_queue_leaf_retry_count_retry_at_idx;

ALTER INDEX public.idx_job_queue_stuck_detection ATTACH PARTITION streamvibe.job_queue_leaf_started_at_idx;

ALTER INDEX public.idx_job_queue_cleanup ATTACH PARTITION streamvibe.job_queue_leaf_status_completed_at_idx;

ALTER INDEX public.idx_job_queue_user_status_created ATTACH PARTITION streamvibe.job_queue_leaf_user_id_status_created_at_id_idx;

ALTER INDEX public.idx_job_queue_user_active ATTACH PARTITION streamvibe.job_queue_leaf_user_id_status_idx;

ALTER INDEX public.idx_job_queue_worker_active ATTACH PARTITION streamvibe.job_queue_leaf_worker_id_started_at_idx;

CREATE CONSTRAINT TRIGGER refuse_held_claim AFTER UPDATE ON streamvibe.claim DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.held) EXECUTE FUNCTION streamvibe.refuse_held_claim();

ALTER TABLE ONLY creators.content
    ADD CONSTRAINT content_creator_fkey FOREIGN KEY (platform, platform_account_id) REFERENCES creators.creator(platform, platform_account_id) ON DELETE CASCADE;

ALTER TABLE creators.content ENABLE ROW LEVEL SECURITY;

ALTER TABLE creators.creator ENABLE ROW LEVEL SECURITY;

CREATE POLICY service_role_reads ON creators.content FOR SELECT TO service_role USING (true);

CREATE POLICY service_role_reads ON creators.creator FOR SELECT TO service_role USING (true);

ALTER TABLE public.job_log ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.job_queue ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_rows ON public.job_log FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY own_rows ON public.job_queue FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY service_reads_all ON public.job_log FOR SELECT TO service_role USING (true);

CREATE POLICY service_reads_all ON public.job_queue FOR SELECT TO service_role USING (true);

ALTER TABLE streamvibe.job_log_leaf ENABLE ROW LEVEL SECURITY;

ALTER TABLE streamvibe.job_queue_leaf ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA auth TO anon;
GRANT USAGE ON SCHEMA auth TO authenticated;
GRANT USAGE ON SCHEMA auth TO service_role;

GRANT USAGE ON SCHEMA creators TO service_role;

GRANT USAGE ON SCHEMA public TO anon;
GRANT USAGE ON SCHEMA public TO authenticated;
GRANT USAGE ON SCHEMA public TO service_role;

GRANT USAGE ON SCHEMA streamvibe TO service_role;

REVOKE ALL ON FUNCTION public.append_job_logs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_levels text[], p_messages text[], p_metadata jsonb[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.append_job_logs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_levels text[], p_messages text[], p_metadata jsonb[]) TO service_role;

REVOKE ALL ON FUNCTION public.cancel_jobs(p_user_id uuid, p_job_ids uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.cancel_jobs(p_user_id uuid, p_job_ids uuid[]) TO authenticated;
GRANT ALL ON FUNCTION public.cancel_jobs(p_user_id uuid, p_job_ids uuid[]) TO service_role;

REVOKE ALL ON FUNCTION public.claim_jobs(p_worker_id text, p_limit integer, p_job_types text[], p_alone boolean, p_in_transaction boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.claim_jobs(p_worker_id text, p_limit integer, p_job_types text[], p_alone boolean, p_in_transaction boolean) TO service_role;

REVOKE ALL ON FUNCTION public.cleanup_old_jobs(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.cleanup_old_jobs(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.cleanup_old_logs(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.cleanup_old_logs(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.compact_stats(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.compact_stats(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.complete_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_results jsonb[], p_started_at timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.complete_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_results jsonb[], p_started_at timestamp with time zone[]) TO service_role;

REVOKE ALL ON FUNCTION public.create_jobs(p_jobs jsonb, p_dedupe boolean, p_enforce_limit boolean, p_traceparent text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.create_jobs(p_jobs jsonb, p_dedupe boolean, p_enforce_limit boolean, p_traceparent text) TO service_role;

REVOKE ALL ON FUNCTION public.ensure_partitions(p_ahead interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.ensure_partitions(p_ahead interval) TO service_role;

REVOKE ALL ON FUNCTION public.erase_user(p_user_id uuid, p_limit integer, p_anew boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.erase_user(p_user_id uuid, p_limit integer, p_anew boolean) TO service_role;

REVOKE ALL ON FUNCTION public.expire_stale_jobs(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.expire_stale_jobs(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.explain_job_wait(p_job_id uuid, p_user_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.explain_job_wait(p_job_id uuid, p_user_id uuid) TO authenticated;
GRANT ALL ON FUNCTION public.explain_job_wait(p_job_id uuid, p_user_id uuid) TO service_role;

REVOKE ALL ON FUNCTION public.fail_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_failures jsonb[], p_started_at timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.fail_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_failures jsonb[], p_started_at timestamp with time zone[]) TO service_role;

REVOKE ALL ON FUNCTION public.find_or_create_job(p_user_id uuid, p_job_type text, p_params jsonb, p_dedupe_window interval, p_traceparent text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.find_or_create_job(p_user_id uuid, p_job_type text, p_params jsonb, p_dedupe_window interval, p_traceparent text) TO authenticated;
GRANT ALL ON FUNCTION public.find_or_create_job(p_user_id uuid, p_job_type text, p_params jsonb, p_dedupe_window interval, p_traceparent text) TO service_role;

REVOKE ALL ON FUNCTION public.forget_idempotency_keys(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.forget_idempotency_keys(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.get_archive() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_archive() TO service_role;

REVOKE ALL ON FUNCTION public.get_archive_files() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_archive_files() TO service_role;

REVOKE ALL ON FUNCTION public.get_cached_job_result(p_user_id uuid, p_job_type text, p_params jsonb, p_cache_ttl interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_cached_job_result(p_user_id uuid, p_job_type text, p_params jsonb, p_cache_ttl interval) TO authenticated;
GRANT ALL ON FUNCTION public.get_cached_job_result(p_user_id uuid, p_job_type text, p_params jsonb, p_cache_ttl interval) TO service_role;

REVOKE ALL ON FUNCTION public.get_index_bloat() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_index_bloat() TO service_role;

REVOKE ALL ON FUNCTION public.get_index_usage() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_index_usage() TO service_role;

REVOKE ALL ON FUNCTION public.get_job(p_job_id uuid, p_user_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_job(p_job_id uuid, p_user_id uuid) TO authenticated;
GRANT ALL ON FUNCTION public.get_job(p_job_id uuid, p_user_id uuid) TO service_role;

REVOKE ALL ON FUNCTION public.get_job_logs(p_job_id uuid, p_user_id uuid, p_log_level text, p_limit integer, p_cursor text, p_since timestamp with time zone, p_until timestamp with time zone, p_metadata jsonb, p_search text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_job_logs(p_job_id uuid, p_user_id uuid, p_log_level text, p_limit integer, p_cursor text, p_since timestamp with time zone, p_until timestamp with time zone, p_metadata jsonb, p_search text) TO authenticated;
GRANT ALL ON FUNCTION public.get_job_logs(p_job_id uuid, p_user_id uuid, p_log_level text, p_limit integer, p_cursor text, p_since timestamp with time zone, p_until timestamp with time zone, p_metadata jsonb, p_search text) TO service_role;

REVOKE ALL ON FUNCTION public.get_job_queue_alerts(p_pending bigint, p_processing interval, p_failure_rate double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_job_queue_alerts(p_pending bigint, p_processing interval, p_failure_rate double precision) TO service_role;

REVOKE ALL ON FUNCTION public.get_job_queue_metrics(p_ages boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_job_queue_metrics(p_ages boolean) TO service_role;

REVOKE ALL ON FUNCTION public.get_job_queue_stats(p_since timestamp with time zone, p_job_type text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_job_queue_stats(p_since timestamp with time zone, p_job_type text) TO service_role;

REVOKE ALL ON FUNCTION public.get_job_result(p_job_id uuid, p_user_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_job_result(p_job_id uuid, p_user_id uuid) TO authenticated;
GRANT ALL ON FUNCTION public.get_job_result(p_job_id uuid, p_user_id uuid) TO service_role;

REVOKE ALL ON FUNCTION public.get_maintenance() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_maintenance() TO service_role;

REVOKE ALL ON FUNCTION public.get_maintenance_runs(p_duty text, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_maintenance_runs(p_duty text, p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.get_pauses() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_pauses() TO service_role;

REVOKE ALL ON FUNCTION public.get_reports(p_kind text, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_reports(p_kind text, p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.get_slow_statements(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_slow_statements(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.get_table_health() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_table_health() TO service_role;

REVOKE ALL ON FUNCTION public.get_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_limit integer, p_offset integer, p_order_by text, p_order_dir text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_limit integer, p_offset integer, p_order_by text, p_order_dir text) TO authenticated;
GRANT ALL ON FUNCTION public.get_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_limit integer, p_offset integer, p_order_by text, p_order_dir text) TO service_role;

REVOKE ALL ON FUNCTION public.get_user_jobs_by_bucket(p_user_id uuid, p_bucket text, p_page integer, p_status text, p_job_type text, p_limit integer, p_cursor text, p_time_zone text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_user_jobs_by_bucket(p_user_id uuid, p_bucket text, p_page integer, p_status text, p_job_type text, p_limit integer, p_cursor text, p_time_zone text) TO authenticated;
GRANT ALL ON FUNCTION public.get_user_jobs_by_bucket(p_user_id uuid, p_bucket text, p_page integer, p_status text, p_job_type text, p_limit integer, p_cursor text, p_time_zone text) TO service_role;

REVOKE ALL ON FUNCTION public.get_user_jobs_by_cursor(p_user_id uuid, p_cursor text, p_status text, p_job_type text, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_user_jobs_by_cursor(p_user_id uuid, p_cursor text, p_status text, p_job_type text, p_limit integer) TO authenticated;
GRANT ALL ON FUNCTION public.get_user_jobs_by_cursor(p_user_id uuid, p_cursor text, p_status text, p_job_type text, p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.get_workers() FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_workers() TO service_role;

REVOKE ALL ON FUNCTION public.heartbeat_worker(p_worker_id text, p_job_types text[], p_lease interval, p_job_ids uuid[], p_tokens bigint[], p_metadata jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.heartbeat_worker(p_worker_id text, p_job_types text[], p_lease interval, p_job_ids uuid[], p_tokens bigint[], p_metadata jsonb) TO service_role;

REVOKE ALL ON FUNCTION public.hold_claim(p_worker_id text, p_token bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hold_claim(p_worker_id text, p_token bigint) TO service_role;

REVOKE ALL ON FUNCTION public.keep_claim(p_worker_id text, p_token bigint, p_in_transaction boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.keep_claim(p_worker_id text, p_token bigint, p_in_transaction boolean) TO service_role;

REVOKE ALL ON FUNCTION public.lease_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_started_at timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.lease_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_started_at timestamp with time zone[]) TO service_role;

REVOKE ALL ON FUNCTION public.make_report(p_kind text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.make_report(p_kind text) TO service_role;

REVOKE ALL ON FUNCTION public.pause_jobs(p_job_type text, p_user_id uuid, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.pause_jobs(p_job_type text, p_user_id uuid, p_reason text) TO service_role;

REVOKE ALL ON FUNCTION public.recount_stats() FROM PUBLIC;
GRANT ALL ON FUNCTION public.recount_stats() TO service_role;

REVOKE ALL ON FUNCTION public.recover_broken_claims() FROM PUBLIC;
GRANT ALL ON FUNCTION public.recover_broken_claims() TO service_role;

REVOKE ALL ON FUNCTION public.recover_stuck_jobs(p_not_after timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.recover_stuck_jobs(p_not_after timestamp with time zone) TO service_role;

REVOKE ALL ON FUNCTION public.register_job_type(p_name text, p_cache_ttl interval, p_dedupe_window interval, p_max_attempts integer, p_backoff_base interval, p_backoff_max interval, p_timeout interval, p_max_live_jobs integer, p_priority integer, p_expires_after interval, p_retention interval, p_log_retention interval, p_max_params_bytes integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.register_job_type(p_name text, p_cache_ttl interval, p_dedupe_window interval, p_max_attempts integer, p_backoff_base interval, p_backoff_max interval, p_timeout interval, p_max_live_jobs integer, p_priority integer, p_expires_after interval, p_retention interval, p_log_retention interval, p_max_params_bytes integer) TO service_role;

REVOKE ALL ON FUNCTION public.release_forgotten_claims(p_worker_id text, p_tokens bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.release_forgotten_claims(p_worker_id text, p_tokens bigint[]) TO service_role;

REVOKE ALL ON FUNCTION public.release_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.release_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[]) TO service_role;

REVOKE ALL ON FUNCTION public.report_job_progress(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_progress real[], p_messages text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.report_job_progress(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_progress real[], p_messages text[]) TO service_role;

REVOKE ALL ON FUNCTION public.request_job(p_user_id uuid, p_job_type text, p_params jsonb, p_priority integer, p_scheduled_for timestamp with time zone, p_force boolean, p_idempotency_key text, p_dedupe_window interval, p_cache_ttl interval, p_enforce_limit boolean, p_traceparent text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.request_job(p_user_id uuid, p_job_type text, p_params jsonb, p_priority integer, p_scheduled_for timestamp with time zone, p_force boolean, p_idempotency_key text, p_dedupe_window interval, p_cache_ttl interval, p_enforce_limit boolean, p_traceparent text) TO authenticated;
GRANT ALL ON FUNCTION public.request_job(p_user_id uuid, p_job_type text, p_params jsonb, p_priority integer, p_scheduled_for timestamp with time zone, p_force boolean, p_idempotency_key text, p_dedupe_window interval, p_cache_ttl interval, p_enforce_limit boolean, p_traceparent text) TO service_role;

REVOKE ALL ON FUNCTION public.request_jobs(p_requests jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.request_jobs(p_requests jsonb) TO service_role;

REVOKE ALL ON FUNCTION public.resume_jobs(p_job_type text, p_user_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.resume_jobs(p_job_type text, p_user_id uuid) TO service_role;

REVOKE ALL ON FUNCTION public.retry_failed_jobs(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.retry_failed_jobs(p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION public.retry_jobs(p_user_id uuid, p_job_ids uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.retry_jobs(p_user_id uuid, p_job_ids uuid[]) TO authenticated;
GRANT ALL ON FUNCTION public.retry_jobs(p_user_id uuid, p_job_ids uuid[]) TO service_role;

REVOKE ALL ON FUNCTION public.search_jobs(p_user_id uuid, p_params jsonb, p_result jsonb, p_status text, p_job_type text, p_limit integer, p_cursor text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.search_jobs(p_user_id uuid, p_params jsonb, p_result jsonb, p_status text, p_job_type text, p_limit integer, p_cursor text) TO authenticated;
GRANT ALL ON FUNCTION public.search_jobs(p_user_id uuid, p_params jsonb, p_result jsonb, p_status text, p_job_type text, p_limit integer, p_cursor text) TO service_role;

REVOKE ALL ON FUNCTION public.set_archive(p_url text, p_archive_id uuid, p_discard boolean, p_this_is text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.set_archive(p_url text, p_archive_id uuid, p_discard boolean, p_this_is text) TO service_role;

REVOKE ALL ON FUNCTION public.set_maintenance_duty(p_duty text, p_schedule text, p_enabled boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.set_maintenance_duty(p_duty text, p_schedule text, p_enabled boolean) TO service_role;

REVOKE ALL ON FUNCTION public.set_user_limit(p_user_id uuid, p_max_live_jobs integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.set_user_limit(p_user_id uuid, p_max_live_jobs integer) TO service_role;

REVOKE ALL ON FUNCTION public.unregister_worker(p_worker_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.unregister_worker(p_worker_id text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.apply_failures(p_worker_id text, p_job_ids uuid[], p_failures jsonb[], p_started_at timestamp with time zone[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.archive_days(p_source text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.archive_days(p_source text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.archived_time(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.attach_leaf(p_parent text, p_name text, p_lower timestamp with time zone, p_upper timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.authorize(p_user_id uuid, p_all_allowed boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.awaits_archive(p_partition_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.awaits_archive(p_partition_name text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.begin_archive_file(p_fence bigint, p_kind text, p_source text, p_day date, p_url text, p_key text, p_replaces bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.begin_archive_file(p_fence bigint, p_kind text, p_source text, p_day date, p_url text, p_key text, p_replaces bigint) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.begin_duty(p_fence bigint, p_duty text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.begin_duty(p_fence bigint, p_duty text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.beside_before(p_list jsonb, p_before jsonb, p_keys text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_batch_size(p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_contained(p_field text, p_value jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_job_ids(p_job_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_page(p_limit integer, p_status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_patience(p_patience interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_request(p_prefix text, p_user_id uuid, p_params jsonb, p_max_params_bytes integer, p_priority integer, p_scheduled_for timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.check_window(p_field text, p_window interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.count_jobs(p_sign integer, p_job_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.count_partition(p_partition_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.count_partition(p_partition_name text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.count_recovered(p_outcome text, p_job_types text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.count_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_from timestamp with time zone, p_end timestamp with time zone, p_most bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.counted_jobs() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.counted_kind(p_kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.counts_of(p_status text, p_jobs bigint, p_waiting_us bigint, p_processing_us bigint, p_waited smallint[], p_processed smallint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.create_staged_jobs(p_batch uuid, p_dedupe boolean, p_enforce_limit boolean, p_traceparent text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.create_staged_jobs(p_batch uuid, p_dedupe boolean, p_enforce_limit boolean, p_traceparent text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.cursor_of(p_id uuid, p_filter text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.day_figures(p_day timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.day_of_id(p_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.delete_jobs(p_job_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.drop_from_claims(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_keep uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.drop_partition(p_partition_name text, p_patience interval) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.drop_partition(p_partition_name text, p_patience interval) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.due_priorities(p_job_types text[], p_now timestamp with time zone, p_below uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.duration_us(p_from timestamp with time zone, p_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.end_archive_file(p_fence bigint, p_file_id bigint, p_row_count bigint, p_byte_count bigint, p_checksum numeric) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.end_archive_file(p_fence bigint, p_file_id bigint, p_row_count bigint, p_byte_count bigint, p_checksum numeric) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.end_duty(p_fence bigint, p_leader_id text, p_duty text, p_started_at timestamp with time zone, p_done bigint, p_error text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.end_duty(p_fence bigint, p_leader_id text, p_duty text, p_started_at timestamp with time zone, p_done bigint, p_error text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.live_claims() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.new_id() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.now() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.now() TO service_role;

GRANT SELECT ON TABLE public.job_queue TO authenticated;
GRANT SELECT ON TABLE public.job_queue TO service_role;

REVOKE ALL ON FUNCTION streamvibe.ended_jobs(p_user_id uuid, p_status text, p_job_type text, p_below uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.erasures() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.erasures() TO service_role;

REVOKE ALL ON FUNCTION streamvibe.find_jobs(p_user_id uuid, p_params jsonb, p_result jsonb, p_status text, p_job_type text, p_below uuid, p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.id_time(p_id uuid) FROM PUBLIC;

GRANT SELECT ON TABLE public.job_log TO authenticated;
GRANT SELECT ON TABLE public.job_log TO service_role;

REVOKE ALL ON FUNCTION streamvibe.find_log_lines(p_job_id uuid, p_user_id uuid, p_log_level text, p_from uuid, p_below uuid, p_metadata jsonb, p_query tsquery, p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.find_same_work(p_user_id uuid, p_job_type text, p_params jsonb, p_cached_since timestamp with time zone, p_live_since timestamp with time zone, p_due timestamp with time zone, p_below uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.finish_archive(p_fence bigint, p_source text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.finish_archive(p_fence bigint, p_source text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.finish_erasure(p_fence bigint, p_user_id uuid, p_before_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.finish_erasure(p_fence bigint, p_user_id uuid, p_before_id uuid) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.forget_archive_file(p_fence bigint, p_file_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.forget_archive_file(p_fence bigint, p_file_id bigint) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.forget_leaves(p_leaf_numbers bigint[], p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.has_open_jobs(p_from uuid, p_before uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.has_room(p_user_id uuid, p_job_type text, p_max_live_jobs integer, p_max_live_jobs_of_type integer, p_below uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.has_unplaced_sums() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.has_wild_number(p_document jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.held_jobs(p_worker_id text, p_tokens bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.histogram_bound(p_bucket smallint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.histogram_bounds() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.id_bound(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.id_floor(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.identity_hash(p_user_id uuid, p_job_type text, p_params jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.in_utc(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.index_pages(p_leaf_pages bigint, p_leaf_density double precision, p_internal_pages bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.indexes_to_rebuild() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.indexes_to_rebuild() TO service_role;

REVOKE ALL ON FUNCTION streamvibe.is_held(p_job_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.is_service() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.known_job_type(p_job_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lead_archive(p_holder text, p_lease interval) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.lead_archive(p_holder text, p_lease interval) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.lead_maintenance(p_leader_id text, p_lease interval) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.lead_maintenance(p_leader_id text, p_lease interval) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.leaf_index_bloat(p_suspicious_only boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.leaf_of_name(p_partition_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.leave_pages_uncompressed() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lock_account(p_user_id uuid, p_default integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lock_claims(p_worker_id text, p_tokens bigint[], p_sizes integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lock_due_jobs(p_job_types text[], p_lows bigint[], p_highs bigint[], p_limit integer, p_alone boolean, p_besides uuid[], p_now timestamp with time zone, p_below uuid, p_paused_users uuid[], p_only uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lock_held_jobs(p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_sizes integer[], OUT since timestamp with time zone[], OUT locked uuid[], OUT processing uuid[], OUT busy uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lock_jobs(p_job_ids uuid[], OUT locked uuid[], OUT processing uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.lock_soon(p_tables text, p_mode text, p_patience interval, p_try interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.look_at_live_jobs(p_user_id uuid, p_job_type text, p_most integer, p_below uuid, OUT jobs bigint, OUT jobs_of_type bigint, OUT last_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.low_water(p_job_types text[], p_started timestamp with time zone, OUT seen_us bigint, OUT seen_rank bigint, OUT until_us bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.make_id(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.make_id(p_us bigint, p_random bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.make_leaf(p_parent text, p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.microseconds(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.minute_of(p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.next_turn(p_last_at timestamp with time zone, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.next_turns(p_user_ids uuid[], p_job_types text[], p_now timestamp with time zone, p_below uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.not_paused(p_job_types text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.note_low_water(p_low_water record, p_job_types text[], p_started timestamp with time zone, p_now timestamp with time zone, p_rows integer, p_last_rank bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.old_partitions() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.old_partitions() TO service_role;

REVOKE ALL ON FUNCTION streamvibe.oldest_due(p_job_types text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.open_archive_rows(p_source text, p_day date) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.open_archive_rows(p_source text, p_day date) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.open_leaves(p_parent text, p_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.own_functions() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.own_relations() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.page_of_jobs(p_job_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.parents_to_analyze() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.parents_to_analyze() TO service_role;

REVOKE ALL ON FUNCTION streamvibe.pause_key(p_job_type text, p_user_id uuid, OUT kind text, OUT name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.period_figures(p_from timestamp with time zone, p_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.pgstattuple_function(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.pickup_order(p_waited integer[], p_odd boolean, p_now timestamp with time zone, p_seen_us bigint, p_seen_rank bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.pickup_rank(p_priority smallint, p_scheduled_for timestamp with time zone, p_created_at timestamp with time zone, p_turn integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.place_sums(p_partition_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.place_sums(p_partition_name text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.plan_leaving(p_fence bigint, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.plan_leaving(p_fence bigint, p_limit integer) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.put_back(p_job_ids uuid[], p_isolated boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.raise_error(p_code text, p_field text, p_received text, p_message text, p_fix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.random_bits() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.read_cursor(p_cursor text, p_filter text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.readable_traceparent(p_traceparent text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.refuse_copy() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.refuse_held_claim() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.refuse_unreadable_job(p_jobs jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.register_duties(p_fence bigint, p_names text[], p_schedules text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.register_duties(p_fence bigint, p_names text[], p_schedules text[]) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.reject_archive_file(p_fence bigint, p_file_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.reject_archive_file(p_fence bigint, p_file_id bigint) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.remember_key(p_user_id uuid, p_idempotency_key text, p_job_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.remove_jobs(p_job_ids uuid[], p_ended boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.remove_jobs_soon(p_job_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.replace_archive_file(p_fence bigint, p_file_id bigint, p_by bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.replace_archive_file(p_fence bigint, p_file_id bigint, p_by bigint) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.report_content(p_from timestamp with time zone, p_to timestamp with time zone, p_before jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.report_growth(p_now timestamp with time zone, p_before jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.report_indexes(p_before jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.report_statements(p_before jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.report_tables() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.report_unit(p_kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.require_archiver(p_fence bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.require_leader(p_fence bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.require_partition(p_parent text, p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.require_read_committed(p_what text, p_fix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.require_service(p_function text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.resign_archive(p_fence bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.resign_archive(p_fence bigint) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.resign_maintenance(p_leader_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.resign_maintenance(p_leader_id text) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.retry_job(p_user_id uuid, p_job_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.seal_partition(p_partition_name text, p_patience interval) FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.seal_partition(p_partition_name text, p_patience interval) TO service_role;

REVOKE ALL ON FUNCTION streamvibe.sealed_leaf(p_partition_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.sketch_bucket(p_from timestamp with time zone, p_to timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.sketch_groups(p_job_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.sketch_seconds(p_bucket smallint) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.sketch_total(p_job_type text, p_measure text, p_group integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.stat_since(p_since timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.statuses_now(p_job_ids uuid[], p_busy uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.stored_statuses(p_status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.tables_to_pack() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.tables_to_vacuum() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.tables_to_vacuum() TO service_role;

REVOKE ALL ON FUNCTION streamvibe.this_database() FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.total_of_user_jobs(p_user_id uuid, p_status text, p_job_type text, p_from timestamp with time zone, p_end timestamp with time zone, OUT total bigint, OUT age interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.try_lock_account(p_user_id uuid, p_patience text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.unfinished_archive_files() FROM PUBLIC;
GRANT ALL ON FUNCTION streamvibe.unfinished_archive_files() TO service_role;

REVOKE ALL ON FUNCTION streamvibe.unreadable_field(p_request jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.user_job_ids(p_user_id uuid, p_status text, p_job_type text, p_from uuid, p_below uuid, p_limit integer, p_offset integer, p_newest_first boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.wake_workers(p_job_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION streamvibe.without_literals(p_statement text) FROM PUBLIC;

GRANT SELECT ON TABLE creators.content TO service_role;

GRANT SELECT ON TABLE creators.creator TO service_role;

GRANT INSERT ON TABLE streamvibe.staging TO service_role;
