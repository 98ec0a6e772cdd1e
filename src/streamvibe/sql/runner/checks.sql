-- Refuse, by name and with the fix, a database that these migrations must not be applied to. Writes nothing.
-- Settings: streamvibe.known_migrations, a JSON list of {version, name, checksum}; streamvibe.known_functions, a
--           JSON list of the names of the public functions; streamvibe.release.
-- Raises:   SV013.
DO $$
DECLARE
    v_known     jsonb := current_setting('streamvibe.known_migrations')::jsonb;
    v_release   text := current_setting('streamvibe.release');
    v_empty     boolean := true;  -- nothing of ours was ever applied here
    v_ours      text[] := '{}';    -- the names of the functions that were applied here
    v_field     text;
    v_received  text;
    v_problem   text;
    v_fix       text;
BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        v_field := 'server_version';
        v_received := current_setting('server_version');
        v_problem := 'StreamVibe needs PostgreSQL 15 or newer';
        v_fix := 'Upgrade the server, or name another in STREAMVIBE_DATABASE_URL.';
    ELSIF current_setting('server_encoding') <> 'UTF8' THEN
        v_field := 'server_encoding';
        v_received := current_setting('server_encoding');
        v_problem := format('the database %s cannot hold every text', current_database());
        v_fix := 'Make one that can: CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0;';
    ELSIF pg_is_in_recovery() THEN
        v_field := 'database_url';
        v_received := 'a read-only replica';
        v_problem := 'a replica cannot be migrated';
        v_fix := 'Connect to the primary server.';
    END IF;

    IF v_problem IS NULL AND to_regclass('streamvibe.schema_migration') IS NOT NULL THEN
        v_empty := NOT EXISTS (SELECT FROM streamvibe.schema_migration a WHERE a.kind = 'migration');
        v_ours := ARRAY(SELECT substring(a.name FROM '([^/]+)\.sql$') FROM streamvibe.schema_migration a
                        WHERE a.kind = 'function');

        SELECT a.name, a.name,
               CASE WHEN a.version > coalesce((SELECT max((k.value ->> 'version')::integer)
                                               FROM jsonb_array_elements(v_known) k), 0)
                    THEN format('the database is newer than this release (%s)', v_release)
                    ELSE format('the database has a migration that this release (%s) does not have', v_release) END,
               format('Use StreamVibe %s or newer.', a.release)
        INTO v_field, v_received, v_problem, v_fix
        FROM streamvibe.schema_migration a
        WHERE a.kind = 'migration'
          AND NOT EXISTS (SELECT FROM jsonb_array_elements(v_known) k
                          WHERE (k.value ->> 'version')::integer = a.version)
        ORDER BY a.version DESC LIMIT 1;

        IF v_problem IS NULL THEN
            SELECT a.name, a.release, format('the database is newer than this release (%s)', v_release),
                   format('Use StreamVibe %s or newer.', a.release)
            INTO v_field, v_received, v_problem, v_fix
            FROM streamvibe.schema_migration a
            WHERE string_to_array(substring(a.release FROM '^\d+(?:\.\d+)*'), '.')::integer[]
                  > string_to_array(substring(v_release FROM '^\d+(?:\.\d+)*'), '.')::integer[]
            ORDER BY string_to_array(substring(a.release FROM '^\d+(?:\.\d+)*'), '.')::integer[] DESC, a.name LIMIT 1;
        END IF;

        IF v_problem IS NULL THEN
            SELECT k.value ->> 'name', format('checksum %s, applied here with %s',
                                              left(k.value ->> 'checksum', 12), left(a.checksum, 12)),
                   format('the released migration %s was edited (here it was applied as %s)',
                          k.value ->> 'name', a.name),
                   'Put the released file back, and make the change in a new migration.'
            INTO v_field, v_received, v_problem, v_fix
            FROM streamvibe.schema_migration a
            JOIN jsonb_array_elements(v_known) k ON (k.value ->> 'version')::integer = a.version
            WHERE a.kind = 'migration'
              AND (a.checksum, a.name) IS DISTINCT FROM (k.value ->> 'checksum', k.value ->> 'name')
            ORDER BY a.version LIMIT 1;
        END IF;

        IF v_problem IS NULL THEN
            SELECT k.value ->> 'name', k.value ->> 'name',
                   format('this migration is older than the newest one applied here (%s)', n.name),
                   'Give it the next free number.'
            INTO v_field, v_received, v_problem, v_fix
            FROM jsonb_array_elements(v_known) k
            CROSS JOIN (SELECT a.version, a.name FROM streamvibe.schema_migration a
                        WHERE a.kind = 'migration' ORDER BY a.version DESC LIMIT 1) n
            WHERE (k.value ->> 'version')::integer < n.version
              AND NOT EXISTS (SELECT FROM streamvibe.schema_migration a
                              WHERE a.kind = 'migration' AND a.version = (k.value ->> 'version')::integer)
            ORDER BY (k.value ->> 'version')::integer LIMIT 1;
        END IF;
    ELSIF v_problem IS NULL THEN
        SELECT 'streamvibe', 'schema streamvibe, which holds ' || c.relname,
               'there is a schema streamvibe that is not StreamVibe''s',
               'Rename that schema, or use another database. It was not touched.'
        INTO v_field, v_received, v_problem, v_fix
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'streamvibe' ORDER BY c.relname LIMIT 1;
    END IF;

    IF v_problem IS NULL AND v_empty THEN
        SELECT 'public.' || t.typname, 'public.' || t.typname || ', owned by ' || r.rolname,
               format('there is a public.%s that is not StreamVibe''s', t.typname),
               'Rename it, or use another database. It was not touched.'
        INTO v_field, v_received, v_problem, v_fix
        FROM pg_type t
        JOIN pg_namespace n ON n.oid = t.typnamespace
        JOIN pg_roles r ON r.oid = t.typowner
        WHERE n.nspname = 'public' AND t.typname IN ('job_queue', 'job_log')
        ORDER BY t.typname DESC LIMIT 1;
    END IF;

    -- Of an upgrade too: a release that brings a function of a new name must not replace the application's.
    IF v_problem IS NULL THEN
        SELECT 'public.' || p.proname, format('%s, owned by %s', p.oid::regprocedure, r.rolname),
               format('there is a function public.%s that is not StreamVibe''s', p.proname),
               'Rename it, or use another database. It was not touched.'
        INTO v_field, v_received, v_problem, v_fix
        FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_roles r ON r.oid = p.proowner
        WHERE n.nspname = 'public' AND current_setting('streamvibe.known_functions')::jsonb ? p.proname
          AND NOT p.proname = ANY (v_ours)
        ORDER BY p.proname LIMIT 1;
    END IF;

    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'SV013', MESSAGE = v_problem, DETAIL = 'Received: ' || v_received,
            HINT = v_fix, COLUMN = v_field;
    END IF;
END
$$;
