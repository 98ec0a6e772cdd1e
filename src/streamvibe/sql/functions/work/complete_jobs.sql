-- Complete jobs with their results. Only the worker that holds a job under this token can.
-- p_tokens, p_job_ids, p_results and p_started_at (NULL: when they were claimed) are parallel.
-- Returns: only those not completed, with their status now (NULL: there is no such job), or 'busy': another
--          transaction has the row; the claim still holds it, so complete it again in a moment.
-- Locks:   the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises:  SV001, SV003 a result is too large (nothing is written: send the others without it), SV004, SV006.
CREATE OR REPLACE FUNCTION public.complete_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_results jsonb[], p_started_at timestamptz[] DEFAULT NULL
) RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_max integer := (SELECT s.max_result_bytes FROM streamvibe.setting s);
    v_now timestamptz;
    v_large record;
    v_mine record;
    v_done uuid[];
BEGIN
    PERFORM streamvibe.require_service('complete_jobs');
    SELECT a.job_id, octet_length(a.result::text) AS size INTO v_large
    FROM unnest(p_job_ids, p_results) a(job_id, result)
    WHERE octet_length(a.result::text) > v_max LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV003', 'p_results', v_large.size || ' bytes',
            'the result of job ' || v_large.job_id || ' is too large',
            'Keep it within ' || v_max || ' bytes: store the data elsewhere and return a reference.');
    END IF;
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_results), coalesce(cardinality(p_started_at), cardinality(p_tokens))]) l;
    v_now := streamvibe.now();
    WITH done AS (
        UPDATE public.job_queue q
        SET status = 'completed', result = r.result, completed_at = v_now, updated_at = v_now,
            worker_id = p_worker_id, claim_token = r.token, isolated = false,
            failure_kind = NULL, error_message = NULL,
            progress = CASE WHEN q.progress IS NOT NULL THEN 1 END,
            started_at = coalesce(q.started_at, least(greatest(r.started_at, r.claimed_at), v_now))
        FROM (SELECT a.token, a.job_id, a.result, a.started_at, h.claimed_at
              FROM unnest(p_tokens, p_job_ids, p_results, coalesce(p_started_at, '{}'))
                   a(token, job_id, result, started_at)
              JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id)
              JOIN unnest(v_mine.locked) l(job_id) USING (job_id)) r
        WHERE q.id = r.job_id AND q.status IN ('pending', 'processing')
        RETURNING q.id
    )
    SELECT coalesce(array_agg(d.id), '{}') INTO v_done FROM done d;
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
    IF cardinality(v_done) < cardinality(p_job_ids) THEN
        RETURN QUERY
        SELECT a.job_id, CASE WHEN a.job_id = ANY (v_mine.busy) THEN 'busy' ELSE q.status END
        FROM unnest(p_job_ids) a(job_id)
    LEFT JOIN LATERAL (SELECT j.status FROM public.job_queue j WHERE j.id = a.job_id OFFSET 0) q ON true
        WHERE a.job_id NOT IN (SELECT unnest(v_done));
    END IF;
END
$$;
