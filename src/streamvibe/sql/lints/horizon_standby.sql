-- A query on a standby holds back vacuum here
-- hot_standby_feedback sends its horizon to this server: rows that ended since it began cannot be removed.
SELECT 'warning' AS severity, 'standby ' || coalesce(nullif(r.application_name, ''), r.client_addr::text, r.pid::text) AS subject,
       'its horizon is ' || age(r.backend_xmin) || ' transactions old' AS measured,
       'End the query on the standby: SELECT pid, query FROM pg_stat_activity ORDER BY xact_start LIMIT 1' AS fix
FROM pg_stat_replication r
WHERE age(r.backend_xmin) > 10000
