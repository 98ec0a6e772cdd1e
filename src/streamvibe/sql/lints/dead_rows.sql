-- Autovacuum does not keep up
-- Dead rows are read past by every query of the table, and their space is not used again.
SELECT CASE WHEN h.dead_rows > 5000000 THEN 'critical' ELSE 'warning' END AS severity, h.table_name AS subject,
       h.dead_rows || ' dead rows beside ' || h.live_rows || ' live ones; last vacuumed '
       || coalesce('at ' || date_trunc('second', h.last_vacuum), 'never') AS measured,
       format('VACUUM (ANALYZE) %s', h.worst_table) AS fix
FROM get_table_health() h
WHERE h.dead_rows > 50000 AND h.dead_rows > h.live_rows / 4
  AND coalesce(h.last_vacuum, '-infinity') < clock_timestamp() - interval '10 minutes'
