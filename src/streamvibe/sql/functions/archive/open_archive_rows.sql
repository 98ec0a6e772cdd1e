-- Open a cursor on the rows of a source (see archive_days) of one day, as the archive has them, by user, job type (lines: job) and
-- id. Fetch from it in the same transaction.
-- Returns: the cursor's name, archive_rows.
-- Raises:  SV001 the leaf is not sealed, SV004, SV009 there is no such leaf.
CREATE OR REPLACE FUNCTION streamvibe.open_archive_rows(p_source text, p_day date) RETURNS refcursor
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_batch bigint := substring(p_source FROM '^leaving-([0-9]{1,18})$')::bigint;
    v_from uuid := streamvibe.id_bound(p_day::timestamp AT TIME ZONE 'UTC');
    v_before uuid := streamvibe.id_bound((p_day + 1)::timestamp AT TIME ZONE 'UTC');
    v_leaf streamvibe.partition;
    v_rows refcursor := 'archive_rows';
BEGIN
    PERFORM streamvibe.require_service('open_archive_rows');
    IF v_batch IS NOT NULL THEN
        OPEN v_rows NO SCROLL FOR
        SELECT a.id, a.user_id, a.created_at, a.updated_at, a.scheduled_for, a.expires_at, a.started_at,
               a.completed_at, a.retry_at, a.claim_token, a.job_priority, a.retry_count, a.progress, a.turn,
               a.isolated, a.job_type, a.status, a.worker_id, a.idempotency_key, a.failure_kind, a.error_message,
               a.progress_message, a.params, a.result, a.traceparent
        FROM streamvibe.archivable_job a
        WHERE a.place = 'leaving' AND a.batch = v_batch AND a.row_id >= v_from AND a.row_id < v_before
        ORDER BY a.row_user_id, a.job_type, a.row_id;
        RETURN v_rows;
    END IF;
    v_leaf := streamvibe.sealed_leaf(p_source);
    v_from := greatest(v_from, streamvibe.id_bound(v_leaf.lower_at));
    v_before := least(v_before, v_leaf.upper_id);
    IF v_leaf.parent_name = 'job_queue' THEN
        OPEN v_rows NO SCROLL FOR
        SELECT a.id, a.user_id, a.created_at, a.updated_at, a.scheduled_for, a.expires_at, a.started_at,
               a.completed_at, a.retry_at, a.claim_token, a.job_priority, a.retry_count, a.progress, a.turn,
               a.isolated, a.job_type, a.status, a.worker_id, a.idempotency_key, a.failure_kind, a.error_message,
               a.progress_message, a.params, a.result, a.traceparent
        FROM streamvibe.archivable_job a WHERE a.place = 'queue' AND a.row_id >= v_from AND a.row_id < v_before
        ORDER BY a.row_user_id, a.job_type, a.row_id;
    ELSE
        OPEN v_rows NO SCROLL FOR
        SELECT a.id, a.job_id, a.user_id, a.created_at, a.log_level, a.message, a.metadata
        FROM streamvibe.archivable_line a WHERE a.row_id >= v_from AND a.row_id < v_before
        ORDER BY a.row_user_id, a.job_id, a.row_id;
    END IF;
    RETURN v_rows;
END
$$;
