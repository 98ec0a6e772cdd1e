-- Turn one batch of streamvibe.staging into jobs and empty it. What create_jobs() and COPY both end in.
-- Call it in the transaction that filled the batch. Contract: see create_jobs.
-- Its parameters or columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS streamvibe.create_staged_jobs(uuid, boolean, boolean);
CREATE OR REPLACE FUNCTION streamvibe.create_staged_jobs(
    p_batch uuid, p_dedupe boolean DEFAULT false, p_enforce_limit boolean DEFAULT false,
    p_traceparent text DEFAULT NULL
) RETURNS TABLE (ordinal integer, job_id uuid, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- The staging table looks empty to the planner once it was vacuumed, and nested loops over a batch of
    -- thousands are quadratic. What must be looked up row by row is, in subqueries and functions.
    SET enable_nestloop = off
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
