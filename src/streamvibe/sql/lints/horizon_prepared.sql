-- A prepared transaction holds back vacuum
-- It survives a restart, and nobody has to be connected for it: rows that ended since cannot be removed.
SELECT CASE WHEN p.prepared < clock_timestamp() - interval '1 hour' THEN 'critical' ELSE 'warning' END AS severity,
       'prepared transaction ' || p.gid AS subject,
       'prepared at ' || date_trunc('second', p.prepared) || ' by ' || p.owner || ' in ' || p.database || ', horizon '
       || age(p.transaction) || ' transactions old' AS measured,
       format('ROLLBACK PREPARED %L', p.gid) AS fix
FROM pg_prepared_xacts p
WHERE p.prepared < clock_timestamp() - interval '5 minutes'
