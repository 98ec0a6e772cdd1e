-- Forget idempotency keys whose jobs are gone with their leaves.
-- Returns: how many, at most p_limit.
-- Index:   idempotency_job.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.forget_idempotency_keys(p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_first uuid := (SELECT streamvibe.id_bound(min(p.lower_at)) FROM streamvibe.partition p WHERE p.parent_name = 'job_queue');
    v_count integer;
BEGIN
    PERFORM streamvibe.require_service('forget_idempotency_keys');
    PERFORM streamvibe.check_batch_size(p_limit);
    DELETE FROM streamvibe.idempotency i
    WHERE i.ctid = ANY (ARRAY(SELECT k.ctid FROM streamvibe.idempotency k WHERE k.job_id < v_first
                              ORDER BY k.job_id LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
