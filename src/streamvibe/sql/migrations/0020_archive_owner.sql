-- Which database the archive is that of (streamvibe.this_database()): a copy of it knows the place too, and must not write there.
ALTER TABLE streamvibe.setting ADD COLUMN archive_owner text COLLATE "C";
UPDATE streamvibe.setting s
SET archive_owner = (SELECT c.system_identifier || '/' || d.oid
                     FROM pg_catalog.pg_control_system() c
                     CROSS JOIN pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
WHERE s.archive_id IS NOT NULL;

-- It has one column more.
DROP FUNCTION IF EXISTS public.get_archive();
