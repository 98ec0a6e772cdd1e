-- Lock what a worker is about to move: the claims, so that nobody takes their jobs away, then those of the jobs
-- that stand in them. Every function that moves held jobs begins with this one.
-- since:  parallel to p_job_ids: when the job was claimed, if it may be moved, else NULL.
-- locked: those that may be moved; processing: those of them whose rows say so. busy: held, but another transaction has the row; the worker tries again later.
-- What is in neither is not this worker's any more; one whose row is gone leaves its claim here.
-- Locks:  the claims by token, then the jobs' rows in id order (SKIP LOCKED).
-- Raises: SV001 the arrays are not parallel, SV006.
CREATE OR REPLACE FUNCTION streamvibe.lock_held_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_sizes integer[],
    OUT since timestamptz[], OUT locked uuid[], OUT processing uuid[], OUT busy uuid[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
DECLARE
    v_missing record;
BEGIN
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens, p_sizes || cardinality(p_job_ids));
    since := ARRAY(
        SELECT h.claimed_at FROM unnest(p_tokens, p_job_ids) WITH ORDINALITY a(token, job_id, n)
        LEFT JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id) ORDER BY a.n);
    SELECT l.* INTO locked, processing FROM streamvibe.lock_jobs(ARRAY(
        SELECT a.job_id FROM unnest(p_job_ids, since) a(job_id, since) WHERE a.since IS NOT NULL)) l;
    busy := '{}';
    IF cardinality(locked) < cardinality(array_remove(since, NULL)) THEN
        SELECT coalesce(array_agg(a.job_id) FILTER (WHERE q.id IS NULL), '{}') AS ids,
               coalesce(array_agg(a.token) FILTER (WHERE q.id IS NULL), '{}') AS tokens,
               coalesce(array_agg(a.job_id) FILTER (WHERE q.id IS NOT NULL), '{}') AS busy INTO v_missing
        FROM unnest(p_tokens, p_job_ids, since) a(token, job_id, since)
        LEFT JOIN LATERAL (SELECT j.id FROM public.job_queue j WHERE j.id = a.job_id OFFSET 0) q ON true
        WHERE a.since IS NOT NULL AND a.job_id NOT IN (SELECT unnest(locked));
        busy := v_missing.busy;
        PERFORM streamvibe.drop_from_claims(p_worker_id, v_missing.tokens, v_missing.ids, '{}');
        since := ARRAY(
            SELECT CASE WHEN a.job_id IN (SELECT unnest(locked)) THEN a.since END
            FROM unnest(p_job_ids, since) WITH ORDINALITY a(job_id, since, n) ORDER BY a.n);
    END IF;
END
$$;
