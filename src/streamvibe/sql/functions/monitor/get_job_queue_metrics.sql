-- Everything that a monitoring system keeps of the queue, in one call: a row per number, in one snapshot.
-- metric, labels:
--   now                                 the database's clock, seconds since 1970
--   jobs (type, status)                 jobs in the queue, as readers see them
--   created (type)                      jobs created, since ever
--   ended (type, status)                times that jobs came to an end; a failed one that is retried ends again
--   waiting, processing (type, bound)   completed jobs by seconds from due to started, and to their end: above the bound before,
--                                       at most this one ('Infinity': the rest); within 1 % of a bound it may be the next one
--   waiting_seconds, processing_seconds (type)   sums of the same
--   failed (type, kind)                 attempts that failed, and jobs that expired; kinds that are not ours are 'other'
--   asked (type, outcome)               requests that made no job: 'joined' or 'cached'
--   recovered (type, outcome)           jobs taken back from workers that were gone: 'isolated', 'crashed' or 'released'
--   oldest_due_seconds (type)           since when the oldest job waits that could be claimed (streamvibe.oldest_due); 0 for a type
--                                       that is paused
--   workers (state)                     'alive' or 'dead'
--   leader                              1 while a process leads maintenance
--   duty_started (duty, schedule)       when it last began, seconds since 1970; no row before its first run or while disabled
--   duty_failed (duty)                  1 when its last run failed
--   horizon_transactions, horizon_seconds (holder)   how old the oldest snapshot is behind which dead rows cannot be removed, by
--                                       'session', 'prepared', 'slot' or 'standby'; 0: there is none
--   table_rows, table_dead_rows, table_bytes, table_index_bytes (table)   leaves added up
--   partitions_ahead_seconds (table)    for how long there are partitions
--   pauses (kind)                       what is paused: 'all', 'job_type' or 'user'
-- p_ages:  whether to look for oldest_due_seconds, which reads jobs: behind a forgotten transaction it may take long.
-- Reads:   the statistics and counters, and what compact_stats() has not yet added up; a few rows of jobs for each type.
-- Raises:  SV004.
CREATE OR REPLACE FUNCTION public.get_job_queue_metrics(p_ages boolean DEFAULT true)
    RETURNS TABLE (metric text, labels text[], value double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
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
