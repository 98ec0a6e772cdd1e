-- Forget idempotency keys whose jobs are gone with their leaves.
-- Returns: how many, at most p_limit.
-- Index:   idempotency_job.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.forget_idempotency_keys(p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM streamvibe.require_service('forget_idempotency_keys');
    PERFORM streamvibe.check_batch_size(p_limit);
    DELETE FROM streamvibe.idempotency i
    WHERE i.ctid = ANY (ARRAY(
        SELECT k.ctid
        -- Between the leaves there are, and before the first.
        FROM (SELECT coalesce(lag(p.upper_id) OVER (ORDER BY p.lower_at), '00000000-0000-0000-0000-000000000000') AS from_id,
                     streamvibe.id_bound(p.lower_at) AS before_id
              FROM streamvibe.partition p WHERE p.parent_name = 'job_queue') g
        CROSS JOIN LATERAL (
            SELECT l.ctid FROM streamvibe.idempotency l
            WHERE l.job_id >= g.from_id AND l.job_id < g.before_id
            LIMIT p_limit FOR UPDATE SKIP LOCKED) k
        WHERE g.from_id < g.before_id
        LIMIT p_limit));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
