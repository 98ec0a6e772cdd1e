-- Cancel a user's own jobs: live ones, and failed ones that would come back by themselves (retry_at is set).
-- Never waits for a handler: a running one is told, and its completion refused.
-- Returns: a row per id, in the order given; outcome 'cancelled', 'unchanged' (it was finished for good) or 'not_found' (status NULL;
--          also another user's job).
-- Locks:   the rows of those it may cancel, in id order, until the transaction ends. Not the user's lock: a cancel would wait
--          for every open transaction that has asked for one of the user's jobs, a handler's included. So in a transaction
--          that also requests or retries jobs of the user, cancel last (see docs/decisions/0001-claims.md).
-- Raises:  SV001 more than 10000 ids, SV004.
CREATE OR REPLACE FUNCTION public.cancel_jobs(p_user_id uuid, p_job_ids uuid[])
    RETURNS TABLE (job_id uuid, outcome text, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_now timestamptz;
    -- (min(uuid) came with PostgreSQL 18.)
    v_first uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id LIMIT 1);
    v_last uuid := (SELECT u.id FROM unnest(p_job_ids) u(id) ORDER BY u.id DESC LIMIT 1);
    v_locked uuid[];
    v_cancelled uuid[];
BEGIN
    PERFORM streamvibe.check_job_ids(p_job_ids);
    -- Only a failed job has a retry_at. coalesce, and IS TRUE, without which all jobs of the user might be read: see
    -- policies/plans.sql.
    v_locked := ARRAY(
    SELECT q.id FROM public.job_queue q JOIN (SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id)) r ON q.id = r.id
    WHERE (q.user_id = v_user_id) IS TRUE AND q.id = ANY (p_job_ids) AND q.id BETWEEN v_first AND v_last
      AND (coalesce(q.status, '') IN ('pending', 'processing') OR q.retry_at IS NOT NULL)
    ORDER BY q.id FOR NO KEY UPDATE OF q);
    v_now := streamvibe.now();
    PERFORM streamvibe.count_jobs(-1, v_locked);
    WITH cancelled AS (
        UPDATE public.job_queue q
        SET status = 'cancelled', completed_at = v_now, retry_at = NULL, updated_at = v_now
        FROM unnest(v_locked) r(id)
        WHERE q.id = r.id AND q.id = ANY (v_locked) AND q.id BETWEEN v_locked[1] AND v_locked[cardinality(v_locked)]
          AND (coalesce(q.status, '') IN ('pending', 'processing') OR q.retry_at IS NOT NULL)
        RETURNING q.id
    )
    SELECT coalesce(array_agg(c.id), '{}') INTO v_cancelled FROM cancelled c;
    PERFORM streamvibe.count_jobs(1, v_locked);
    PERFORM pg_notify('streamvibe_cancel', h.id::text)
    FROM unnest(v_cancelled) h(id)
    -- NOT one look per job: the lists are hashed once.
    WHERE h.id IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c);
    RETURN QUERY
    SELECT r.id,
           CASE WHEN q.id IS NULL THEN 'not_found' WHEN q.id = ANY (v_cancelled) THEN 'cancelled'
                ELSE 'unchanged' END,
           q.status
    FROM (SELECT u.id, min(u.n) AS n FROM unnest(p_job_ids) WITH ORDINALITY u(id, n) GROUP BY u.id) r
    -- OFFSET 0: looked up one by one; as a plain join all ids of the table might be read.
    LEFT JOIN LATERAL (SELECT j.id, j.status FROM public.job_queue j
                       WHERE j.id = r.id AND (j.user_id = v_user_id) IS TRUE OFFSET 0) q ON true
    ORDER BY r.n;
END
$$;
