-- Commands that analyze the partitioned tables, which autovacuum never does. Nothing for a role that does not own them.
CREATE OR REPLACE FUNCTION streamvibe.parents_to_analyze() RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('ANALYZE public.%I', c.relname) FROM pg_class c
    WHERE c.oid IN ('public.job_queue'::regclass, 'public.job_log'::regclass) AND pg_has_role(c.relowner, 'USAGE')
$$;
