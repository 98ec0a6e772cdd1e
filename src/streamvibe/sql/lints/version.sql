-- This version of PostgreSQL is not supported
-- StreamVibe is tested on PostgreSQL 15 to 18.
SELECT 'warning' AS severity, 'PostgreSQL' AS subject, current_setting('server_version') AS measured,
       'Move to PostgreSQL 18, or to the newest release of 15, 16 or 17' AS fix
WHERE current_setting('server_version_num')::integer NOT BETWEEN 150000 AND 189999
