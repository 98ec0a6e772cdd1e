-- A replication slot holds back vacuum, or fills the disk
-- Its standby or subscriber is away: rows that ended since it was heard of cannot be removed, and write-ahead log is kept for it.
SELECT 'critical' AS severity, 'replication slot ' || s.slot_name AS subject,
       CASE WHEN s.active THEN 'in use; keeps ' ELSE 'inactive; keeps ' END || pg_size_pretty(pg_wal_lsn_diff(w.lsn, s.restart_lsn)) || ' of write-ahead log'
       || coalesce(', horizon ' || greatest(age(s.xmin), age(s.catalog_xmin)) || ' transactions old', '') AS measured,
       CASE WHEN s.active THEN 'End the query on the standby: SELECT pid, query FROM pg_stat_activity ORDER BY xact_start LIMIT 1'
            ELSE format('SELECT pg_drop_replication_slot(%L)', s.slot_name) END AS fix
FROM pg_replication_slots s
CROSS JOIN LATERAL (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) w
-- A standby with hot_standby_feedback keeps its horizon in its slot.
WHERE greatest(age(s.xmin), age(s.catalog_xmin)) > 10000
   OR NOT s.active AND pg_wal_lsn_diff(w.lsn, s.restart_lsn) > 100 * 1024 * 1024
