-- Partitions are missing ahead
-- Without one for the present no job can be asked for: clients make it themselves when they may, and fail when they may not.
SELECT CASE WHEN l.last < n.now + interval '1 day' THEN 'critical' ELSE 'warning' END AS severity, t.parent AS subject,
       coalesce('the last one ends at ' || l.last, 'there is none') AS measured, 'SELECT ensure_partitions()' AS fix
FROM (VALUES ('job_queue'), ('job_log')) t(parent)
CROSS JOIN (SELECT streamvibe.now() AS now) n
LEFT JOIN LATERAL (SELECT max(p.upper_at) AS last FROM streamvibe.partition p WHERE p.parent_name = t.parent) l ON true
WHERE (l.last > n.now + interval '2 weeks') IS NOT TRUE
