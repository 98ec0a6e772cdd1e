-- A setting of the server hurts the queue
-- Without fsync or full_page_writes a crash can destroy the database; without synchronous_commit a job that was accepted can be
-- lost; small memory and checkpoint settings make the same work cost several times as much. Whoever plans anew, as all sessions do
-- after a partition was vacuumed, locks every index of every partition: without room for that, "out of shared memory" is the answer.
SELECT f.severity, s.name AS subject, s.name || ' = ' || current_setting(s.name) || '; ' || f.says AS measured,
       format('ALTER SYSTEM SET %s = %L; %s', s.name, coalesce(f.better, (64 * ceil(l.locks * l.sessions / 32.0 / l.places))::text),
              CASE s.context WHEN 'postmaster' THEN '-- then restart PostgreSQL' ELSE 'SELECT pg_reload_conf();' END) AS fix
FROM pg_settings s
JOIN (VALUES
    ('fsync', 'critical', 'a crash of the machine can destroy the database', 'on'),
    ('full_page_writes', 'critical', 'a crash of the machine can destroy the database', 'on'),
    ('synchronous_commit', 'warning', 'a crash loses what was committed in the last moments', 'on'),
    ('max_wal_size', 'warning', 'checkpoints come so often that most pages are written twice', '4GB'),
    ('work_mem', 'notice', 'sorts and hashes of a few thousand jobs go to disk', '16MB'),
    ('maintenance_work_mem', 'notice', 'vacuum and index builds go over their table several times', '256MB'),
    ('autovacuum_vacuum_cost_delay', 'warning', 'autovacuum sleeps most of its time', '2ms'),
    ('autovacuum_max_workers', 'notice', 'one large table keeps the others waiting', '3'),
    ('max_locks_per_transaction', 'warning', 'sessions that plan anew at the same time may find no room for their locks', NULL)
) f(name, severity, says, better) ON f.name = s.name
CROSS JOIN (
    SELECT (SELECT count(*) FROM streamvibe.partition p WHERE p.parent_name = 'job_queue')
           * (1 + (SELECT count(*) FROM pg_index i WHERE i.indrelid = 'public.job_queue'::regclass)) AS locks,
           greatest((SELECT count(*) FROM pg_stat_activity a
                     WHERE a.datname = current_database() AND a.backend_type = 'client backend'), 20) AS sessions,
           current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint AS places
) l
WHERE CASE s.name
      WHEN 'fsync' THEN s.setting = 'off'
      WHEN 'full_page_writes' THEN s.setting = 'off'
      WHEN 'synchronous_commit' THEN s.setting = 'off'
      WHEN 'max_wal_size' THEN s.setting::bigint < 512
      WHEN 'work_mem' THEN s.setting::bigint < 2048
      WHEN 'maintenance_work_mem' THEN s.setting::bigint < 32768
      WHEN 'autovacuum_vacuum_cost_delay' THEN s.setting::real >= 10
      WHEN 'autovacuum_max_workers' THEN s.setting::integer < 2
      WHEN 'max_locks_per_transaction' THEN s.setting::bigint * l.places < l.locks * l.sessions END
