-- A duty of maintenance is disabled
-- An operator switched it off: what it would do is not done until it is enabled again.
SELECT 'notice' AS severity, d.name AS subject,
       'it last ran ' || coalesce('at ' || date_trunc('second', d.last_started_at), 'never') AS measured,
       'streamvibe maintain set ' || d.name || ' --enable' AS fix
FROM streamvibe.duty d
WHERE NOT d.enabled
