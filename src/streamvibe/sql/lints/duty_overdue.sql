-- A duty of maintenance has not run for a day
-- Its schedule is rare, it waits behind another one, or its process hangs.
SELECT 'warning' AS severity, d.name AS subject,
       CASE WHEN d.last_started_at IS NULL THEN 'it never ran' ELSE 'it last ran at ' || date_trunc('second', d.last_started_at) END
       || '; its schedule is ' || coalesce(d.schedule, d.usual_schedule) AS measured,
       format('SELECT set_maintenance_duty(%L, '''')', d.name) AS fix
FROM streamvibe.duty d
WHERE d.enabled AND d.schedule IS NOT NULL
  AND coalesce(d.last_started_at, '-infinity') < streamvibe.now() - interval '1 day'
