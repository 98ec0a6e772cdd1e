-- The statements on the queue's tables and functions that took the most time in all, from the extension pg_stat_statements, in
-- whatever schema it is; those that different roles sent count together. What changes the schema is left out.
-- statement: without anybody's constants.
-- blocks_per_call: pages read, from memory or disk. since: when the extension began to count.
-- problem, fix: in a row of its own, the last one and without a statement: why there is nothing, or not everything, to show, and
--            what to do about it.
-- p_limit:   1 to 1000 statements.
-- Raises:    SV001, SV004.
CREATE OR REPLACE FUNCTION public.get_slow_statements(p_limit integer DEFAULT 20)
    RETURNS TABLE (
        statement text, calls bigint, total_seconds double precision, mean_seconds double precision,
        max_seconds double precision, rows_per_call double precision, blocks_per_call double precision, query_id bigint,
        since timestamptz, problem text, fix text
    )
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A setting of the library's, which everybody may see: shared_preload_libraries is hidden from most.
    v_is_loaded CONSTANT boolean := current_setting('pg_stat_statements.max', true) IS NOT NULL;
    v_schema name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                      WHERE e.extname = 'pg_stat_statements');
    v_view oid := (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = v_schema AND c.relname = 'pg_stat_statements');
    v_load CONSTANT text := 'ALTER SYSTEM SET shared_preload_libraries = ''pg_stat_statements'' (beside what is there), and restart PostgreSQL';
    v_ours text;
    v_hidden bigint;
BEGIN
    PERFORM streamvibe.require_service('get_slow_statements');
    PERFORM streamvibe.check_page(p_limit, NULL);
    IF v_schema IS NULL THEN
        problem := 'the extension pg_stat_statements is not in this database';
        fix := CASE WHEN v_is_loaded THEN '' ELSE v_load || '; then ' END || 'CREATE EXTENSION pg_stat_statements';
    ELSIF NOT v_is_loaded THEN
        problem := 'the extension pg_stat_statements is there, but its library is not loaded';
        fix := v_load;
    ELSIF NOT (has_schema_privilege(v_schema, 'USAGE') AND has_table_privilege(v_view, 'SELECT')) THEN
        problem := format('the role %s may not read %I.pg_stat_statements', current_user, v_schema);
        fix := format('GRANT USAGE ON SCHEMA %1$I TO %2$I; GRANT SELECT ON %1$I.pg_stat_statements, %1$I.pg_stat_statements_info TO %2$I',
                      v_schema, current_user);
    ELSIF (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = v_view AND a.attname IN ('total_exec_time', 'toplevel')) < 2 THEN
        problem := 'the extension pg_stat_statements is older than the server';
        fix := 'ALTER EXTENSION pg_stat_statements UPDATE';
    END IF;
    IF problem IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    v_ours := (SELECT '\m(streamvibe\.|job_queue\M|job_log\M|(' || string_agg(DISTINCT o.function_name, '|') || ')\M"?\s*\()'
               FROM streamvibe.own_functions() o WHERE o.schema_name = 'public');
    RETURN QUERY EXECUTE format($query$
        SELECT t.said, t.calls, t.total / 1000, t.total / t.calls / 1000, t.longest / 1000, t.rows / t.calls::double precision,
               t.blocks / t.calls::double precision, t.queryid, i.stats_reset, NULL::text, NULL::text
        FROM (SELECT s.queryid, streamvibe.without_literals(min(s.query)) AS said, sum(s.calls)::bigint AS calls,
                     sum(s.total_exec_time) AS total, max(s.max_exec_time) AS longest, sum(s.rows) AS rows,
                     sum(s.shared_blks_hit + s.shared_blks_read) AS blocks
              FROM %1$I.pg_stat_statements s
              WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                AND s.query ~ $1 AND s.calls > 0
              GROUP BY s.queryid) t
        CROSS JOIN %1$I.pg_stat_statements_info i
        -- Once more: the name may have stood in a constant.
        WHERE t.said ~ $1 AND t.said !~* '^(create|alter|drop|grant|revoke|comment|do)\M'
        ORDER BY t.total DESC, t.queryid LIMIT $2
    $query$, v_schema) USING v_ours, p_limit;
    EXECUTE format($query$
        SELECT count(*) FROM %I.pg_stat_statements s
        WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND s.queryid IS NULL
    $query$, v_schema) INTO v_hidden;
    IF v_hidden > 0 THEN
        RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::double precision, NULL::double precision, NULL::double precision,
            NULL::double precision, NULL::double precision, NULL::bigint, NULL::timestamptz,
            format('the role %s may not see %s statements of other roles', current_user, v_hidden),
            format('GRANT pg_read_all_stats TO %I', current_user);
    END IF;
END
$$;
