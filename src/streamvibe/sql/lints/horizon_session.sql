-- A session holds back vacuum
-- Rows that were finished or deleted since it began cannot be removed: claims, lists and statistics read past them. Claims
-- remember how far they came, so they stay fast for a while; at about a million dead rows they take tens of milliseconds.
SELECT CASE WHEN h.open_for > interval '1 hour' OR h.dead > 1000000 THEN 'critical' ELSE 'warning' END AS severity,
       'pid ' || a.pid || coalesce(', user ' || a.usename, '') || coalesce(', ' || nullif(a.application_name, ''), '') AS subject,
       'its transaction is open for ' || date_trunc('second', h.open_for) || ' (' || coalesce(a.state, 'state hidden') || '); last statement: '
       || coalesce(nullif(left(regexp_replace(a.query, '\s+', ' ', 'g'), 120), ''), 'hidden') || '; '
       || h.dead || ' dead rows in the queue, ' || round(h.dead / greatest(extract(epoch FROM h.open_for), 1))
       || ' a second since it began, a million in '
       || CASE WHEN h.dead > 0 AND h.dead < 1000000
               THEN date_trunc('second', make_interval(secs => ((1000000 - h.dead) * extract(epoch FROM h.open_for) / h.dead)::double precision))::text
               WHEN h.dead >= 1000000 THEN 'no time' ELSE 'no foreseeable time' END AS measured,
       format('SELECT pg_terminate_backend(%s)', a.pid) AS fix
FROM pg_stat_activity a
CROSS JOIN LATERAL (
    SELECT clock_timestamp() - a.xact_start AS open_for,
           (SELECT coalesce(sum(s.n_dead_tup), 0) FROM pg_stat_user_tables s WHERE s.schemaname IN ('streamvibe', 'public')
               AND (s.relname LIKE 'job\_queue\_%' OR s.relname LIKE 'job\_log\_%' OR s.schemaname = 'streamvibe')) AS dead) h
WHERE coalesce(a.backend_xid, a.backend_xmin) IS NOT NULL AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
  AND a.xact_start < clock_timestamp() - interval '5 minutes'
  -- A transaction elsewhere holds back only what it may read, which a catalogue snapshot may be.
  AND (a.datname = current_database() OR a.backend_xid IS NOT NULL)
