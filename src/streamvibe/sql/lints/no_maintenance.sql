-- Nobody does maintenance
-- Jobs of dead workers stay held, failed jobs are not retried, no partition is made ahead, and nothing is cleaned up.
SELECT 'critical' AS severity, 'maintenance' AS subject,
       CASE WHEN l.led_since IS NULL THEN 'no process ever led'
            ELSE coalesce(l.leader_id, 'the last leader') || ' stopped leading'
                 || CASE WHEN isfinite(l.expires_at) THEN ' at ' || date_trunc('second', l.expires_at) ELSE '' END END AS measured,
       'streamvibe up' AS fix
FROM streamvibe.leader l
WHERE l.leader_id IS NULL OR l.expires_at < streamvibe.now()
