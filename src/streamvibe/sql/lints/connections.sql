-- Connections are running out
-- The next client, worker or operator is refused; a pooler shares a few between many.
SELECT CASE WHEN c.used >= 0.95 * c.most THEN 'critical' ELSE 'warning' END AS severity, 'connections' AS subject,
       c.used || ' of ' || c.most || ' are in use; most by ' || coalesce(b.name, 'nobody in particular') || ' (' || b.n || ')' AS measured,
       'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = ''idle'' AND state_change < now() - interval ''1 hour''' AS fix
FROM (SELECT count(*) AS used,
             current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer AS most
      FROM pg_stat_activity WHERE backend_type = 'client backend') c
CROSS JOIN LATERAL (SELECT nullif(a.application_name, '') AS name, count(*) AS n FROM pg_stat_activity a
                    WHERE a.backend_type = 'client backend' GROUP BY 1 ORDER BY 2 DESC LIMIT 1) b
WHERE c.used >= 0.8 * c.most
