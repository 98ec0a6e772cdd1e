-- How functions that look at single jobs may be planned. A plan made while a partition was empty (every week's new
-- one is) lives on in its session until autovacuum has seen the rows that came since: a minute in which a scan that
-- cost nothing reads a million jobs. So scans of whole partitions are not offered at all; what is left are lookups
-- in indexes. On 15 a plan without choice looks so dear that it would be compiled, hence jit.
-- What updates many jobs by their ids must read no more than those, whatever the planner believes to be in the table:
-- - coalesce(status, ''), or it would rather read an index on the status, which it takes for empty;
-- - id = ANY (the ids) beside the join, which bounds the lookup, and BETWEEN, which leaves out other partitions;
-- - enable_nestloop = off, or it may compare every row with every element;
-- - (user_id = the user) IS TRUE, or it may read all jobs of the user;
-- - before 17, cpu_index_tuple_cost: to look ten ids up is dearer there than to read an index of a few rows from end to end.
-- That an id is looked up in the primary key, among indexes that are empty and cost the same, is attach_leaf()'s doing.
-- Functions that count or list many jobs are left to the planner; claim_jobs has its own settings.
-- What reads or moves jobs by their ids, or reads a page of a user's, keeps its plan, instead of making one for every call, which
-- for one job takes as long again as the work, and with 75 leaves ten times as long. The plan is for all leaves: making it takes
-- 2 ms a leaf, at a session's first call and again after a leaf was vacuumed or analyzed, and every call locks every leaf; with some
-- ten leaves that is little.
DO $$
DECLARE
    v_function regprocedure;
    v_setting text;
BEGIN
    FOR v_function IN
        SELECT o.function FROM streamvibe.own_functions() o
        WHERE o.function_name IN (
              'request_job', 'request_jobs', 'find_or_create_job', 'create_jobs', 'create_staged_jobs',
              'get_cached_job_result', 'cancel_jobs', 'retry_jobs',
              'get_job', 'get_job_result', 'get_job_logs', 'get_job_queue_stats',
              'get_user_jobs', 'get_user_jobs_by_cursor', 'get_user_jobs_by_bucket', 'search_jobs',
              'heartbeat_worker', 'lease_jobs', 'report_job_progress', 'complete_jobs', 'fail_jobs', 'release_jobs',
              'append_job_logs', 'retry_failed_jobs', 'expire_stale_jobs', 'recover_stuck_jobs',
              'recover_broken_claims', 'has_open_jobs', 'old_partitions', 'delete_jobs', 'cleanup_old_jobs', 'cleanup_old_logs',
              'forget_idempotency_keys', 'explain_job_wait', 'day_figures', 'oldest_due', 'get_job_queue_metrics', 'remove_jobs',
              'erase_user')
    LOOP
        FOREACH v_setting IN ARRAY ARRAY['enable_seqscan', 'enable_bitmapscan', 'jit'] LOOP
            EXECUTE pg_catalog.format('ALTER FUNCTION %s SET %I = off', v_function, v_setting);
        END LOOP;
    END LOOP;
    FOR v_function IN
        SELECT o.function FROM streamvibe.own_functions() o
        WHERE o.function_name IN (
              'get_job', 'get_job_result', 'get_cached_job_result', 'get_job_queue_stats',
              'get_user_jobs', 'get_user_jobs_by_cursor', 'get_user_jobs_by_bucket', 'search_jobs',
              'create_jobs', 'create_staged_jobs', 'cancel_jobs', 'retry_jobs',
              'heartbeat_worker', 'lease_jobs', 'report_job_progress', 'complete_jobs', 'fail_jobs', 'release_jobs',
              'append_job_logs')
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function);
    END LOOP;
    FOR v_function IN
        SELECT o.function FROM streamvibe.own_functions() o
        WHERE o.function_name IN (
              'cancel_jobs', 'lease_jobs', 'report_job_progress', 'complete_jobs', 'fail_jobs', 'release_jobs', 'delete_jobs',
              'remove_jobs', 'apply_failures', 'put_back')
          AND pg_catalog.current_setting('server_version_num')::integer < 170000
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s SET cpu_index_tuple_cost = 1', v_function);
    END LOOP;
END
$$;
