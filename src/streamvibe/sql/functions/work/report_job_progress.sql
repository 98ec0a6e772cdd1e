-- Note how far leased jobs are: p_progress 0..1 (NULL: unknown), a message of up to 500 characters.
-- What is no longer held is passed over. A cheap update: no index holds these columns.
-- Returns: only those whose row another transaction has just now: note it again in a moment.
-- Locks:  the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises: SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.report_job_progress(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_progress real[], p_messages text[]
) RETURNS TABLE (job_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
#variable_conflict use_column
DECLARE
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('report_job_progress');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_progress), cardinality(p_messages)]) l;
    UPDATE public.job_queue q
    SET progress = CASE WHEN r.progress IS NOT NULL THEN least(greatest(r.progress, 0), 1) END,
        progress_message = left(r.message, 500)
    FROM unnest(p_tokens, p_job_ids, p_progress, p_messages, v_mine.since) r(token, job_id, progress, message, since)
    WHERE q.id = r.job_id AND r.since IS NOT NULL AND coalesce(q.status, '') = 'processing'
      AND q.claim_token = r.token AND q.id = ANY (v_mine.locked)
      AND q.id BETWEEN v_mine.locked[1] AND v_mine.locked[cardinality(v_mine.locked)];
    RETURN QUERY SELECT unnest(v_mine.busy);
END
$$;
