-- Who may call what. Everything is taken from everybody first, because Supabase's default privileges give anon
-- every new function and table; then each role gets its list. A new function is nobody's until it stands here.
DO $$
DECLARE
    v_for_users CONSTANT text[] := ARRAY[
        'request_job', 'find_or_create_job', 'get_cached_job_result', 'cancel_jobs', 'retry_jobs',
        'get_job', 'get_job_result', 'get_user_jobs', 'get_user_jobs_by_cursor', 'get_user_jobs_by_bucket',
        'get_job_logs', 'search_jobs', 'explain_job_wait'];
    v_for_service CONSTANT text[] := ARRAY[
        'create_jobs', 'request_jobs', 'register_job_type', 'set_user_limit',
        'heartbeat_worker', 'claim_jobs', 'hold_claim', 'keep_claim', 'lease_jobs', 'report_job_progress', 'complete_jobs', 'fail_jobs',
        'release_jobs', 'release_forgotten_claims', 'unregister_worker', 'append_job_logs',
        'ensure_partitions', 'retry_failed_jobs', 'expire_stale_jobs', 'recover_stuck_jobs', 'recover_broken_claims',
        'cleanup_old_jobs', 'cleanup_old_logs', 'forget_idempotency_keys', 'compact_stats', 'recount_stats', 'get_job_queue_stats', 'get_workers',
        'pause_jobs', 'resume_jobs', 'get_pauses', 'get_maintenance', 'get_maintenance_runs', 'set_maintenance_duty',
        'get_index_usage', 'get_index_bloat', 'get_table_health', 'get_job_queue_alerts', 'get_slow_statements',
        'make_report', 'get_reports', 'get_job_queue_metrics', 'set_archive', 'get_archive', 'get_archive_files', 'erase_user'];
    v_private_for_service CONSTANT text[] := ARRAY[
        'create_staged_jobs', 'now', 'old_partitions', 'seal_partition', 'count_partition', 'place_sums', 'drop_partition',
        'lead_maintenance', 'resign_maintenance', 'register_duties', 'begin_duty', 'end_duty',
        'indexes_to_rebuild', 'parents_to_analyze', 'tables_to_vacuum',
        'lead_archive', 'resign_archive', 'plan_leaving', 'archive_days', 'open_archive_rows', 'begin_archive_file', 'end_archive_file',
        'finish_archive', 'replace_archive_file', 'reject_archive_file', 'unfinished_archive_files', 'forget_archive_file', 'erasures', 'finish_erasure',
        'awaits_archive'];
    v_function record;
BEGIN
    FOR v_function IN
        SELECT o.function AS name,
               o.schema_name = 'public' AND o.function_name = ANY (v_for_users) AS for_users,
               o.schema_name = 'public' AND o.function_name = ANY (v_for_users || v_for_service)
               OR o.schema_name = 'streamvibe' AND o.function_name = ANY (v_private_for_service) AS for_service
        FROM streamvibe.own_functions() o
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, anon, authenticated, service_role',
                                  v_function.name);
        IF v_function.for_users THEN
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO authenticated', v_function.name);
        END IF;
        IF v_function.for_service THEN
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO service_role', v_function.name);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON public.job_queue, public.job_log FROM PUBLIC, anon, authenticated, service_role;
GRANT SELECT ON public.job_queue, public.job_log TO authenticated, service_role;

REVOKE ALL ON SCHEMA streamvibe FROM PUBLIC, anon, authenticated, service_role;
REVOKE ALL ON ALL TABLES IN SCHEMA streamvibe FROM PUBLIC, anon, authenticated, service_role;
GRANT USAGE ON SCHEMA streamvibe TO service_role;
GRANT INSERT ON streamvibe.staging TO service_role;
