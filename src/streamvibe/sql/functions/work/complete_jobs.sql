-- Complete jobs with their results. Only the worker that holds a job under this token can.
-- p_tokens, p_job_ids, p_results and p_started_at (NULL: when they were claimed) are parallel.
-- Returns: only those not completed, with their status now (NULL: there is no such job), or 'busy': another
--          transaction has the row; the claim still holds it, so complete it again in a moment.
-- Locks:   the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises:  SV001, also for a number out of range in a result, SV003 a result is too large (nothing is written: send
--          the others without it), SV004, SV006.
CREATE OR REPLACE FUNCTION public.complete_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_results jsonb[], p_started_at timestamptz[] DEFAULT NULL
) RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
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
    SELECT a.job_id INTO v_large FROM unnest(p_job_ids, p_results) a(job_id, result)
    WHERE streamvibe.has_wild_number(a.result) LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', 'p_results', 'a number beyond 1e308 or nearer to 0 than 1e-307',
            'the result of job ' || v_large.job_id || ' holds a number out of range', 'Send such numbers as text.');
    END IF;
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
            started_at = coalesce(q.started_at, least(greatest(r.started_at, r.since), v_now))
        FROM unnest(p_tokens, p_job_ids, p_results, coalesce(p_started_at, '{}'), v_mine.since)
             r(token, job_id, result, started_at, since)
        WHERE q.id = r.job_id AND r.since IS NOT NULL AND coalesce(q.status, '') IN ('pending', 'processing')
          AND q.id = ANY (v_mine.locked)
          AND q.id BETWEEN v_mine.locked[1] AND v_mine.locked[cardinality(v_mine.locked)]
        RETURNING q.tableoid AS leaf, q.id, q.job_type, q.created_at, q.scheduled_for, q.started_at
    ), notes AS MATERIALIZED (
        SELECT d.leaf, d.job_type, m.status, streamvibe.minute_of(d.created_at) AS minute, -count(*) AS jobs,
               NULL::bigint AS waiting_us, NULL::bigint AS processing_us, NULL::smallint[] AS waited, NULL::smallint[] AS processed
        FROM done d
        CROSS JOIN LATERAL (SELECT CASE WHEN d.id IN (SELECT unnest(v_mine.processing))
                                        THEN 'processing' ELSE 'pending' END AS status) m
        GROUP BY d.leaf, d.job_type, m.status, streamvibe.minute_of(d.created_at)
        UNION ALL
        SELECT d.leaf, d.job_type, 'completed', streamvibe.minute_of(v_now), count(*),
               sum(streamvibe.duration_us(d.scheduled_for, d.started_at)),
               sum(streamvibe.duration_us(d.started_at, v_now)),
               array_agg(streamvibe.sketch_bucket(d.scheduled_for, d.started_at)),
               array_agg(streamvibe.sketch_bucket(d.started_at, v_now))
        FROM done d GROUP BY d.leaf, d.job_type
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs, waiting_us, processing_us, waited, processed)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
               n.job_type, n.status, n.minute, n.jobs, n.waiting_us, n.processing_us, n.waited, n.processed
        FROM notes n
    )
    SELECT coalesce(array_agg(d.id), '{}') INTO v_done FROM done d;
    PERFORM streamvibe.drop_from_claims(p_worker_id, p_tokens, p_job_ids, v_mine.busy);
    IF cardinality(v_done) < cardinality(p_job_ids) THEN
        RETURN QUERY
        SELECT s.* FROM streamvibe.statuses_now(
            ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id) WHERE u.id NOT IN (SELECT unnest(v_done))), v_mine.busy) s;
    END IF;
END
$$;
