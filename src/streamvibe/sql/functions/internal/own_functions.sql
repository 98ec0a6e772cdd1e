-- Which functions are ours: what the policies grant and pin, and nothing else. In the schema public another function
-- may share a name with one of ours; ours stand in the ledger, are the owner's and pin their search_path.
CREATE OR REPLACE FUNCTION streamvibe.own_functions()
    RETURNS TABLE (function regprocedure, schema_name name, function_name name)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure, n.nspname, p.proname
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prokind = 'f'
      AND (n.nspname = 'streamvibe'
           OR n.nspname = 'public' AND p.prosecdef AND 'search_path=pg_catalog, pg_temp' = ANY (p.proconfig)
              AND p.proowner = (SELECT c.relowner FROM pg_class c WHERE c.oid = 'public.job_queue'::regclass)
              AND EXISTS (SELECT FROM streamvibe.schema_migration m
                          WHERE m.kind = 'function' AND substring(m.name FROM '([^/]+)\.sql$') = p.proname))
$$;
