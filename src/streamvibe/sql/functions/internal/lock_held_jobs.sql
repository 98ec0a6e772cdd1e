-- Lock what a worker is about to move: the claims, so that nobody takes their jobs away, then those of the jobs
-- that stand in them. Every function that moves held jobs begins with this one.
-- locked: may be moved. busy: held, but another transaction has the row; the worker tries again later.
-- What is in neither is not this worker's any more.
-- Locks:  the claims by token, then the jobs' rows in id order (SKIP LOCKED).
-- Raises: SV001 the arrays are not parallel, SV006.
CREATE OR REPLACE FUNCTION streamvibe.lock_held_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_sizes integer[], OUT locked uuid[], OUT busy uuid[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_held uuid[];
BEGIN
    PERFORM streamvibe.lock_claims(p_worker_id, p_tokens, p_sizes || cardinality(p_job_ids));
    v_held := ARRAY(
        SELECT a.job_id FROM unnest(p_tokens, p_job_ids) a(token, job_id)
        JOIN streamvibe.held_jobs(p_worker_id, p_tokens) h USING (token, job_id));
    locked := streamvibe.lock_jobs(v_held);
    busy := CASE WHEN cardinality(locked) = cardinality(v_held) THEN '{}'
                 ELSE ARRAY(SELECT unnest(v_held) EXCEPT SELECT unnest(locked)) END;
END
$$;
