-- What this database has and a restored dump of it, or a database that was made from it, has not: the number of its cluster and its own.
-- (A standby, and a cluster that was restored from files, have the same.)
CREATE OR REPLACE FUNCTION streamvibe.this_database() RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.system_identifier || '/' || d.oid
    FROM pg_control_system() c CROSS JOIN pg_database d WHERE d.datname = current_database()
$$;
