-- Autovacuum is off
-- Dead rows are never removed, statistics never renewed; in the end the server stops to protect itself.
SELECT 'critical' AS severity, s.name AS subject, s.name || ' = ' || s.setting AS measured,
       format('ALTER SYSTEM RESET %s; SELECT pg_reload_conf()', s.name) AS fix
FROM pg_settings s
WHERE s.name IN ('autovacuum', 'track_counts') AND s.setting = 'off'
UNION ALL
SELECT 'critical', c.oid::regclass::text, 'autovacuum_enabled = ' || o.option_value,
       format('ALTER TABLE %s RESET (autovacuum_enabled)', c.oid::regclass)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
WHERE (n.nspname = 'streamvibe' OR n.nspname = 'public' AND c.relname IN ('job_queue', 'job_log'))
  AND o.option_name = 'autovacuum_enabled' AND o.option_value IN ('false', 'off')
