-- Make a table that can become a leaf of job_queue or job_log. It gets its own settings and statistics targets: neither is
-- inherited from a partitioned table.
CREATE OR REPLACE FUNCTION streamvibe.make_leaf(p_parent text, p_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE TABLE streamvibe.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING GENERATED '
                   'INCLUDING CONSTRAINTS INCLUDING STORAGE)', p_name, p_parent);
    -- Seen from a leaf, these are what an operator meets first: rows churn, so vacuum early and fast.
    EXECUTE format('ALTER TABLE streamvibe.%I SET (autovacuum_vacuum_scale_factor = 0.05, '
                   'autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05, '
                   'autovacuum_vacuum_cost_limit = 1000)', p_name);
    IF p_parent = 'job_queue' THEN
        EXECUTE format('ALTER TABLE streamvibe.%I ALTER COLUMN status SET STATISTICS 1000, '
                       'ALTER COLUMN job_type SET STATISTICS 1000', p_name);
    ELSE
        EXECUTE format('ALTER TABLE streamvibe.%I SET (toast_tuple_target = 8160)', p_name);
    END IF;
    EXECUTE format('ALTER TABLE streamvibe.%I ENABLE ROW LEVEL SECURITY', p_name);
END
$$;
