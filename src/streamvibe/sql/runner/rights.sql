-- Refuse a role that could not finish the migration, naming the right and the GRANT that gives it; or that does not
-- own what is there already. Writes nothing.
-- Raises: SV013.
DO $$
DECLARE
    v_me      text := current_user;
    v_new     boolean := true;
    v_owner   text;
    v_missing text;
    v_right   text;
    v_fix     text;
BEGIN
    SELECT pg_get_userbyid(c.relowner) INTO v_owner
    FROM pg_class c
    WHERE c.oid = coalesce(to_regclass('public.job_queue'), to_regclass('streamvibe.schema_migration'));
    -- Also a superuser: a function of another owner would run with other rights than the tables it writes, and
    -- would not count as ours when the grants are made.
    IF v_owner <> v_me THEN
        RAISE EXCEPTION USING ERRCODE = 'SV013',
            MESSAGE = format('StreamVibe''s schema belongs to %s, and every migration has to run as that role', v_owner),
            DETAIL = 'Received: role ' || v_me, COLUMN = 'role',
            HINT = format('Connect as %s, or keep the connection and set PGOPTIONS=''-c role=%s''', v_owner, v_owner)
                || CASE WHEN pg_has_role(v_me::name, v_owner::name, 'MEMBER') THEN '.'
                        ELSE format(', once an administrator has run: GRANT %I TO %I;', v_owner, v_me) END;
    END IF;
    IF (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = v_me) THEN
        RETURN;
    END IF;
    SELECT string_agg(n.name, ', ' ORDER BY n.name) INTO v_missing
    FROM unnest(ARRAY['anon', 'authenticated', 'service_role']) AS n (name)
    WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = n.name);

    IF to_regclass('streamvibe.schema_migration') IS NOT NULL THEN
        v_new := NOT EXISTS (SELECT FROM streamvibe.schema_migration);
    END IF;

    IF v_new AND NOT has_database_privilege(current_database(), 'CREATE') THEN
        v_right := format('CREATE on the database %s', current_database());
        v_fix := format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), v_me);
    ELSIF NOT has_schema_privilege('public', 'CREATE') OR NOT has_schema_privilege('public', 'USAGE') THEN
        v_right := 'CREATE on the schema public';
        v_fix := format('GRANT USAGE, CREATE ON SCHEMA public TO %I;', v_me);
    ELSIF v_missing IS NOT NULL AND NOT (SELECT r.rolcreaterole FROM pg_roles r WHERE r.rolname = v_me) THEN
        v_right := format('CREATEROLE, to make the missing roles %s', v_missing);
        v_fix := format('ALTER ROLE %I CREATEROLE; or make them as an administrator: %s', v_me,
            (SELECT string_agg(format('CREATE ROLE %I NOLOGIN;', n.name), ' ' ORDER BY n.name)
             FROM unnest(string_to_array(v_missing, ', ')) AS n (name)));
    END IF;

    IF v_right IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'SV013', MESSAGE = 'to migrate, this role lacks ' || v_right,
            DETAIL = 'Received: role ' || v_me, HINT = 'As an administrator: ' || v_fix, COLUMN = 'role';
    END IF;
END
$$;
