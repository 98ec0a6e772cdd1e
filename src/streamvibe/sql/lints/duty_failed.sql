-- A duty of maintenance fails
-- What it would do is not done; the same error comes at every turn until its cause is gone.
SELECT 'critical' AS severity, d.name AS subject, 'failed at ' || date_trunc('second', d.last_ended_at) || ': ' || left(d.last_error, 300) AS measured,
       'streamvibe maintain runs ' || d.name AS fix
FROM streamvibe.duty d
WHERE d.enabled AND d.last_error IS NOT NULL
