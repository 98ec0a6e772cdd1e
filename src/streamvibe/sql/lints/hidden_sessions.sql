-- Other roles' sessions are hidden from this role
-- A forgotten transaction that holds back vacuum, or who uses up the connections, cannot be seen.
SELECT 'warning' AS severity, 'role ' || current_user AS subject, 'not a member of pg_read_all_stats' AS measured,
       format('GRANT pg_read_all_stats TO %I', current_user) AS fix
WHERE NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
