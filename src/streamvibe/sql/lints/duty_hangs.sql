-- A duty of maintenance has been running for long
-- It waits for a lock, has far too much to do, or its process hangs; none like it runs meanwhile.
SELECT 'warning' AS severity, d.name AS subject, 'it runs since ' || date_trunc('second', d.running_since) AS measured,
       'SELECT pid, wait_event_type, wait_event, query FROM pg_stat_activity WHERE application_name = ''streamvibe maintenance''' AS fix
FROM streamvibe.duty d
CROSS JOIN streamvibe.leader l
WHERE d.running_since < streamvibe.now() - interval '2 hours' AND l.expires_at >= streamvibe.now()
