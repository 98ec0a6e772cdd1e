-- A dead worker holds jobs
-- They run nowhere, and are taken back by maintenance within seconds: nobody does it, or somebody else has their rows locked.
SELECT 'critical' AS severity, 'worker ' || w.worker_id AS subject,
       w.claimed_jobs || ' jobs since its last heartbeat at ' || date_trunc('second', w.heartbeat_at) AS measured,
       'SELECT * FROM recover_stuck_jobs()' AS fix
FROM get_workers() w
WHERE NOT w.is_alive AND w.claimed_jobs > 0 AND w.heartbeat_at < streamvibe.now() - interval '1 minute'
