-- A function of the extension pgstattuple that takes a relation, as SQL names it; NULL where it is not there, or may not be
-- called: the extension may be another role's.
CREATE OR REPLACE FUNCTION streamvibe.pgstattuple_function(p_name text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%I.%I', n.nspname, p.proname)
    FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.deptype = 'e'
    JOIN pg_proc p ON p.oid = d.objid AND p.proname = p_name AND p.proargtypes[0] = 'regclass'::regtype
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE e.extname = 'pgstattuple' AND has_function_privilege(p.oid, 'EXECUTE')
$$;
